"""Loads the native kernels where they were built."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

INSTRUCTIONS = ("portable", "avx2", "avx512")
# their arguments are described in csrc/bind.cpp
factor: Callable[..., None] | None = None
perceptron: Callable[..., None] | None = None
adam: Callable[..., None] | None = None


def load() -> str:
    """Load the kernels. Returns the reason where that is impossible, and "" where it worked."""
    global factor, perceptron, adam
    try:
        built: Any = importlib.import_module("._native", __package__)
        factor, perceptron, adam = built.factor, built.perceptron, built.adam
    except ModuleNotFoundError:
        return (
            "the native kernels were not built: install torch and a C++17 compiler, then "
            "reinstall thinned"
        )
    except (ImportError, AttributeError) as error:
        # built for another torch, another machine or another version
        return f"the native kernels cannot be loaded ({error}); reinstall thinned"
    return ""


def use(name: str | None) -> None:
    """Run the instruction set ``name`` from now on, for tests; None takes the fastest.

    Raises RuntimeError where the machine lacks it.
    """
    torch.ops.thinned.instructions(-1 if name is None else INSTRUCTIONS.index(name))


def running() -> str:
    """Return the name of the instruction set that runs."""
    return INSTRUCTIONS[torch.ops.thinned.instructions(len(INSTRUCTIONS))]
