"""The rule on ranks: whether they draw the same masks."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..._errors import InputError
from ...surgery.model_call import ModelCall
from ...surgery.observe import observe
from ..finding import Finding, Findings
from .evaluation import location
from .preserve import preserve_state
from .record import DROPOUT_KINDS, DrawRecord, PassRecord


def same_masks_on_ranks(model: nn.Module, *inputs: Any, **named: Any) -> Findings:
    """L9: whether the processes of the default group draw the same masks.

    Call it in every process, as training calls the model; all processes get the same findings. Each
    makes one training pass, from the present state of its generators, and restores everything.
    Signal: at some site the generators are in the same state on two ranks; or, for keyed layers of
    ours, seed, step and sample ids are equal. Tensor-parallel replicas need equal masks, so call it
    within the data-parallel group only.

    Args:
        model: The model, wrapped or not.
        inputs: Positional inputs of the model.
        named: Named inputs of the model.

    Returns:
        The findings of rule L9, one for each site.

    Raises:
        InputError: Where there is no process group, or only one process in it.

    Example:
        >>> try:
        ...     same_masks_on_ranks(nn.Dropout(0.5), torch.ones(2, 3))
        ... except InputError as error:
        ...     print(error)
        there is no process group; call torch.distributed.init_process_group in each process first
    """
    if not dist.is_available() or not dist.is_initialized():
        raise InputError(
            "there is no process group; call torch.distributed.init_process_group in each "
            "process first"
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
        observe(inner, ModelCall(inner, inputs, named), record)
    origins: list[Any] = [None] * count
    dist.all_gather_object(origins, [_origin(d) for d in record.draws])
    findings = []
    for number, draw in enumerate(record.draws):
        across_ranks = [o[number] for o in origins if number < len(o)]
        if (
            draw.kind in (*DROPOUT_KINDS, "noise", "unseen")
            and len(across_ranks) == count
            and all(across_ranks)
            and len(set(across_ranks)) < count
        ):
            text = f"{draw.function} draws the same masks on some of {count} ranks"
            findings.append(Finding("L9", text, **location(draw)))
    return Findings({f.site + f.message: f for f in findings}.values())


def _origin(draw: DrawRecord) -> str:
    """What determines the mask: where it is equal on two ranks, so are their masks.

    "" where the draw itself was not observed.
    """
    if draw.layer is None or draw.layer.model_key is None:
        return draw.state
    now = draw.layer.model_key.tensor_key()
    ids = None if now.sample_ids is None else now.sample_ids.tolist()
    return repr((now.seed_step.tolist(), ids))
