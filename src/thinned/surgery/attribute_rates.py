"""Rates that are attributes of a module or of a configuration, not of a dropout layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .edits import AttributeChange, apply_edits

SKIPPED_LAYER_RATES = r"layer_?drop|skip_prob"  # rates at which a pass skips whole layers


def edits_to_zero(model: nn.Module, pattern: str) -> Iterator[AttributeChange]:
    """Yield the edits that set rates above 0 to 0, in attributes with names that match ``pattern``.

    The attributes are those of the modules, and of the objects that modules call ``config``,
    ``cfg`` or ``args``. Nothing is changed yet.
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
                if re.search(pattern, name) and isinstance(value, float) and 0 < value <= 1:
                    yield AttributeChange(
                        path=label, holder=holder, attribute=name, old=value, new=0.0
                    )


@contextmanager
def run_all_layers(model: nn.Module) -> Iterator[None]:
    """Within, no pass skips a layer by a rate such as ``layerdrop``, so that all are observed."""
    edits = apply_edits(list(edits_to_zero(model, SKIPPED_LAYER_RATES)))
    try:
        yield
    finally:
        edits.undo()
