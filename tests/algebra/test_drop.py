"""Specs: equality, JSON, and invalid arguments."""

from __future__ import annotations

import inspect
import re
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import InputError, presets
from thinned.algebra import (
    Bernoulli,
    Block,
    Classic,
    Constant,
    Drop,
    Gaussian,
    Inverted,
    KeptFraction,
    Linear,
    MomentMatch,
    Uniform,
    Zero,
    fill,
    law,
    moments,
    scale,
    schedule,
)
from thinned.algebra.fill import FILLS, Fill
from thinned.algebra.law import LAWS, Law
from thinned.algebra.scale import SCALES, Scale
from thinned.algebra.schedule import SCHEDULES, Schedule

algebra_plan = sys.modules["thinned.algebra.plan"]  # its package has a function of that name

rates = st.floats(0, 1)
distributions = st.one_of(
    rates.map(Bernoulli), st.floats(0, 0.999).map(Gaussian), st.floats(0, 5).map(Uniform)
)
elementwise = st.builds(
    Drop,
    distributions,
    st.sampled_from(["b *", "*", "b", ""]),
    scale=st.sampled_from([Inverted(), Classic()]),
)
alphas = st.builds(
    Drop, rates.map(Bernoulli), fill=st.floats(-3, 3).map(Constant), scale=st.just(MomentMatch())
)
sizes = st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 9)))
blocks = st.builds(
    lambda p, size, per: Drop(Bernoulli(p), Block("*", size, per), "b c *", scale=KeptFraction()),
    rates,
    sizes,
    st.sampled_from(["", "b *"]),
)


@given(st.one_of(elementwise, alphas, blocks))
def test_json_round_trip(drop):
    assert Drop.from_json(drop.to_json()) == drop


def test_name_takes_no_part_in_equality():
    assert Drop(Bernoulli(0.5), name="a") == Drop(Bernoulli(0.5), name="b")
    assert len({Drop(Bernoulli(0.5), name="a"), Drop(Bernoulli(0.5), name="b")}) == 1


def test_json_is_readable():
    assert presets.alpha_dropout(0.1).to_json() == {
        "law": {"bernoulli": {"p": 0.1}},
        "per": "b *",
        "of": "b *",
        "fill": {"constant": {"value": -1.7580993408473766}},
        "scale": "moment_match",
        "name": "alpha_dropout",
    }


@pytest.mark.parametrize("p", [-0.1, 1.0000001, float("nan"), float("inf"), "0.5", None, True, 50])
def test_bad_rate(p):
    with pytest.raises(InputError, match="dropout probability has to be") as caught:
        Bernoulli(p)
    assert "but got" in str(caught.value)


def test_percent_is_understood():
    with pytest.raises(
        ValueError,
        match=r"dropout probability has to be between 0 and 1, but got 50 "
        r"\(for 50 percent write 0\.5\)",
    ):
        presets.dropout(50)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gaussian(1.0), "at least 0 and below 1, but got 1"),
        (lambda: Uniform(-1), "beta has to be at least 0"),
        (
            lambda: Drop(Bernoulli(0.5), per="c"),
            "names the axis 'c', which the layout 'b \\*' does not have",
        ),
        (lambda: Drop(Bernoulli(0.5), of="b b"), "distinct axis names"),
        (lambda: Drop(Bernoulli(0.5), of="b 2c"), "distinct axis names"),
        (
            lambda: Drop(Gaussian(0.5), fill=Constant(1.0)),
            "fill needs the noise distribution Bernoulli",
        ),
        (
            lambda: Drop(Uniform(0.5), scale=KeptFraction()),
            "needs the noise distribution Bernoulli",
        ),
        (
            lambda: Drop(Bernoulli(0.5), per=Block("*", 3)),
            "per=Block.* needs the noise distribution Bernoulli",
        ),
        (lambda: Block("*", 0), "block size has to be a whole number of at least 1"),
        (lambda: Block("*", 2.5), "block size"),
        (lambda: Drop.from_json({}), "a dropout needs a noise distribution"),
        (
            lambda: Drop.from_json({"law": {"bernouli": {"p": 1}}}),
            "unknown law 'bernouli'; did you mean 'bernoulli'",
        ),
        (
            lambda: Drop.from_json({"law": {"bernoulli": {"q": 1}}}),
            "unknown argument 'q' of law 'bernoulli'; known: p",
        ),
        (lambda: Drop.from_json({"law": {"bernoulli": {}}}), "cannot take"),
        (lambda: Drop.from_json({"law": 0.5}), "law has to be a name or a dict from one name"),
        (
            lambda: Drop.from_json({"law": {"bernoulli": {"p": 1}}, "rate": 2}),
            "unknown part of a dropout 'rate'",
        ),
        (
            lambda: presets.make("drop_blok"),
            "unknown dropout method 'drop_blok'; did you mean 'drop_block'",
        ),
        (
            lambda: presets.dropout(0.5, "klassic"),
            "unknown scale 'klassic'; did you mean 'classic'",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


WRONG_TYPES = [
    (
        lambda: Drop(0.3),
        "law has to be a noise distribution, such as Bernoulli(0.3), but got 0.3; for ordinary "
        "dropout write thinned.presets.dropout(0.3)",
    ),
    (lambda: Drop("bernoulli"), "but got 'bernoulli'; for ordinary dropout write"),
    (lambda: Drop(Bernoulli), "write Bernoulli(0.3)"),
    (lambda: Drop(Linear(0.0, 0.5, 9)), "a schedule is the argument of the layer"),
    (lambda: Drop(presets.dropout(0.5)), "another rate of it is spec.at(0.3)"),
    (lambda: Drop(Bernoulli(0.3), per=["b", "c"], of="b c *"), 'write "b c"'),
    (lambda: Drop(Bernoulli(0.3), per=None), 'write "" for one draw that all elements share'),
    (
        lambda: Drop(Bernoulli(0.3), per=3),
        'per has to be a string of axis names such as "b c", or a Block, but got 3',
    ),
    (
        lambda: Drop(Bernoulli(0.3), of=("b", "*")),
        "of has to be a string of axis names such as \"b c *\", but got ('b', '*'); write \"b *\"",
    ),
    (lambda: Drop(Bernoulli(0.3), of=Block("*", 3)), "of has to be a string of axis names"),
    (
        lambda: Drop(Bernoulli(0.3), scale="classic"),
        "scale has to be Inverted(), Classic(), KeptFraction(), MomentMatch() or Unscaled(), "
        "but got 'classic'; write Classic()",
    ),
    (lambda: Drop(Bernoulli(0.3), scale="kept_fraction"), "write KeptFraction()"),
    (lambda: Drop(Bernoulli(0.3), scale=Classic), "write Classic()"),
    (lambda: Drop(Bernoulli(0.3), scale=2.0), "but got 2.0; the default is Inverted()"),
    (
        lambda: Drop(Bernoulli(0.3), fill=0.0),
        "fill has to be Zero() or Constant(value), but got 0.0; write Zero()",
    ),
    (lambda: Drop(Bernoulli(0.3), fill=-1.5), "write Constant(-1.5)"),
    (lambda: Drop(Bernoulli(0.3), fill=Zero), "write Zero()"),
    (lambda: Drop(Bernoulli(0.3), fill=Constant), "write Constant(1.0)"),
    (lambda: Drop(Bernoulli(0.3), fill=None), "but got None; write Zero()"),
    (lambda: Drop(Bernoulli(0.3), name=7), "name has to be a string, but got 7"),
    (lambda: Block(7, 3), "over of a Block has to be a string of axis names, but got 7; write for"),
    (lambda: Block("*", 3, per=None), "per of a Block has to be a string"),
]


@pytest.mark.parametrize(
    ("build", "message"), WRONG_TYPES, ids=lambda v: v[-40:] if isinstance(v, str) else ""
)
def test_wrong_types_name_the_argument_and_the_remedy(build, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build()


UNIONS = [
    (law, LAWS, Law),
    (fill, FILLS, Fill),
    (scale, tuple(SCALES.values()), Scale),
    (schedule, SCHEDULES, Schedule),
]


@pytest.mark.parametrize(("module", "members", "union"), UNIONS, ids=lambda v: str(v)[:40])
def test_closed_unions_list_all_their_members(module, members, union):
    assert members == get_args(union)
    written = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]
    assert list(members) == written


class Another:
    """A member that no match handles."""

    p = 0.5


@pytest.mark.parametrize(
    "run",
    [
        law.rate_of,
        lambda other: law.at_rate(other, 0.5),
        fill.value_of,
        algebra_plan._law_constants,
        lambda other: algebra_plan.coefficients(with_part("scale", other), 0.5),
        lambda other: algebra_plan.plan.__wrapped__(with_part("per", other), (2, 3)),
    ],
)
def test_a_new_member_of_a_closed_union_fails_loudly(run):
    with pytest.raises(AssertionError, match=r"no case handles .* of type Another"):
        run(Another())


def with_part(name, value):
    """A spec with a part that its check would refuse."""
    spec = Drop(Bernoulli(0.5))
    object.__setattr__(spec, name, value)
    return spec


def test_defaults():
    assert (
        Drop(Bernoulli(0.5))
        == Drop(Bernoulli(0.5), "b *", "b *", Zero(), Inverted())
        == presets.dropout()
    )
    assert presets.dropout(0.5).at(0.2) == presets.dropout(0.2)
    assert presets.uniform_dropout(0.5).at(0.2) == presets.uniform_dropout(0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Drop(Bernoulli(0.5), fill=Constant(3.0)), "Constant fill needs the scale Classic"),
        (
            lambda: Drop(
                Bernoulli(0.3), per=Block("*", 3, per="b c"), of="b c *", scale=KeptFraction()
            ),
            "needs separate seeds along",
        ),
        (
            lambda: moments(Drop(Bernoulli(0.5), scale=KeptFraction())),
            "it depends on the rest of the mask",
        ),
    ],
)
def test_combinations_without_a_meaning(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize("data", [3, None, {"law": {"bernoulli": 3}}])
def test_malformed_json_raises(data):
    with pytest.raises(InputError, match="has to be"):
        Drop.from_json(data)
