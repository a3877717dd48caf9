"""The rule on ranks: do they draw the same masks?"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..._errors import InputError
from ...surgery.observe import observe
from ..finding import Finding, Findings
from .draws import ALPHA
from .evaluation import at
from .keep import copied, left_as_it_was
from .record import DROPS, Drawn, Record


def same_masks_on_ranks(model: nn.Module, *inputs: Any, **named: Any) -> Findings:
    """L9: call it in every process of the default group, as training would call the model; all get the same findings.

    Each rank makes one pass in training, from where its generators stand, and puts everything back. Signal: at a site the
    generators stand at the same place on two ranks and the masks are not seen to differ; or, for keyed layers of ours, the
    masks are equal bit by bit. Equal masks are what tensor parallel replicas need, so ask within the data parallel group only.

    Raises :class:`thinned.InputError` without a process group, or in a group of one.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise InputError("there is no process group; call torch.distributed.init_process_group in each process first")
    count = dist.get_world_size()
    if count < 2:
        raise InputError("a group of one rank has no masks to compare; start at least two processes")
    from .runner import _unwrapped

    inner, _ = _unwrapped(model)
    record = Record(inner)
    with left_as_it_was(inner, (inputs, named)), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner.train()
        given, words = copied((inputs, named))
        observe(inner, given, words, record)
    mine = [(d.place[:3], d.state, d.mask, d.given) for d in record.draws]
    everyone: list[Any] = [None] * count
    dist.all_gather_object(everyone, mine)
    found = []
    for number, one in enumerate(record.draws):
        theirs = [e[number] for e in everyone if number < len(e)]
        if one.place[1] in (*DROPS, "noise", "unseen") and len(theirs) == count and _equal(one, theirs):
            found.append(Finding("L9", f"{one.place[2]} draws the same on some of {count} ranks", **at(one)))
    return Findings({f.site + f.message: f for f in found}.values())


def _equal(one: Drawn, theirs: list[tuple[Any, str, str, str]]) -> bool:
    if one.host is not None and one.host.owner is not None:
        rate = one.rate or 0.0
        cells = math.prod(one.shape or ()) if 0 < rate < 1 else 0
        certain = cells * math.log(rate * rate + (1 - rate) ** 2 or 1.0) < math.log(ALPHA) if cells else False
        return certain and len({t[2] for t in theirs}) < len(theirs)
    return len({t[1] for t in theirs}) < len(theirs)
