"""Zoneout against its definition."""

from __future__ import annotations

import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import (
    Key,
)


def test_zoneout():
    new, old = torch.randn(50, 6), torch.randn(50, 6)
    kept = F.mask(presets.dropout(0.3), (50, 6), Key(2))
    y = F.zoneout(new, old, 0.3, key=Key(2))
    torch.testing.assert_close(y, torch.where(kept, new, old))
    torch.testing.assert_close(F.zoneout(new, old, 0.3, training=False), 0.7 * new + 0.3 * old)
    torch.testing.assert_close(F.zoneout(new, old, 0.0), new)
    assert torch.equal(F.zoneout(new, old, 1.0), old)
    with pytest.raises(InputError, match=r"of one shape, but got \[50, 6\] and \[6\]"):
        F.zoneout(new, old[0])
