"""The names of thinned.nn: capitalized ones are classes, and concrete classes have no children."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

import thinned
import thinned.nn as tnn
from thinned import InputError
from thinned import functional as F

CLASSES = [name for name in tnn.__all__ if name[0].isupper()]
LAYERS = [
    value
    for value in (getattr(tnn, name) for name in CLASSES)
    if issubclass(value, torch.nn.Module)
]


@pytest.mark.parametrize("name", CLASSES)
def test_every_capitalized_name_is_a_class(name):
    value = getattr(tnn, name)
    assert inspect.isclass(value)
    assert value.__name__ == name
    assert not isinstance(torch.nn.Dropout(), value)


def test_other_names_are_functions():
    for name in set(tnn.__all__) - set(CLASSES):
        assert inspect.isfunction(getattr(tnn, name)), name


def subclasses(value):
    for child in value.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
def test_concrete_layers_are_not_subclassed(layer):
    ours = [c for c in subclasses(layer) if c.__module__.startswith("thinned.nn")]
    assert not ours


def test_instances_are_found_by_their_class():
    assert isinstance(tnn.DropPath(0.1), tnn.DropPath)
    assert isinstance(tnn.Mixout(torch.nn.Linear(2, 2)), tnn.Mixout)
    assert not isinstance(tnn.Dropout2d(0.1), tnn.Dropout)
    assert isinstance(tnn.Dropout(0.1), tnn.RatedModule)
    assert isinstance(tnn.Standout(torch.nn.Linear(2, 2)), tnn.DropoutModule)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda c: c.__name__)
def test_an_unknown_keyword_is_an_error_with_a_suggestion(layer):
    """It is an InputError, and the TypeError that Python raises for such a call."""
    parameters = inspect.signature(layer).parameters.values()
    if layer in (tnn.DropoutModule, tnn.RatedModule):  # abstract: they have no arguments
        return
    if any(p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters):
        return  # test_settings_of_functions_are_checked
    for error in (InputError, TypeError):
        with pytest.raises(error, match=f"{layer.__name__} has no argument 'blok_size'; "):
            layer(blok_size=3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tnn.DropBlock(0.1, blocksize=3), "DropBlock .* did you mean 'block_size'"),
        (lambda: tnn.Dropout(rate=0.1), "Dropout has no argument 'rate'; did you mean 'p'"),
        (lambda: tnn.DropPath(drop_prob=0.1), "did you mean 'p'"),
        (lambda: tnn.Dropout(0.1, inplce=True), "did you mean 'inplace'"),
        (lambda: tnn.LoraDropout(torch.nn.Linear(2, 2), rnk=1), "did you mean 'rank'"),
        (lambda: tnn.Zoneout(torch.nn.GRU(2, 2), cellp=1), "did you mean 'cell_p'"),
        (lambda: tnn.MethodDropout(F.disout, p=0.1, blok_size=3), "did you mean 'block_size'"),
    ],
)
def test_suggestions(build, message):
    with pytest.raises(thinned.InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tnn.MethodDropout(F.drop_head), "the rate 'p' of drop_head is missing"),
        (lambda: tnn.MethodDropout(F.drop_head, p=0.1, depth=3), "drop_head has no argument"),
        (lambda: tnn.MethodDropout(torch.relu_, p=0.1), None),
        (lambda: tnn.MethodDropout(lambda x, p: x, p=0.1), "has no argument 'training'"),
        (
            lambda: tnn.MethodWeightDropout(F.mixout, torch.nn.Linear(2, 2), 0.5, share=1),
            "mixout has no argument 'share'",
        ),
    ],
)
def test_settings_of_functions_are_checked(build, message):
    if message is None:  # a builtin has no signature to check
        assert build().p == 0.1
        return
    with pytest.raises(InputError, match=message):
        build()


class WithArguments(tnn.RatedModule, torch.nn.Module):
    def __init__(self, p, *, width):
        super().__init__()
        self.width = width
        self.set_initial_rate(p)


def test_copies_and_pickles_create_layers_without_arguments():
    layer = WithArguments(0.25, width=3)
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert (twin.p, twin.width) == (0.25, 3)
    assert isinstance(tnn.Dropout.__new__(tnn.Dropout), tnn.Dropout)
    with pytest.raises(InputError, match=r"WithArguments has no argument 'witdh'.*'width'"):
        WithArguments(0.25, witdh=3)
    with pytest.raises(TypeError, match="missing"):
        WithArguments(0.25)


def _linear():
    return torch.nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tnn.Dropout("drop_path", 0.3), r"'drop_path'; that method is thinned.nn.DropPath"),
        (lambda: tnn.Dropout(0.5, 0.3), "inplace has to be True or False, but got 0.3"),
        (lambda: tnn.Dropout(torch.ones(2)), "has to be a number"),
        (
            lambda: tnn.Dropout(torch.nn.Parameter(torch.tensor(0.5))),
            "never be learned; thinned.nn.ConcreteDropout learns its rate",
        ),
        (lambda: tnn.Dropout(float), "has to be a number"),
        (lambda: tnn.Dropout(0.5, impl="nativ"), "unknown impl 'nativ'"),
        (lambda: tnn.Dropout(0.5, layout=3), "layout has to be"),
        (lambda: tnn.Dropout(0.5, shard=3), "shard has to be"),
        (lambda: tnn.SpecDropout(thinned.presets.dropout(0.3), schedule=0.3), "schedule has to be"),
        (lambda: tnn.DropConnect(_linear(), 0.3, names=3), "names has to be"),
        (lambda: tnn.DropConnect(_linear(), 0.3, names=["weight", 3]), "names has to be"),
        (lambda: tnn.DropConnect(_linear(), 0.3, activation="relu"), "activation has to be"),
        (lambda: tnn.ConcreteDropout(3, temperature="x"), "temperature has to be a number"),
        (lambda: tnn.ConcreteDropout(3, per=["x"]), "unknown per"),
        (lambda: tnn.ConcreteDropout(3, _linear()), "has to be a number"),
        (lambda: tnn.DropHead(_linear()), "has to be a number"),
        (lambda: tnn.Shakeout(_linear(), c="x"), "c has to be a number"),
        (lambda: tnn.MaxPoolDropout2d(2.5), "kernel_size has to be a whole number"),
        (lambda: tnn.MaxPoolDropout2d(2, stride="x"), "stride has to be a whole number"),
        (lambda: tnn.DropEdge(0.5, 0.3), "exact has to be True or False"),
        (lambda: tnn.PatchDropout(0.5, 1, 0.3), "indices has to be True or False"),
        (lambda: tnn.Swapout(0.5, 2.0), "skip_p has to be between 0 and 1"),
        (lambda: tnn.ShakeDrop(0.5, alpha=1.0), "alpha has to be a range"),
        (lambda: tnn.ShakeShake("none"), "unknown backward"),
        (lambda: tnn.Jumpout(min_rate="x"), "min_rate has to be a number"),
        (lambda: tnn.InformationDropout("x", _linear()), "module of InformationDropout has to be"),
        (lambda: tnn.Standout(0.5), "module of Standout has to be"),
        (lambda: tnn.AttentionDropout(0.1, scale="x"), "scale has to be a number"),
        (lambda: tnn.VariationalRNNDropout(torch.nn.LSTM(3, 3), tied=0.5), "tied has to be True"),
    ],
)
def test_wrong_types_of_arguments_raise_when_a_layer_is_built(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize("rate", ["x", "0.3", True, None, 2.0, float("nan"), [0.3]])
@pytest.mark.parametrize(
    "build",
    [
        tnn.Dropout,
        tnn.DropHead,
        lambda: tnn.DropConnect(_linear()),
        lambda: tnn.DropState(torch.nn.LSTM(3, 3)),
    ],
)
def test_setting_a_wrong_rate_raises(build, rate):
    layer = build()
    before = layer.p
    with pytest.raises(InputError, match="dropout probability has to be"):
        layer.p = rate
    assert layer.p == before


def test_uniform_noise_may_be_wider_than_the_input():
    assert tnn.UniformDropout(2.0).p == 2.0
