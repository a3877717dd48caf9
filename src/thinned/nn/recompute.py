"""The number of a call within a step, also when activation checkpointing runs the call again.

A forward pass inside a backward pass is a recomputation: it has to draw what the first pass drew,
whatever came between. torch's checkpointing says so only in the frames that are running:
:func:`_marks` reads them, and what was drawn is kept on the object that stands for the segment.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from typing import Any

import torch
from torch.utils import checkpoint

from .._errors import InputError
from ..engines.torch.tensor_key import TensorKey

_FILE = checkpoint.__file__
_ATTRIBUTE = "_thinned_calls"


def _marks() -> tuple[list[Any], Any]:
    """(the segments whose first pass is running, the segment that is being recomputed or None),
    innermost first.
    """
    first: list[Any] = []
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _FILE:
            names = frame.f_locals
            if code.co_name == "checkpoint" and "gen" in names:
                body = names["gen"].gi_frame
                segment = body.f_locals.get("new_frame") if body is not None else None
                if segment is not None:
                    first.append(segment)
            elif code.co_name == "forward" and "ctx" in names:
                first.append(names["ctx"])
            elif code.co_name == "unpack_hook" and "frame" in names:
                return first, names["frame"]
            elif code.co_name == "backward" and "ctx" in names:
                return first, names["ctx"]
        frame = frame.f_back  # type: ignore[assignment]
    return first, None


# Within a graph a checkpointed segment may change nothing, so the calls in there are counted while
# the graph is traced.
_TOKENS = itertools.count()


@torch._dynamo.assume_constant_result
def _in_segment() -> bool:
    """Is the code that is being traced inside a checkpointed segment?"""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    return InstructionTranslator.current_tx().output.current_tracer.parent is not None


@torch._dynamo.assume_constant_result
def _traced_calls(token: int, more: bool) -> int:
    """How many calls of a host this graph has in checkpointed segments so far; with ``more``, this
    is another.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    graph = InstructionTranslator.current_tx().output.__dict__
    counts = graph.setdefault(_ATTRIBUTE, Counter())
    counts[token] += more
    return counts[token] - more


class Calls:
    """Counts the calls of one host within a step."""

    def __init__(self) -> None:
        self.token = next(_TOKENS)
        self.count = 0
        self.last: TensorKey | None = None

    def reset(self) -> None:
        self.count = 0
        self.last = None

    def next(self, now: TensorKey, stream: int, host: object) -> TensorKey:
        """Whose noise the coming call draws."""
        if torch.compiler.is_dynamo_compiling():
            inside = _in_segment()
            tensor_key = TensorKey(
                now.seed_step,
                now.sample_ids,
                stream,
                self.count + _traced_calls(self.token, inside),
            )
            if not inside:
                self.count += 1
            return tensor_key
        held = again(host)
        if held is not None:
            return held
        if torch._C._current_graph_task_id() == -1:
            tensor_key = self.last = TensorKey(now.seed_step, now.sample_ids, stream, self.count)
            self.count += 1
            return note(host, tensor_key)
        if self.count != 1 or self.last is None:  # recomputed by somebody else's checkpointing
            raise InputError(
                "this layer runs inside a backward pass, and it cannot be told which of its calls is being recomputed; "
                "use torch.utils.checkpoint, or call the layer once a step"
            )
        return self.last


def again(host: object) -> TensorKey | None:
    """What the call drew that is being recomputed; None where nothing is, or where the segment kept
    nothing of ``host``.
    """
    if torch._C._current_graph_task_id() == -1:
        return None
    first, segment = _marks()
    drawn = [] if segment is None else segment.__dict__.get(_ATTRIBUTE, {}).get(id(host), [])
    if not drawn:
        return None
    place = (id(host), torch._C._current_graph_task_id())
    done: dict[tuple[int, int], int] = segment.__dict__.setdefault(_ATTRIBUTE + "_done", {})
    index = done.get(place, 0)
    if index >= len(drawn):
        raise InputError(
            "a checkpointed segment is recomputed with more calls of a dropout layer than its first pass made; "
            "make the segment deterministic, so that its recomputation does what its first pass did"
        )
    done[place] = index + 1
    return _write(host, drawn[index], first)


def note(host: object, tensor_key: TensorKey) -> TensorKey:
    """Keep what a call drew on the segments whose first pass is running."""
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    return (
        _write(host, tensor_key, _marks()[0])
        if hooked or not torch.is_grad_enabled()
        else tensor_key
    )


def _write(host: object, tensor_key: TensorKey, segments: list[Any]) -> TensorKey:
    for segment in segments:
        drawn: dict[int, list[TensorKey]] = segment.__dict__.setdefault(_ATTRIBUTE, {})
        drawn.setdefault(id(host), []).append(tensor_key)
    return tensor_key
