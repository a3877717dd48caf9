"""Points: equality, JSON, and what is refused."""

from __future__ import annotations

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
    MomentMatch,
    Uniform,
    Zero,
    moments,
)

rates = st.floats(0, 1)
laws = st.one_of(
    rates.map(Bernoulli), st.floats(0, 0.999).map(Gaussian), st.floats(0, 5).map(Uniform)
)
plain = st.builds(
    Drop,
    laws,
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


@given(st.one_of(plain, alphas, blocks))
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
        "scale": "moment-match",
        "name": "alpha",
    }


@pytest.mark.parametrize("p", [-0.1, 1.0000001, float("nan"), float("inf"), "0.5", None, True, 50])
def test_bad_rate(p):
    with pytest.raises(InputError, match="dropout probability has to be") as caught:
        Bernoulli(p)
    assert "but got" in str(caught.value)


def test_percent_is_understood():
    with pytest.raises(
        ValueError,
        match=r"dropout probability has to be between 0 and 1, but got 50 \(for 50 percent write 0\.5\)",
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
        (lambda: Drop(Gaussian(0.5), fill=Constant(1.0)), "a fill needs a law that drops"),
        (lambda: Drop(Uniform(0.5), scale=KeptFraction()), "needs the Bernoulli law"),
        (lambda: Drop(Bernoulli(0.5), per=Block("*", 3)), "a Block needs"),
        (lambda: Block("*", 0), "block size has to be a whole number of at least 1"),
        (lambda: Block("*", 2.5), "block size"),
        (lambda: Drop.from_json({}), "a dropout needs a law"),
        (
            lambda: Drop.from_json({"law": {"bernouli": {"p": 1}}}),
            "unknown law 'bernouli'; did you mean 'bernoulli'",
        ),
        (lambda: Drop.from_json({"law": {"bernoulli": {"q": 1}}}), "cannot take"),
        (
            lambda: Drop.from_json({"law": {"bernoulli": {"p": 1}}, "rate": 2}),
            "unknown part of a dropout 'rate'",
        ),
        (
            lambda: presets.make("dropblok"),
            "unknown dropout method 'dropblok'; did you mean 'dropblock'",
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
            "seeds of its own along",
        ),
        (
            lambda: moments(Drop(Bernoulli(0.5), scale=KeptFraction())),
            "it depends on what else fell",
        ),
    ],
)
def test_combinations_without_a_meaning(build, message):
    with pytest.raises(InputError, match=message):
        build()
