"""Holes in images, as in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
torch = pytest.importorskip("torch")

from thinned import functional as F  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import again, array, same_distribution  # noqa: E402


@pytest.mark.parametrize(("size", "holes", "axes"), [(2, 1, (3, 4)), (3, 2, (4, 3)), (2, 1, (5,))])
def test_holes_are_those_of_torch(size, holes, axes):
    """All outcomes of small maps, as often as in torch; channels are dropped together."""
    n = 2500
    layer = again(L.Cutout(size, holes, data_format="channels_first", seed=0))
    ours = array(layer(np.ones((n, 2, *axes), "float32"), training=True))
    theirs = F.cutout(torch.ones(n, 1, *axes), size, holes).numpy()
    np.testing.assert_array_equal(ours[:, 0], ours[:, 1])
    if holes == 1:
        assert same_distribution(ours[:, 0].reshape(n, -1), theirs.reshape(n, -1)) == math.prod(
            axes
        )
    else:
        a, b = ((y == 0).reshape(n, -1).sum(1) for y in (ours[:, 0], theirs))
        assert same_distribution(a[:, None].astype(float), b[:, None].astype(float)) > 3
    last = array(
        L.Cutout(size, holes, data_format="channels_last", seed=0)(
            np.ones((n, *axes, 2), "float32"), training=True
        )
    )
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), ours)
    np.testing.assert_array_equal(array(layer(ours)), ours)
    with pytest.raises(
        ValueError, match=r"argument `size`. Expected less than what hides every map of 3 x 4"
    ):
        L.Cutout(8)(np.ones((1, 3, 4, 1), "float32"))
