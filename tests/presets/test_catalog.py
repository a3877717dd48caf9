"""The catalog: every row is complete, its names agree, and ``make`` checks its arguments."""

from __future__ import annotations

import dataclasses
import operator
import re

import pytest

import thinned
from thinned import InputError, presets
from thinned.algebra import Drop

# uses of recording, of sampling and of a schedule, and not methods with a class of their own
USES = {"consistent_dropout", "monte_carlo", "scheduled_drop_path"}


def snake_case(name: str) -> str:
    words = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3_\2\4", name)
    return re.sub(r"_?[123]d$", "", words.lower())


def test_snake_case():
    names = {
        "DropPath": "drop_path",
        "VariationalRNNDropout": "variational_rnn_dropout",
        "RNNDrop": "rnn_drop",
        "MaxPoolDropout2d": "max_pool_dropout",
        "r_drop": "r_drop",
        "Standout": "standout",
    }
    assert {name: snake_case(name) for name in names} == names


@pytest.mark.parametrize("name", presets.CATALOG)
def test_a_constructor_is_public_and_has_the_name_of_its_method(name):
    row = presets.CATALOG[name]
    assert callable(operator.attrgetter(row.constructor)(thinned))
    if name not in USES:
        assert snake_case(row.constructor.rpartition(".")[2]) == name
    if row.make is not None:
        assert row.make.__name__ == name
        assert getattr(presets, name) is row.make


@pytest.mark.parametrize("name", presets.CATALOG)
def test_a_row_is_complete(name):
    """A name makes its spec, or its error names the layer; the docstring names the authors."""
    row = presets.CATALOG[name]
    assert row.url.startswith("https://")
    if row.make is None:
        message = f"{name!r} cannot be expressed as a Drop; use thinned.{row.constructor}, for"
        with pytest.raises(InputError, match=re.escape(message)):
            presets.make(name)
        described_by = operator.attrgetter(row.constructor)(thinned)
        linked = re.search(r":func:`thinned\.(functional\.\w+)`", described_by.__doc__)
        doc = described_by.__doc__ + (
            operator.attrgetter(linked.group(1))(thinned).__doc__ if linked else ""
        )
    else:
        drop, doc = row.make(), row.make.__doc__
        assert isinstance(drop, Drop)
        assert drop.name == name
        assert presets.make(name, **{row.rate_name: 0.25}).rate == 0.25
        assert presets.rate_name(name) == row.rate_name
    advice = presets.ADVICE[name]
    assert all(
        len(text) > 7 and text.endswith(".") for text in (advice.use, advice.cost, advice.avoid)
    )
    assert presets.CATALOG.keys() == presets.ADVICE.keys()
    assert row.paper.split()[0] in doc
    assert str(row.year) in doc


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("drop_block", {"blok_size": 3}, "unknown argument 'blok_size' of 'drop_block'; did you"),
        ("dropout", {"rate": 0.3}, "unknown argument 'rate' of 'dropout'; did you mean 'p'?"),
        ("uniform_dropout", {"p": 0.1}, "unknown argument 'p' of 'uniform_dropout'; known: beta"),
        ("drop_out", {}, "unknown dropout method 'drop_out'; did you mean 'dropout'"),
        ("dropout", {"scale": "unscaled"}, "unknown scale 'unscaled'; known: classic, inverted"),
        ("drop_path", {"scale": "classic"}, "unknown scale 'classic'; known: inverted, unscaled"),
    ],
)
def test_make_names_what_is_wrong(name, settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        presets.make(name, **settings)


def test_rows_are_built_by_keyword():
    for record in (presets.Preset, presets.Advice):
        assert all(field.kw_only for field in dataclasses.fields(record))


def test_missing_names_and_other_names_of_the_rate():
    with pytest.raises(InputError, match="did you mean 'gaussian_dropout'") as caught:
        presets.CATALOG["gaussian"]
    assert isinstance(caught.value, KeyError)
    assert "gaussian" not in presets.CATALOG
    assert presets.CATALOG.get("gaussian") is None
    with pytest.raises(InputError, match="did you mean 'p'"):
        presets.make("drop_path", rate=0.1)
    with pytest.raises(InputError, match="unknown dropout method"):
        presets.make([])
