"""The keys of recomputed calls: activation checkpointing has to draw the same masks again.

A forward pass inside a backward pass is a recomputation: it has to draw what the first pass drew,
whatever ran in between. torch does not announce which segment is being recomputed; only the frames
that are running show it. :func:`_running_segments` reads them, and the keys that were drawn are
kept on the object that represents the segment.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from typing import Any, TypeVar

import torch
from torch.utils import checkpoint

from .._errors import InputError
from ..engines.torch.tensor_key import TensorKey

_FILE = checkpoint.__file__
_ATTRIBUTE = "_thinned_calls"


def _running_segments() -> tuple[list[Any], Any]:
    """(the segments that run for the first time, the segment that is being recomputed or None).

    The innermost segment comes first.
    """
    first: list[Any] = []
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _FILE:
            names = frame.f_locals
            # The non-reentrant checkpoint is a generator: its frame holds the segment.
            if code.co_name == "checkpoint" and "gen" in names:
                body = names["gen"].gi_frame
                segment = body.f_locals.get("new_frame") if body is not None else None
                if segment is not None:
                    first.append(segment)
            # The reentrant checkpoint is an autograd function: its context is the segment.
            elif code.co_name == "forward" and "ctx" in names:
                first.append(names["ctx"])
            elif code.co_name == "unpack_hook" and "frame" in names:
                return first, names["frame"]
            elif code.co_name == "backward" and "ctx" in names:
                return first, names["ctx"]
        frame = frame.f_back  # type: ignore[assignment]
    return first, None


# A checkpointed segment of a graph must not change Python state. The calls in there are therefore
# counted on the graph while it is traced, by a token of each layer.
_TOKENS = itertools.count()


@torch._dynamo.assume_constant_result
def _in_segment() -> bool:
    """Whether the code that is being traced is inside a checkpointed segment."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return InstructionTranslator.current_tx().output.current_tracer.parent is not None


@torch._dynamo.assume_constant_result
def _traced_calls(token: int, more: bool) -> int:
    """Return how many calls of a layer this graph has had in checkpointed segments so far.

    With ``more`` this call is counted as another one.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    graph = InstructionTranslator.current_tx().output.__dict__
    counts = graph.setdefault(_ATTRIBUTE, Counter())
    counts[token] += more
    return counts[token] - more


class CallCounter:
    """Counts the calls of one dropout module within a step."""

    def __init__(self) -> None:
        self.token = next(_TOKENS)
        self.count = 0
        self.last: TensorKey | None = None

    def reset(self) -> None:
        """Start a new step at call 0."""
        self.count = 0
        self.last = None

    def next(self, step_key: TensorKey, stream: int, module: object) -> TensorKey:
        """Return the key of the coming call of ``module`` at the step of ``step_key``."""
        if torch.compiler.is_dynamo_compiling():
            inside = _in_segment()
            tensor_key = TensorKey(
                step_key.seed_step,
                step_key.sample_ids,
                stream,
                self.count + _traced_calls(self.token, inside),
            )
            if not inside:
                self.count += 1
            return tensor_key
        recomputed = recomputed_key(module)
        if recomputed is not None:
            return recomputed
        if torch._C._current_graph_task_id() == -1:  # no backward pass is running
            tensor_key = self.last = TensorKey(
                step_key.seed_step, step_key.sample_ids, stream, self.count
            )
            self.count += 1
            return remember_key(module, tensor_key)
        if self.count != 1 or self.last is None:  # another library recomputes this call
            raise InputError(
                "this layer runs inside a backward pass, and it cannot be known which of its calls "
                "is being recomputed; use torch.utils.checkpoint, or call the layer once a step"
            )
        return self.last


_Kept = TypeVar("_Kept")  # a key; or whatever else decides what a call draws


def recomputed_key(module: object) -> Any:
    """Return the key of the call that is being recomputed.

    None where nothing is being recomputed, or where the segment kept no key of ``module``.
    """
    if torch._C._current_graph_task_id() == -1:
        return None
    first, segment = _running_segments()
    drawn = [] if segment is None else segment.__dict__.get(_ATTRIBUTE, {}).get(id(module), [])
    if not drawn:
        return None
    place = (id(module), torch._C._current_graph_task_id())
    done: dict[tuple[int, int], int] = segment.__dict__.setdefault(_ATTRIBUTE + "_done", {})
    index = done.get(place, 0)
    if index >= len(drawn):
        raise InputError(
            "a checkpointed segment is recomputed with more calls of a dropout layer than its "
            "first pass made; make the segment deterministic, so that its recomputation repeats "
            "its first pass"
        )
    done[place] = index + 1
    return _write(module, drawn[index], first)


def remember_key(module: object, tensor_key: _Kept) -> _Kept:
    """Keep the key of a call on the segments that run for the first time, and return it."""
    # Segments hook saved tensors (non-reentrant) or run without gradients (reentrant). Elsewhere
    # the frames need not be read, which costs time.
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    if not hooked and torch.is_grad_enabled():
        return tensor_key
    return _write(module, tensor_key, _running_segments()[0])


_modes_kept = False  # by any segment of the process


def modes_kept() -> bool:
    """Whether a segment has kept the mode of a context, so that recomputations have to look."""
    return _modes_kept


def remember_mode(module: object, mode: str) -> None:
    """Keep the mode that a context sets for ``module`` on the segments that run now."""
    global _modes_kept
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    if hooked or not torch.is_grad_enabled():
        for segment in _running_segments()[0]:
            segment.__dict__.setdefault(_ATTRIBUTE + "_modes", {})[id(module)] = mode
            _modes_kept = True


def recomputed_mode(module: object) -> tuple[bool, Any]:
    """Return (whether a segment is being recomputed, the mode that was kept of ``module``).

    The backward pass may run in another thread than the forward pass, or after its context.
    """
    if torch._C._current_graph_task_id() == -1:
        return False, None
    segment = _running_segments()[1]
    if segment is None:
        return False, None
    return True, segment.__dict__.get(_ATTRIBUTE + "_modes", {}).get(id(module))


def _write(module: object, tensor_key: _Kept, segments: list[Any]) -> _Kept:
    for segment in segments:
        drawn: dict[int, list[Any]] = segment.__dict__.setdefault(_ATTRIBUTE, {})
        drawn.setdefault(id(module), []).append(tensor_key)
    return tensor_key
