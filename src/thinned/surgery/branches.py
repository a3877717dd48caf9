"""Residual branches that end in a dropout layer for whole examples, read from a traced forward."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..nn.spec_layer import SpecLayer

# the spec names of layers that drop the branch of each example
PATHS = ("drop_path", "stochastic_depth")
_BATCH_STATISTICS = {F.batch_norm, torch.batch_norm}


def drops_examples(layer: nn.Module) -> bool:
    """Return whether a layer drops whole examples, each by a Bernoulli draw of its own."""
    return (
        isinstance(layer, SpecLayer)
        and layer.base_spec.name in PATHS
        and str(layer.base_spec.per) == "b"
        and layer.layout is None
        and layer.shard is None
    )


@dataclass(frozen=True)
class Start:
    """The module that a residual branch begins with."""

    module: nn.Module


def find_start(root: nn.Module, path: fx.Node, once: set[nn.Module]) -> Start | str:
    """Return the module that a branch begins with, or the reason why it cannot run on a part of
    the batch.

    The branch is all that lies between the module and ``path``, the call of a dropout layer. Only
    the module may read what comes from outside, and nothing in between may be used elsewhere, so
    that the branch sees the examples that the module is given. ``once``: the modules that are in
    one place and called once.
    """
    ancestors = _ancestors(path)
    reason = "no module that is called once reads all of its branch's input"
    for node in root_order(path.graph, ancestors):
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        module = root.get_submodule(str(node.target))
        if module not in once or "forward" in module.__dict__ or node.args[0] is path:
            continue
        region = _region(node, ancestors)
        if not _is_closed(node, region, path) or not _multiplies(root, region):
            continue
        mixing = _mixes_examples(root, region)
        if mixing:
            reason = mixing
            continue
        return Start(module)
    return reason


def root_order(graph: fx.Graph, nodes: set[fx.Node]) -> list[fx.Node]:
    """Return ``nodes`` in the order in which the graph runs them."""
    return [node for node in graph.nodes if node in nodes]


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(one.all_input_nodes)
    return found


def _region(start: fx.Node, ancestors: set[fx.Node]) -> set[fx.Node]:
    """Return ``start`` and the nodes that follow it on the way to the dropout layer."""
    region = {start}
    for node in root_order(start.graph, ancestors):
        if any(given in region for given in node.all_input_nodes):
            region.add(node)
    return region


def _is_closed(start: fx.Node, region: set[fx.Node], path: fx.Node) -> bool:
    """Return whether the values of a region come from its start alone and go to ``path`` alone."""
    return all(
        all(user in region or user is path or _is_unused(user) for user in node.users)
        and (node is start or all(_is_shared(g) or g in region for g in node.all_input_nodes))
        for node in region
    ) and all(given in region for given in path.all_input_nodes)


def _is_unused(node: fx.Node) -> bool:
    """Return whether a value is a part of a tuple that nothing reads."""
    return node.target is operator.getitem and not node.users


def _multiplies(root: nn.Module, region: set[fx.Node]) -> bool:
    """Return whether a module of a region has a matrix or a kernel, so that it is worth leaving."""
    called = [root.get_submodule(str(node.target)) for node in region if node.op == "call_module"]
    return any(p.dim() > 1 for module in called for p in module.parameters())


def _is_shared(node: fx.Node) -> bool:
    """Return whether a value is the same for all examples: a parameter, or an argument that is
    left at its default.

    A tensor given for such an argument has the whole batch, so that the branch raises an error.
    """
    return node.op == "get_attr" or (node.op == "placeholder" and bool(node.args))


def _mixes_examples(root: nn.Module, region: set[fx.Node]) -> str:
    """Return why the examples of a region depend on one another; empty where that is not seen."""
    for node in region:
        operation: Any = node.target
        if node.op == "call_module":
            called = root.get_submodule(str(node.target))
            inner = next((m for m in called.modules() if isinstance(m, _BatchNorm)), None)
            if inner is not None:
                return (
                    f"its branch holds {type(inner).__name__}, which takes its statistics from "
                    "the whole batch"
                )
        elif operation in _BATCH_STATISTICS:
            return "its branch calls batch_norm, which takes its statistics from the whole batch"
    return ""
