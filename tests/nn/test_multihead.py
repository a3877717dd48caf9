"""Multi-head attention with keyed dropout: torch's results, and masks that a key decides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thinned
import thinned.nn as tnn
from thinned.functional import bernoulli_mask

SETTINGS = {
    "default": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "bias kv": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "sizes": {"kdim": 6, "vdim": 10},
    "all": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True, "kdim": 6},
}


def pair(**settings):
    """Torch's layer without dropout and ours, at a rate of 1e-12, with equal parameters."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, dropout=0.0, **settings).double()
    ours = tnn.MultiheadAttention(8, 2, dropout=1e-12, **settings).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(settings, batched=True):
    sizes = (8, settings.get("kdim", 8), settings.get("vdim", 8))
    first = settings.get("batch_first", False)
    made = [
        torch.randn(*((3, t) if first else (t, 3)), e).double()
        for t, e in zip((4, 5, 5), sizes, strict=True)
    ]
    return made if batched else [x[0] if first else x[:, 0] for x in made]


MASKS = {
    "none": dict,
    "padding": lambda: {"key_padding_mask": torch.arange(5)[None] > torch.tensor([[4], [2], [3]])},
    "bool": lambda: {"attn_mask": torch.ones(4, 5, dtype=torch.bool).triu(1)},
    "float": lambda: {"attn_mask": torch.randn(6, 4, 5).double()},
    "both": lambda: {
        "attn_mask": torch.ones(4, 5, dtype=torch.bool).triu(2),
        "key_padding_mask": torch.arange(5)[None] > torch.tensor([[4], [2], [3]]),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", SETTINGS)
def test_results_and_weights_are_those_of_torch(name, mask):
    """Torch's own layer is the oracle, in training, where ours computes by its own code."""
    settings = SETTINGS[name]
    theirs, ours = pair(**settings)
    x, masks = inputs(settings), MASKS[mask]()
    for extra in ({}, {"average_attn_weights": False}, {"need_weights": False}):
        want, want_weights = theirs(*x, **masks, **extra)
        got, weights = ours(*x, **masks, **extra)
        torch.testing.assert_close(got, want)
        assert (weights is None) == (want_weights is None)
        if weights is not None:
            torch.testing.assert_close(weights, want_weights)


def test_one_sequence_without_a_batch():
    theirs, ours = pair()
    x = inputs({}, batched=False)
    for got, want in zip(ours(*x), theirs(*x), strict=True):
        torch.testing.assert_close(got, want)


def test_dropped_weights_are_the_mask_of_the_key():
    """weights = m a / (1 - p), with a from torch and m from the same key; the result uses them."""
    torch.manual_seed(0)
    layer = tnn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True, bias=False).double()
    x = torch.randn(3, 4, 8).double()
    with thinned.off(layer):
        _, undropped = layer(x, x, x, average_attn_weights=False)
    key = thinned.key(layer, seed=5)
    key.at(step=2, samples=[7, 8, 9])
    expected_key = layer.call_key()
    mask = bernoulli_mask((3, 2, 4, 4), 0.5, expected_key, undropped)
    key.at(step=2, samples=[7, 8, 9])
    result, weights = layer(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(weights, undropped * mask * 2)
    values = (x @ layer.in_proj_weight[16:].T).unflatten(2, (2, 4)).transpose(1, 2)
    by_hand = (weights @ values).transpose(1, 2).flatten(2) @ layer.out_proj.weight.T
    torch.testing.assert_close(result, by_hand)
    key.at(step=2, samples=[9, 7, 8])
    again, _ = layer(*(x.roll(1, 0),) * 3)
    torch.testing.assert_close(again, result.roll(1, 0))


def test_gradients():
    torch.manual_seed(0)
    layer = tnn.MultiheadAttention(4, 2, dropout=0.5).double()
    x = torch.randn(3, 2, 4).double().requires_grad_()
    with thinned.frozen(layer):
        assert torch.autograd.gradcheck(lambda x: layer(x, x, x)[0], (x,))


def test_a_row_without_keys_is_zero():
    layer = tnn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True, bias=False)
    x = torch.randn(1, 3, 4)
    y, _ = layer(x, x, x, key_padding_mask=torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(y, torch.zeros(1, 3, 4))


def test_the_attribute_dropout_is_the_rate():
    layer = tnn.MultiheadAttention(4, 2, dropout=0.5)
    layer.dropout = 0.25
    assert layer.p == layer.dropout == 0.25
    thinned.set_rate(layer, 0.1)
    assert layer.p == 0.1
    with pytest.raises(thinned.InputError, match="between 0 and 1"):
        layer.dropout = 1.5


def encoder():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    return nn.TransformerEncoder(block, 2)


def test_replaced_encoders_are_keyed_and_go_back():
    """Every site of torch's encoder is keyed; after training the old modules have the weights."""
    model, x = encoder(), torch.randn(3, 5, 8)
    kinds = [type(m) for m in model.modules()]
    want = model.eval()(x)
    names = list(model.state_dict())
    with pytest.raises(thinned.InputError, match=r"layers.0.self_attn \(MultiheadAttention\)"):
        thinned.key(model)
    edits = thinned.replace(model)
    assert not edits.notes
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), want)
    key = thinned.key(model.train(), seed=1)
    state = torch.get_rng_state()
    key.at(0, samples=[4, 5, 6])
    first = model(x)
    key.at(0, samples=[6, 4, 5])
    torch.testing.assert_close(model(x.roll(1, 0)), first.roll(1, 0))
    assert torch.equal(state, torch.get_rng_state())
    first.sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    trained = model.eval()(x)
    key.remove()
    edits.undo()
    assert [type(m) for m in model.modules()] == kinds
    torch.testing.assert_close(model(x), trained)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_replaced_recurrent_networks_draw_elements_between_layers(cls):
    """The mask between the layers is read off the second layer, which is the identity in an RNN
    with ReLU; in the others the evaluation and the keys are compared.
    """
    torch.manual_seed(0)
    extra = {"nonlinearity": "relu"} if cls is nn.RNN else {}
    model = nn.ModuleDict({"net": cls(4, 6, 2, dropout=0.5, **extra)})
    x = torch.rand(7, 3, 4)
    want, _ = model["net"].eval()(x)
    thinned.replace(model.train())
    layer = model["net"]
    torch.testing.assert_close(layer.eval()(x)[0], want)
    key = thinned.key(model.train(), 1)
    key.at(0, samples=[1, 2, 3])
    first, _ = layer(x)
    key.at(0, samples=[3, 1, 2])
    torch.testing.assert_close(layer(x.roll(1, 1))[0], first.roll(1, 1))
    if cls is nn.RNN:
        with torch.no_grad():
            layer.weight_hh_l1.zero_()
            layer.bias_ih_l1.zero_()
            layer.bias_hh_l1.zero_()
            layer.weight_ih_l1.copy_(torch.eye(6))
        with thinned.off(model):
            below = layer(x)[0]
        ratio = (layer(x)[0] / below)[below > 0]
        assert set(ratio.round(decimals=4).tolist()) == {0.0, 2.0}
        mask = layer(x)[0] != 0
        assert not torch.equal(mask[0], mask[1])  # another mask at every step
