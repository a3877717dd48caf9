"""Which function finds which mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..finding import Finding
from .evaluation import l21, l25
from .functional import l1, l2, l3
from .keys import l27
from .modes import l6, l7, l32
from .module import Module
from .order import l5, l10, l14, l22
from .randomness import l8, l9, l18
from .rates import l4, l11, l17, l19
from .setups import l13, l28

STATIC: dict[str, Callable[[Module], Iterator[Finding]]] = {
    "L1": l1, "L2": l2, "L3": l3, "L4": l4, "L5": l5, "L6": l6, "L7": l7, "L8": l8, "L9": l9, "L10": l10, "L11": l11,
    "L13": l13, "L14": l14, "L17": l17, "L18": l18, "L19": l19, "L21": l21, "L22": l22, "L25": l25, "L27": l27, "L28": l28,
    "L32": l32,
}  # fmt: skip
