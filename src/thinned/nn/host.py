"""What all hosts share: which mode they are in, and whom their masks belong to."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .._errors import InputError
from ..algebra.key import Key
from ..functional import Mode


class Host:
    """A module that draws masks. Beside it stands ``torch.nn.Module``, whose ``training`` it reads."""

    training: bool
    mode_override: Mode | None = None  # set by the context managers in modes.py
    stream: int | None = None  # set by keys.key; None while unkeyed
    current: Key | None = None  # set by ModelKey.at
    calls: int = 0

    def mode(self) -> Mode:
        """``"sample"`` in training, ``"mean"`` in evaluation, unless a context manager says otherwise."""
        return self.mode_override or ("sample" if self.training else "mean")

    def next_key(self) -> Key | None:
        """The key of this call; None where the model has no key and torch's generator decides."""
        if self.stream is None:
            return None
        if self.current is None:
            raise InputError("this model has a key, but no step yet; call key.at(step) before the forward pass")
        key = Key(self.current.seed, self.stream, self.calls, self.current.step, self.current.samples)
        self.calls += 1
        return key


def hosts(model: nn.Module) -> Iterator[tuple[str, Host]]:
    """The hosts in a model with their qualified names; a shared one once, under its first name."""
    for name, module in model.named_modules():
        if isinstance(module, Host):
            yield name, module
