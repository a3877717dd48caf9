"""Dropout in torch's own operators, for graphs that run without this package: ONNX, TorchScript.

Such a graph draws new masks at every run, by the generator of its own runtime. It has no keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..._errors import InputError
from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from ...algebra.per import Block
from ...algebra.plan import plan
from ...algebra.scale import Inverted, KeptFraction

UNDO = (
    "put torch's layers back: after edits = thinned.replace(model), edits.undo() does so and keeps "
    "the trained weights"
)


def runs_eagerly() -> bool:
    """Return whether the present call is neither traced nor seen by a dispatch mode."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
    )


@torch._dynamo.assume_constant_result
def recorder() -> str:
    """Return what records the present call for a graph without this package, or "" for nothing."""
    if torch._C._is_tracing():
        return "torch.onnx.export" if torch.onnx.is_in_onnx_export() else "torch.jit.trace"
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return "torch.onnx.export"
    return ""


def traced() -> bool:
    """Return whether make_fx or aot_function traces the present call."""
    if torch.compiler.is_compiling() or not torch._C._len_torch_dispatch_stack():
        return False
    kinds = torch._C._TorchDispatchModeKey
    return any(
        torch._C._get_dispatch_mode(kind) is not None for kind in (kinds.PROXY, kinds.FUNCTIONAL)
    )


def refused(name: str, what: str) -> InputError:
    """Return the error for draws of ``what`` that a graph of the recorder ``name`` cannot hold."""
    return InputError(f"{name} cannot record {what}; export model.eval(), or {UNDO}")


def keyed(name: str) -> InputError:
    """Return the error for draws under a key."""
    return InputError(
        f"{name} would store the masks of one key in its graph; call key.remove() first and leave "
        "thinned.frozen, recording and replaying, or export model.eval(); torch.compile reads the "
        "key at every call"
    )


def check(drop: Drop, key: object) -> None:
    """Raise unless torch's operators express ``drop``: Bernoulli draws without key and blocks."""
    name = recorder()
    if key is not None:
        raise keyed(name)
    blocks = isinstance(drop.per, Block)
    if blocks or not isinstance(drop.law, Bernoulli) or isinstance(drop.scale, KeptFraction):
        raise refused(name, f"the draws of {drop.name or drop}")


def sample(x: Tensor, drop: Drop) -> Tensor:
    """Return the training output of ``x`` in torch's operators; sizes may be symbols.

    With a draw for each element and no other fill than 0 it is one operator, ``aten::dropout``,
    which ONNX has as Dropout. Elsewhere a mask is compared from uniform numbers: the Dropout of a
    constant would be folded into one fixed mask.
    """
    planned = plan(drop, (2,) * x.dim())
    p = drop.rate
    if planned.is_identity:
        return x
    if planned.drops_everything:
        return torch.full_like(x, planned.dropped)
    own = [n > 1 for n in planned.mask_shape]
    if all(own) and not (planned.shift or planned.dropped):
        y = F.dropout(x, p, True)
        return y if isinstance(drop.scale, Inverted) else y * (planned.gain * (1.0 - p))
    shape = [n if separate else 1 for n, separate in zip(x.shape, own, strict=True)]
    kept = torch.rand(shape, dtype=torch.float32, device=x.device) >= p
    return torch.where(kept, x * planned.gain + planned.shift, planned.dropped)
