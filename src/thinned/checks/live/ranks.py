"""The rule on ranks: do they draw the same masks?"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..._errors import InputError
from ...surgery.observe import observe
from ..finding import Finding, Findings
from .evaluation import at
from .preserve import copied, preserve_state
from .record import DROPS, Drawn, PassRecord


def same_masks_on_ranks(model: nn.Module, *inputs: Any, **named: Any) -> Findings:
    """L9: call it in every process of the default group, as training would call the model; all get
    the same findings.

    Each rank makes one pass in training, from where its generators stand, and puts everything back.
    Signal: at a site the generators stand at the same place on two ranks; or, for keyed layers of
    ours, seed, step and examples are equal. Equal masks are what tensor parallel replicas need, so
    ask within the data parallel group only.

    Raises :class:`thinned.InputError` without a process group, or in a group of one.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise InputError(
            "there is no process group; call torch.distributed.init_process_group in each process first"
        )
    count = dist.get_world_size()
    if count < 2:
        raise InputError(
            "a group of one rank has no masks to compare; start at least two processes"
        )
    from .runner import observable

    inner = observable(model)
    record = PassRecord(inner)
    with preserve_state(inner, (inputs, named)), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner.train()
        given, words = copied((inputs, named))
        observe(inner, given, words, record)
    mine = [_origin(d) for d in record.draws]
    everyone: list[Any] = [None] * count
    dist.all_gather_object(everyone, mine)
    found = []
    for number, one in enumerate(record.draws):
        theirs = [e[number] for e in everyone if number < len(e)]
        if (
            one.place[1] in (*DROPS, "noise", "unseen")
            and len(theirs) == count
            and all(theirs)
            and len(set(theirs)) < count
        ):
            found.append(
                Finding("L9", f"{one.place[2]} draws the same on some of {count} ranks", **at(one))
            )
    return Findings({f.site + f.message: f for f in found}.values())


def _origin(one: Drawn) -> str:
    """What decides the mask of a draw: equal on two ranks, equal masks. "" where a draw was not
    seen as it was made.
    """
    if one.host is None or one.host.owner is None:
        return one.state
    now = one.host.owner.now()
    return repr(
        (now.seed_step.tolist(), None if now.sample_ids is None else now.sample_ids.tolist())
    )
