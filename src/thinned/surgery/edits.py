"""What was changed in a model, and how to take it back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Edit:
    """One module that another took the place of."""

    path: str
    parent: nn.Module
    name: str
    before: nn.Module
    after: nn.Module


@dataclass(frozen=True)
class Edits:
    """The changes of one call, in order."""

    edits: tuple[Edit, ...]

    def __len__(self) -> int:
        return len(self.edits)

    def undo(self) -> None:
        """Put every module back. What stands in a place that was changed since stays there."""
        for edit in reversed(self.edits):
            if edit.parent._modules.get(edit.name) is edit.after:
                edit.before.train(edit.after.training)
                edit.parent._modules[edit.name] = edit.before

    def __repr__(self) -> str:
        return "\n".join(f"{e.path}: {e.before} -> {e.after}" for e in self.edits) or "nothing changed"
