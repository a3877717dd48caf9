"""Dropout modules: construction, torch's conventions, keys, modes, and models that contain them."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading

import pytest
import torch
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

import thinned
from thinned import InputError, nn, presets


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: nn.Dropout(), "Dropout(p=0.5, inplace=False)"),
        (lambda: nn.Dropout(0.2, True), "Dropout(p=0.2, inplace=True)"),
        (lambda: nn.Dropout(p=0.3), "Dropout(p=0.3, inplace=False)"),
        (
            lambda: nn.DropBlock(p=0.1, block_size=7),
            "DropBlock(p=0.1, inplace=False, block_size=7)",
        ),
        (
            lambda: nn.SpecDropout(presets.gaussian_dropout(0.3)),
            "SpecDropout(p=0.3, inplace=False, gaussian_dropout)",
        ),
        (lambda: nn.UniformDropout(0.2), "UniformDropout(beta=0.2, inplace=False)"),
        (lambda: nn.UniformDropout(beta=0.2), "UniformDropout(beta=0.2, inplace=False)"),
        (lambda: nn.Dropout2d(0.2), "Dropout2d(p=0.2, inplace=False)"),
        (lambda: nn.DropBlock2d(0.1, 7), "DropBlock2d(p=0.1, inplace=False, block_size=7)"),
        (
            lambda: nn.DropConnect(torch.nn.Linear(7, 8), p=0.5),
            "DropConnect(in_features=7, out_features=8, bias=True, p=0.5)",
        ),
    ],
)
def test_construction(layer, text):
    assert repr(layer()) == text


def test_inplace_is_the_second_argument_as_in_torch():
    assert nn.UniformDropout(0.2, True).inplace


def test_is_a_torch_dropout():
    for layer in (nn.Dropout(), nn.Dropout1d(), nn.AlphaDropout(), nn.DropBlock3d()):
        assert isinstance(layer, _DropoutNd)
        assert "Drop" in type(layer).__name__


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Dropout(1.5), "dropout probability has to be between 0 and 1, but got 1.5"),
        (lambda: nn.Dropout("zoneot"), "Dropout takes a rate, but got 'zoneot'"),
        (lambda: nn.Dropout(presets.dropout()), r"takes a rate, but got .*SpecDropout\(drop\)"),
        (lambda: nn.SpecDropout(presets.dropout(), p=0.2), "SpecDropout has no argument 'p'"),
        (
            lambda: nn.DropConnect(torch.nn.Conv2d(1, 1, 1), presets.drop_connect()),
            "needs a torch.nn.Linear, but got Conv2d",
        ),
        (lambda: nn.DropConnect(torch.nn.Linear(2, 2), presets.dropout()), "layout 'b o i'"),
        (lambda: nn.DropConnect(torch.nn.Linear(2, 2), sampling="fast"), "unknown sampling 'fast'"),
        (lambda: thinned.key(torch.nn.Linear(2, 2)), "no thinned dropout"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_rate_may_be_changed():
    layer = nn.Dropout(0.5)
    layer.p = 0.9
    assert 0.85 < (layer(torch.ones(10_000)) == 0).float().mean() < 0.95
    for wrong in (2.0, torch.tensor(-0.5)):
        with pytest.raises(InputError, match=r"but got (2|tensor\(-0.5\)|-0.5)"):
            layer.p = wrong
    assert layer.p == 0.9


def test_dropblock_ranks():
    assert nn.DropBlock1d(0.5, 3)(torch.ones(4, 9)).shape == (4, 9)
    with pytest.raises(
        RuntimeError,
        match=r"it takes \[n, c, h, w\], but got \[3, 9, 9\].*unsqueeze",
    ):
        nn.DropBlock2d(0.5, 3)(torch.ones(3, 9, 9))


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        nn.Dropout(0.2),
        torch.nn.Linear(6, 30),
        torch.nn.ReLU(),
        nn.Dropout(0.5),
        nn.DropConnect(torch.nn.Linear(30, 4), 0.5),
    )


def test_evaluation_draws_nothing():
    model, x = net().eval(), torch.randn(5, 6)
    state = torch.get_rng_state()
    assert torch.equal(model(x), model(x))
    assert torch.equal(state, torch.get_rng_state())


def test_modes_restore():
    model, x = net().eval(), torch.randn(5, 6)
    quiet = model(x)
    with thinned.sampling(model):
        assert not torch.equal(model(x), model(x))
        with thinned.off(model):
            assert torch.equal(model(x), model(x))
        assert not torch.equal(model(x), quiet)
    assert torch.equal(model(x), quiet)
    with pytest.raises(RuntimeError, match="inside"), thinned.sampling(model):
        raise RuntimeError("inside")
    assert torch.equal(model(x), quiet)


def test_sampling_leaves_batch_norm_alone():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(6), nn.Dropout(0.5)).eval()
    before = copy.deepcopy(model.state_dict())
    with thinned.sampling(model):
        model(torch.randn(5, 6))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_keyed_masks_belong_to_layer_step_and_example():
    model, x = net(), torch.randn(8, 6)
    ids = torch.arange(8) + 100
    key = thinned.key(model, seed=7)
    with pytest.raises(InputError, match=r"call key.at\(step\)"):
        model(x)
    key.at(0, samples=ids)
    whole = model(x)
    key.at(0, samples=ids)
    assert torch.equal(model(x), whole)
    assert not torch.equal(model(x), whole)  # a second call within the step has its own masks
    order = torch.randperm(8)
    key.at(0, samples=ids[order])
    torch.testing.assert_close(model(x[order]), whole[order])
    key.at(1, samples=ids)
    assert not torch.equal(model(x), whole)
    with pytest.raises(InputError, match=r"has a key already \(seed 7\); use thinned.key_of"):
        thinned.key(model, seed=8)
    key.remove()
    with pytest.raises(InputError, match="removed from its model"):
        key.at(0)
    other = thinned.key(model, seed=8)
    other.at(0, samples=ids)
    assert not torch.equal(model(x), whole)


def test_keys_ignore_torchs_generator():
    model, x = net(), torch.randn(8, 6)
    key = thinned.key(model)
    key.at(3)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(state, torch.get_rng_state())


def test_copies_draw_the_same():
    model, x = net(), torch.randn(8, 6)
    key = thinned.key(model, 1)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        key.at(2)
        thinned.key_of(twin).at(2)
        assert thinned.key_of(twin) is not key
        assert torch.equal(model(x), twin(x))
    with pytest.raises(InputError, match="this model has no key"):
        thinned.key_of(net())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0.5, 1.0], "1-d tensor of integers"),
        ([[1]], "1-d tensor of integers"),
        ([3, -1], "ids of at least 0 and below 2.63, but got -1"),
    ],
)
def test_bad_samples(samples, message):
    with pytest.raises(InputError, match=message):
        thinned.key(net()).at(0, samples=samples)


def test_bad_step():
    with pytest.raises(InputError, match=r"step has to be in \[0, 2\^32\), but got -1"):
        thinned.key(net()).at(-1)


def test_drop_weight_takes_over_the_parameters():
    """Checkpoints of the unwrapped model load, and gradients reach the same tensors."""
    unwrapped = torch.nn.Sequential(torch.nn.Linear(3, 4))
    wrapped = torch.nn.Sequential(nn.DropConnect(torch.nn.Linear(3, 4), 0.5))
    wrapped.load_state_dict(unwrapped.state_dict())
    wrapped(torch.randn(5, 3)).sum().backward()
    assert wrapped[0].weight.grad is not None
    wrapped[0].p = 0.0
    x = torch.randn(5, 3)
    assert torch.equal(wrapped(x), unwrapped(x))


def test_drop_weight_shapes():
    layer = nn.DropConnect(torch.nn.Linear(3, 4), 0.5)
    assert layer(torch.randn(3)).shape == (4,)
    assert layer(torch.randn(2, 7, 3)).shape == (2, 7, 4)
    assert nn.DropConnect(torch.nn.Linear(3, 4), 1.0)(torch.randn(2, 3)).abs().sum() == 0
    moments = nn.DropConnect(torch.nn.Linear(3, 4), 0.5, sampling="moments")
    x = torch.zeros(2, 3, requires_grad=True)
    moments(x).sum().backward()
    assert x.grad.isfinite().all()


def test_drop_weight_gradient():
    """gradcheck at a fixed key, for the input and the weights, in both samplings."""
    for sampling in ("exact", "moments"):
        layer = nn.DropConnect(torch.nn.Linear(3, 2).double(), 0.4, sampling=sampling)
        model = torch.nn.Sequential(layer)
        key = thinned.key(model, 2)

        def run(x, w, layer=layer, model=model, key=key):
            key.at(0)
            return torch.func.functional_call(model, {"0.weight": w, "0.bias": layer.bias}, (x,))

        x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(run, (x, layer.weight))


class _Segment(torch.nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.drop, self.reentrant = nn.Dropout(0.5), reentrant

    def forward(self, x):
        return checkpoint(lambda y: self.drop(y * y), x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("context", [thinned.sampling, thinned.frozen, thinned.off, None])
@pytest.mark.parametrize("where", ["same", "another thread", "after", "under off"])
def test_a_checkpointed_layer_is_recomputed_in_the_mode_of_its_first_pass(
    context, where, reentrant
):
    """Backward passes on a GPU run in a thread of their own. x = 3 and y = m x^2, so the gradient
    is 2 y / 3 for any mask m.
    """
    torch.manual_seed(0)
    model = _Segment(reentrant)
    if context is thinned.sampling:
        model.eval()
    x = torch.full((40,), 3.0, requires_grad=True)

    def backward(y):
        if where == "another thread":
            thread = threading.Thread(target=y.sum().backward)
            thread.start()
            thread.join(60)
        elif where == "under off":
            with thinned.off(model):
                y.sum().backward()
        else:
            y.sum().backward()

    with contextlib.nullcontext() if context is None else context(model):
        y = model(x)
        if where != "after":
            backward(y)
    if where == "after":
        backward(y)
    assert (y == 0).any() == (context is not thinned.off)
    torch.testing.assert_close(x.grad, 2 * y.detach() / 3)
