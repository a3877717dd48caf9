"""The native kernels, where they were built."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

INSTRUCTIONS = ("portable", "avx2", "avx512")


def _load() -> str:
    """Load the kernels; the reason where that cannot be done, else nothing."""
    here = Path(__file__).parent
    built = [path for suffix in EXTENSION_SUFFIXES if (path := here / f"_native{suffix}").exists()]
    if not built:
        return "the native kernels were not built: install torch and a C++17 compiler, then reinstall thinned"
    try:
        torch.ops.load_library(str(built[0]))
    except OSError as error:  # built for another torch or another machine
        return f"the native kernels cannot be loaded ({error}); reinstall thinned"
    return ""


def use(name: str | None) -> None:
    """Run the instruction set ``name`` from now on (for tests); None: the fastest. Raises RuntimeError where it is missing."""
    torch.ops.thinned.instructions(-1 if name is None else INSTRUCTIONS.index(name))


def running() -> str:
    """The instruction set that runs."""
    return INSTRUCTIONS[torch.ops.thinned.instructions(len(INSTRUCTIONS))]
