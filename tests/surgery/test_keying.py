"""thinned.key covers every site of a model, or says which it does not; find says it of each."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import thinned
import thinned.nn as tnn
from thinned.algebra import Key
from thinned.algebra.key import stream_of


class Functional(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class Locked(nn.LSTM):
    pass


UNKEYED = {
    "module": (lambda: nn.Dropout(0.5), r"1 \(Dropout\)"),
    "functional": (Functional, r"1 \(Functional\): F.dropout at .*test_keying.py:\d+"),
    "attention": (lambda: nn.MultiheadAttention(8, 2, dropout=0.5), r"1 \(MultiheadAttention\)"),
    "lstm": (lambda: nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True), r"1 \(LSTM\)"),
    "subclass": (lambda: Locked(8, 8, 2, dropout=0.5, batch_first=True), r"1 \(Locked\)"),
}


@pytest.mark.parametrize("name", UNKEYED)
def test_sites_without_a_key_are_listed(name):
    build, text = UNKEYED[name]
    model = nn.Sequential(tnn.Dropout(0.5), build())
    with pytest.raises(thinned.InputError, match=rf"(?s)no key reaches.*{text}.*thinned.replace"):
        thinned.key(model)
    assert model[0].model_key is None
    assert thinned.key(model, partial=True).layers == ("0",)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Dropout(0.0),
        lambda: nn.LSTM(8, 8, 2, batch_first=True),
        lambda: nn.LSTM(8, 8, batch_first=True),
    ],
)
def test_sites_that_never_drop_need_no_key(build):
    assert thinned.key(nn.Sequential(tnn.Dropout(0.5), build())).layers == ("0",)


def test_what_replace_and_expose_reach_is_keyed():
    model = nn.Sequential(nn.Dropout(0.5), Functional())
    edits = thinned.replace(model)
    assert len(edits.notes) == 1
    assert "thinned.expose(model, *inputs)" in edits.notes[0]
    x = torch.ones(2, 8)
    thinned.expose(model, x)
    key = thinned.key(model)
    assert key.layers == ("0", "1.functional_dropout_0")
    key.at(0)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(state, torch.get_rng_state())


def test_what_replace_cannot_replace_is_noted():
    """A subclass, and a network with a weight that something else computes."""
    normed = nn.utils.parametrizations.weight_norm(nn.LSTM(8, 8, 2, dropout=0.5), "weight_hh_l0")
    model = nn.Sequential(Locked(8, 8, 2, dropout=0.5), normed)
    notes = thinned.replace(model).notes
    assert notes == ("no key reaches 0 (Locked)", "no key reaches 1 (ParametrizedLSTM)")


class Mixed(nn.Module):
    def forward(self, x):
        if self.training:
            self.seen = True
            x = F.dropout(x, 0.5)
        return x


@pytest.mark.parametrize("measured", [True, False])
def test_find_says_what_reaches_a_site(measured):
    model = nn.Sequential(tnn.Dropout(0.5), nn.Dropout(0.5), Functional(), Mixed())
    sites = thinned.find(model, *([torch.ones(4, 4)] if measured else []))
    assert [(s.name, s.keyed, s.sampled) for s in sites] == [
        ("0", True, True),
        ("1", False, True),
        ("2", False, True),
        ("3", False, False),
    ]
    head, *rows = str(sites).splitlines()
    column = head.index("key")
    assert [row[column : column + 3].strip() for row in rows] == ["yes", "no", "no", "no"]


class TimeFirst(nn.Module):
    """A word language model as torch's example writes it: time is the first axis."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.drop = nn.Dropout(0.5)
        self.lstm = nn.LSTM(4, 4, 2, dropout=0.5)

    def forward(self, words):
        y, _ = self.lstm(self.drop(self.embedding(words)))
        return F.dropout(y, 0.5, self.training)


def test_a_layout_makes_masks_follow_the_examples_of_a_time_first_model():
    """Permuting examples and ids permutes the outputs, also where there are as many steps."""
    torch.manual_seed(0)
    words = torch.randint(0, 9, (4, 4))
    order = torch.tensor([2, 0, 3, 1])

    def follows(layout):
        model = TimeFirst()
        thinned.replace(model, layout=layout)
        thinned.expose(model, words, layout=layout)
        key = thinned.key(model, 1)
        key.at(0, samples=[5, 6, 7, 8])
        first = model(words)
        key.at(0, samples=torch.tensor([5, 6, 7, 8])[order])
        return torch.allclose(model(words[:, order]), first[:, order])

    assert follows("t b *")
    with pytest.warns(UserWarning, match="time is the first axis of lstm, but drop, functional_"):
        assert not follows(None)
    assert not follows("b *")


def test_a_layout_names_the_axis_of_the_examples():
    for run in (
        lambda: thinned.replace(TimeFirst(), layout="t d"),
        lambda: thinned.expose(TimeFirst(), torch.zeros(2, 2, dtype=torch.int64), layout="t d"),
    ):
        with pytest.raises(thinned.InputError, match="axis of the examples, b"):
            run()


class HalfExposed(nn.Module):
    """Of two calls one is run again by a checkpoint, so it cannot be exposed."""

    def forward(self, x):
        x = checkpoint(lambda y: F.dropout(y, 0.5, self.training), x, use_reentrant=False)
        return F.dropout(
            x,
            0.5,
            self.training,
        )


def test_a_call_that_was_not_exposed_is_listed():
    model, x = nn.Sequential(HalfExposed()), torch.ones(2, 8, requires_grad=True)
    edits = thinned.expose(model, x)
    assert len(edits) == 1
    with pytest.raises(thinned.InputError, match=r"no key reaches") as raised:
        thinned.key(model)
    assert str(raised.value).count("F.dropout at") == 1


class Branches(nn.Module):
    """Two branches, and a layer of its own."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.text, self.image = nn.Module(), nn.Module()
        self.text.drop, self.image.drop = tnn.Dropout(0.5), tnn.Dropout(rate)
        self.drop = tnn.Dropout(0.5)

    def forward(self, x):
        return torch.stack((self.text.drop(x), self.image.drop(x), self.drop(x)))


CONDITION = {"condition": ["text.drop", "image.drop"]}
CONDITION_STREAM = stream_of("shared:condition")


def test_layers_that_share_a_stream_draw_one_mask():
    """The mask is that of the stream of the group; calls are counted for each layer."""
    model, x, spec = Branches(), torch.ones(4, 50), thinned.presets.dropout(0.5)
    key = thinned.key(model, 3, shared=CONDITION)
    ids = torch.tensor([5, 9, 2, 7])
    key.at(2, samples=ids)
    for call in range(2):
        text, image, own = model(x)
        stream = Key(3, CONDITION_STREAM, call=call, step=2, samples=ids)
        torch.testing.assert_close(text, thinned.functional.drop(x, spec, key=stream))
        torch.testing.assert_close(image, text)
        assert not torch.equal(own, text)
        stream = Key(3, stream_of("drop"), call=call, step=2, samples=ids)
        torch.testing.assert_close(own, thinned.functional.drop(x, spec, key=stream))
    key.remove()
    text, image, _ = model(x)
    assert not torch.equal(text, image)


def test_shared_masks_of_two_rates_are_nested():
    model = Branches(rate=0.8)
    thinned.key(model, shared=CONDITION).at(0)
    text, image, _ = model(torch.ones(20, 50))
    assert (text[image != 0] != 0).all()
    assert (text != 0).sum() > (image != 0).sum()


def test_shared_streams_in_compiled_and_checkpointed_models():
    model, x = Branches(), torch.ones(4, 50)
    key = thinned.key(model, 3, shared=CONDITION)

    def run(call):
        key.at(1)
        return call(x)

    expected = run(model)
    torch.testing.assert_close(run(torch.compile(model, backend="aot_eager")), expected)
    x.requires_grad_()
    y = run(lambda x: checkpoint(model, x, use_reentrant=False))
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    torch.testing.assert_close(x.grad, expected.sum(0))


def test_copies_pickles_and_states_keep_shared_streams():
    model, x = Branches(), torch.ones(4, 50)
    key = thinned.key(model, 3, shared=CONDITION)
    key.at(1)
    expected = model(x)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        thinned.key_of(copied).at(1)
        torch.testing.assert_close(copied(x), expected)
        assert thinned.key_of(copied).shared == key.shared
    fresh = Branches()
    other = thinned.key(fresh, 8)
    other.load_state_dict(key.state_dict())
    torch.testing.assert_close(fresh(x), expected)
    assert other.state_dict() == key.state_dict()
    kept = {name: value for name, value in key.state_dict().items() if name != "shared"}
    other.load_state_dict(kept)  # of a key that was stored without groups
    torch.testing.assert_close(fresh(x), expected)
    unlike = nn.Sequential(tnn.Dropout(0.5))
    with pytest.raises(thinned.InputError, match="which is no dropout layer of the model"):
        thinned.key(unlike, 1).load_state_dict(key.state_dict())
    assert thinned.key_of(unlike).seed == 1


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        ({"a": ["text.drop", "image.dropp"]}, "'image.dropp'.*did you mean 'image.drop'"),
        ({"a": ["text.drop"], "b": ["text.drop", "drop"]}, "'text.drop' twice, in 'a' and 'b'"),
        ({"a": ["drop", "drop"]}, "'drop' twice, in 'a' and 'a'"),
        ({"a": "drop"}, "got 'a': 'drop'"),
        ({"a": []}, r"got 'a': \[\]"),
        ({"a": [3]}, r"got 'a': \[3\]"),
        ({"": ["drop"]}, "got ''"),
        ({3: ["drop"]}, "got {3"),
        ("drop", "shared has to name the layers of each stream.*got 'drop'"),
        (["text.drop", "image.drop"], "shared has to name the layers of each stream"),
    ],
)
def test_groups_that_cannot_be_shared_are_refused_before_anything_is_keyed(shared, message):
    model = Branches()
    with pytest.raises(thinned.InputError, match=message):
        thinned.key(model, shared=shared)
    assert model.drop.model_key is None
