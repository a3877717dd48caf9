"""CATALOG x implementation x dtype: every spec keeps the whole contract."""

from __future__ import annotations

import pytest
import torch

from thinned import presets
from thinned.algebra import Bernoulli, Block, Classic, Drop, KeptFraction
from thinned.testing import CHECKS, Case

SPECS = {name: row.make() for name, row in presets.CATALOG.items() if row.make is not None} | {
    "dropout-classic": presets.dropout(0.3, "classic"),
    "spatial-classic": presets.spatial_dropout(0.3, "classic"),
    "dropconnect-inverted": presets.drop_connect(0.3, "inverted"),
    "batch-tied": Drop(Bernoulli(0.4), per="*"),
    "over-time": Drop(Bernoulli(0.4), per="b d", of="b t d", scale=Classic()),
    "time-first": Drop(Bernoulli(0.4), per="b d", of="t b d"),
    "block-per-example": Drop(
        Bernoulli(0.3), per=Block("*", (2, 3), per="b *"), of="b c *", scale=KeptFraction()
    ),
    "dropblock-even": presets.drop_block(0.2, 4),
    "rare": presets.dropout(0.01),
}
SHAPES = {
    "drop_connect": (12, 5, 7),
    "dropconnect-inverted": (12, 5, 7),
    "over-time": (12, 5, 7),
    "time-first": (5, 12, 7),
}
SHAPES |= {
    "locked_dropout": (12, 5, 7),
    "token_dropout": (12, 5, 7),
    "drop_path": (200, 3, 4),
    "drop_node": (200, 3, 4),
    "stochastic_depth": (64, 3, 4),
}
SHAPES |= {"drop_node": (200, 3, 4)}
KINDS = [
    ("torch", torch.float32),
    ("torch", torch.float64),
    ("torch", torch.bfloat16),
    ("torch", torch.float16),
]
KINDS += [("numpy", torch.float32), ("numpy", torch.float64)]


@pytest.mark.parametrize(("implementation", "dtype"), KINDS)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name, implementation, dtype):
    check(Case(SPECS[name], SHAPES.get(name, (12, 6, 10, 8)), implementation, dtype))
