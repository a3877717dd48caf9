"""Dropout and what surrounds it: policy ratios (L13) and DistributedDataParallel (L28)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .layers import calls_thinned, layer, of_mode
from .modes import switches_on
from .module import Module, argument, is_false, is_true, number, opaque

_LOG = re.compile(r"log_?p|logprob|log_prob|lp\b", re.I)


def policy_ratio_with_dropout(module: Module) -> Iterator[Finding]:
    """Signal: (a) a Config, Arguments or Trainer receives disable_dropout=False; (b) a function
    calls train() and computes exp of the difference of two log-probabilities, in a file that
    creates torch dropout layers. Let pass: functions that call eval(), thinned.off or
    thinned.replaying; files without dropout; other exponentials.
    """
    for call in module.calls:
        name = (module.source(call.func) or "").rpartition(".")[2]
        keeps = is_false(argument(call, "disable_dropout"))
        if keeps and re.search(r"(Config|Arguments|Trainer)$", name):
            yield module.finding(
                "L13", call, f"{name} leaves dropout on while log-probabilities are compared"
            )
    layers = [layer(module, call) for call in module.calls]
    if not any(known and known.framework == "torch" and known.draws for known in layers):
        return
    for function in module.functions:
        calls = list(module.own(function, ast.Call))
        methods = [c for c in calls if isinstance(c.func, ast.Attribute)]
        on = any(
            c.func.attr == "train" and switches_on(c)
            for c in methods
            if isinstance(c.func, ast.Attribute)
        )
        off = any(c.func.attr == "eval" for c in methods if isinstance(c.func, ast.Attribute))
        off = off or calls_thinned(module, function, "off", "replaying", "frozen")
        ratio = next((c for c in calls if _is_ratio(module, c)), None)
        if ratio is not None and on and not off:
            yield module.finding(
                "L13", ratio, f"{module.source(ratio)} compares passes with different dropout masks"
            )


def _is_ratio(module: Module, call: ast.Call) -> bool:
    """Whether a call is exp(new - old) of log-probabilities."""
    if module.called(call) == "torch.exp" and call.args:
        inner: ast.AST = call.args[0]
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "exp" and not call.args:
        inner = call.func.value
    else:
        return False
    if not isinstance(inner, ast.BinOp) or not isinstance(inner.op, ast.Sub):
        return False
    return all(_LOG.search(ast.unparse(n)) for n in (inner.left, inner.right))


_LAYERDROP = re.compile(r"(^|_)layer_?drop(out)?(_p|_rate|_prob)?$", re.I)
_DDP = "torch.nn.parallel.DistributedDataParallel"


def layers_skipped_under_ddp(module: Module) -> Iterator[Finding]:
    """Signal: DistributedDataParallel without find_unused_parameters=True (or static_graph) in a
    file that sets a name such as layerdrop to a literal above 0, creates a thinned LayerDrop, or
    has a forward that skips iterations of a loop at random in training. Let pass: ``**kwargs``,
    values that are expressions, stochastic depth that multiplies.
    """
    wraps = [c for c in module.calls if module.called(c) == _DDP]
    if not wraps:
        return
    layers = [layer(module, call) for call in module.calls]
    skips = any(known and known.name == "LayerDrop" and known.draws for known in layers)
    if not (skips or _skips(module) or any(_is_layerdrop(n) for n in module.children)):
        return
    for call in wraps:
        unused = argument(call, "find_unused_parameters")
        if (
            not opaque(call)
            and (unused is None or is_false(unused))
            and not is_true(argument(call, "static_graph"))
        ):
            yield module.finding(
                "L28", call, "layers are dropped here, and find_unused_parameters is not True"
            )


def _is_layerdrop(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return bool(_LAYERDROP.search(node.arg or "")) and (number(node.value) or 0) > 0
    if isinstance(node, ast.arguments):
        named = [*node.posonlyargs, *node.args][::-1]
        pairs = [
            *zip(named, node.defaults[::-1], strict=False),
            *zip(node.kwonlyargs, node.kw_defaults, strict=True),
        ]
        return any(_LAYERDROP.search(a.arg) and (number(d) or 0) > 0 for a, d in pairs)
    return False


def _skips(module: Module) -> bool:
    """Whether a loop in a forward skips layers at random."""
    for node in module.children:
        if (
            isinstance(node, ast.If)
            and len(node.body) == 1
            and isinstance(node.body[0], ast.Continue)
        ):
            text = ast.unparse(node.test)
            forward = any(f.name == "forward" for f in module.functions_of(node))
            if forward and of_mode(node.test) and re.search(r"\brandom\(\)|rand\(|uniform\(", text):
                return True
    return False
