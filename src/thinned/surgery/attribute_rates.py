"""Rates that no layer holds, but a module's or a configuration's attribute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .edits import Reset, done

LAYERS = r"layer_?drop|skip_prob"  # whole layers that a pass leaves out


def held(model: nn.Module, names: str) -> Iterator[Reset]:
    """Attributes with such names and a rate above 0, on modules and on what they call config, to be
    set to 0.
    """
    visited: set[int] = set()
    for path, module in model.named_modules():
        for holder in (
            module,
            *(getattr(module, name, None) for name in ("config", "cfg", "args")),
        ):
            if holder is None or id(holder) in visited or not hasattr(holder, "__dict__"):
                continue
            visited.add(id(holder))
            label = path if holder is module else f"{path}.{type(holder).__name__}".lstrip(".")
            for name, value in list(vars(holder).items()):
                if re.search(names, name) and isinstance(value, float) and 0 < value <= 1:
                    yield Reset(label, holder, name, value, 0.0)


@contextmanager
def awake(model: nn.Module) -> Iterator[None]:
    """Within: no pass leaves a layer out, so that all are seen."""
    edits = done(list(held(model, LAYERS)))
    try:
        yield
    finally:
        edits.undo()
