"""Thinning: replacing dropout by batchwise dropout that leaves units out of the matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

from .._errors import InputError, flag, whole
from ..algebra.scale import Inverted
from ..nn import Thinned
from ..nn.module import do_nothing
from ..nn.spec_layer import SpecLayer
from ..nn.thinned import Shrinking
from ..nn.thinned_branches import Branch, BranchEnd, BranchStart
from .branches import Start, drops_examples, find_start
from .chains import Chain, find_chain, is_elementwise, spatial_dims, trace
from .edits import AttributeChange, Edits, ForwardChange, Swap, apply_edits
from .model_access import unwrap_compiled
from .preserve import restoring
from .replacing import HOOKS, PATH_NAMES, replacement

# torch's dropout layers that thinning can replace, with the spatial axes of their units
_TORCH: dict[type[nn.Module], int] = {
    nn.Dropout: 0,
    nn.Dropout1d: 1,
    nn.Dropout2d: 2,
    nn.Dropout3d: 3,
}
# their feed-forward part is linear2(dropout(activation(linear1(x))))
_FEED_FORWARD = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
# the chain around a call, the start of the branch that it ends, or the reason why it is not thinned
_Result = Chain | Start | str


def thin(model: nn.Module, groups: int = 1, always: bool = False) -> Edits:
    """Replace dropout by batchwise thinning, and leave the dropped units out of the matrix products
    around it, in place.

    A dropout between linear layers (or channel dropout between convolutions) becomes a
    :class:`thinned.nn.Thinned` layer at its rate: of n units a fixed count, about (1 - p) n, is
    kept for the whole batch. While training, the layers before and behind it multiply only the kept
    rows and columns of their weights; evaluation is unchanged. Between them are allowed functions
    of each element, with f(0) = 0 behind the dropout, pooling in each channel, and flattening of
    maps before a linear layer. A dropout with only a layer behind it thins the inputs of that
    layer. Sequentials and forward passes that torch.fx can trace are read, each module by itself;
    torch's transformer layers are known, and are thinned in their feed-forward part.

    Drop path and stochastic depth with a draw for each example, also the layers of timm,
    torchvision and transformers by that name, are not changed in what they drop: their residual
    branches are run on the kept examples only, with the results of the whole batch. A branch with
    BatchNorm is left, since its statistics are those of the batch.

    It is another regularizer than dropout, not only a faster one. All examples of a step train the
    same thinned network, so gradients have more noise: rates and learning rates need tuning
    again, and a learning rate that suits dropout may be too high (docs/thinning.md has measured
    errors). Gradients of dropped units are zero and
    not missing: weight decay and momentum still change all weights. Between two linked layers a
    tensor holds only the kept units, so hooks there see narrower tensors.

    Weights, their names, ``state_dict`` and optimizers are unchanged. Call it before
    :func:`thinned.key`. A second call changes nothing.

    Args:
        model: The model to change.
        groups: Into how many parts of consecutive rows the batch is divided, each with units of its
            own: better averages, more and smaller products.
        always: Whether units are left out also where copying the kept weights costs more than it
            saves: layers that are narrow, batches that are small. Otherwise the same units are
            zeroed there (:meth:`thinned.nn.Thinned.pays`).

    Returns:
        The changes; ``notes`` say which dropout was left as it is, and why. ``undo()`` takes all
        back.

    Raises:
        InputError: Where nothing can be thinned, with the reason for each dropout, or ``groups`` is
            below 1; nothing is changed then.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
        >>> print(thin(model))
        2: Dropout(p=0.5, inplace=False) -> Thinned(p=0.5, groups=1, linked)
        0: Linear(in_features=8, out_features=6, bias=True) multiplies the kept outputs only
        3: Linear(in_features=6, out_features=2, bias=True) multiplies the kept inputs only

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices".
    """
    groups, always = whole(groups, "groups", 1), flag(always, "always")
    model = unwrap_compiled(model)
    places = _dropout_layers(model)
    if not places:
        raise InputError(
            "this model has no dropout layer to thin; thinned.expose(model, x) makes layers of "
            "F.dropout in a forward pass"
        )
    with restoring(model, (), parameters=False):  # its code runs, with proxies for parameters
        results = _results(model, places, groups)
    chains = _complete(results, Chain)
    branches = _complete(results, Start)
    notes = []
    for layer, names in places.items():
        if layer not in chains and layer not in branches and not _is_thinned(layer):
            reason = next(
                (r for r in results.get(layer, []) if isinstance(r, str)),
                "its caller's forward pass cannot be read",
            )
            notes.append(f"{' and '.join(names)}: left as it is: {reason}")
    notes += [
        f"{name or '(the model)'}: left as it is: torch drops between its layers; "
        f"thinned.nn.DropState(module, states={module.dropout:g}, method='thinned') runs on the "
        "kept units of its states only"
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase) and module.dropout
    ]
    edits = _edits(model, places, chains, groups, always)
    edits += _branch_edits(model, places, branches, edits)
    if not chains and not branches and notes:
        raise InputError("nothing in this model can be thinned:\n" + "\n".join(notes))
    return apply_edits(edits, notes)


_Found = TypeVar("_Found", Chain, Start)


def _complete(
    results: dict[nn.Module, list[_Result]], kind: type[_Found]
) -> dict[nn.Module, list[_Found]]:
    """Return the layers for which each call has a result of one kind."""
    found = {layer: [r for r in all_ if isinstance(r, kind)] for layer, all_ in results.items()}
    return {layer: r for layer, r in found.items() if r and len(r) == len(results[layer])}


def _is_thinned(layer: nn.Module) -> bool:
    """Return whether an earlier call has thinned a layer."""
    linked = isinstance(layer, Thinned) and layer.linked
    return linked or isinstance(layer.__dict__.get("forward"), BranchEnd)


def _dropout_layers(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return the dropout layers, each with all of its names."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(
            module, (nn.modules.dropout._DropoutNd, SpecLayer, Thinned)
        ) or PATH_NAMES.search(type(module).__name__):
            found.setdefault(module, []).append(name or "(the model)")
    return found


def _unit_dims(layer: nn.Module) -> int | str:
    """Return how many spatial axes follow the units of the layer, or why it is not thinned."""
    if isinstance(layer, SpecLayer) and not isinstance(layer.base_spec.scale, Inverted):
        return 'its scaling is not inverted; thinned.rescale(model, "inverted") makes it so'
    if any(getattr(layer, hooks) for hooks in HOOKS):
        return "it has hooks of its own"
    if isinstance(layer, Thinned):
        return layer.dims
    if type(layer) in _TORCH:
        return _TORCH[type(layer)]
    if not isinstance(layer, SpecLayer):
        return f"{type(layer).__name__} is not a dropout layer that thinning can replace"
    spec = layer.base_spec
    if (
        spec.name in ("dropout", "batchwise_dropout")
        and layer.layout is None
        and layer.shard is None
        and layer.dims is None
    ):
        return 0
    if spec.name == "spatial_dropout" and layer.dims is not None:
        return layer.dims
    return "it does not drop single units or channels"


def _results(
    model: nn.Module, places: dict[nn.Module, list[str]], groups: int
) -> dict[nn.Module, list[_Result]]:
    """Return, for each dropout layer, the result for each of its calls.

    The outermost module that calls a layer in its own forward decides, because its forward shows
    the most of what is around the layer.
    """
    counts: dict[nn.Module, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        counts[module] = counts.get(module, 0) + 1
    once = {module for module, count in counts.items() if count == 1 and _own_forward(module)}
    results: dict[nn.Module, list[_Result]] = {}
    for root in model.modules():
        if not any(True for _ in root.children()):
            continue
        new = {
            layer: found
            for layer, found in _read(root, places, once, groups)
            if layer not in results
        }
        for layer, found in new.items():
            shared = len({name.rpartition(".")[0] for name in places[layer]}) > 1
            results[layer] = ["it is in several modules"] if shared else found
    return results


def _own_forward(module: nn.Module) -> bool:
    """Return whether the forward of a module is that of its class, or was set by thinning."""
    return isinstance(module.__dict__.get("forward", Shrinking), (type, Shrinking))


def _read(
    root: nn.Module, places: dict[nn.Module, list[str]], once: set[nn.Module], groups: int
) -> Iterator[tuple[nn.Module, list[_Result]]]:
    """Yield the dropout layers that ``root`` itself calls, with the result for each call."""
    if isinstance(root, _FEED_FORWARD):
        yield from _read_feed_forward(root, places, once, groups)
        return
    if type(root) is not nn.Sequential and type(root).__module__.startswith("torch.nn."):
        return
    try:
        graph = trace(root)
    except Exception:  # noqa: BLE001 - a forward pass may contain any code
        return
    called: dict[nn.Module, list[Any]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            called.setdefault(root.get_submodule(str(node.target)), []).append(node)
    called_once = {m for m in once if len(called.get(m, [])) == 1}
    for layer, nodes in called.items():
        if layer in places and (drops_examples(layer) or PATH_NAMES.search(type(layer).__name__)):
            if not _is_thinned(layer):
                refused = _refused_path(layer, groups)
                yield (
                    layer,
                    [refused or find_start(root, node, called_once) for node in nodes],
                )
        elif layer in places:
            dims = _unit_dims(layer)
            yield (
                layer,
                [
                    dims if isinstance(dims, str) else find_chain(root, node, dims, called_once)
                    for node in nodes
                ],
            )


def _refused_path(layer: nn.Module, groups: int) -> str:
    """Return why a layer that drops branches is left; empty where it is not."""
    if "forward" in layer.__dict__ or any(
        hook is not do_nothing for hooks in HOOKS for hook in getattr(layer, hooks).values()
    ):
        return "it has hooks of its own"
    if groups > 1:
        return "groups are rows of the whole batch; thin with groups=1 for its branch"
    if drops_examples(layer):
        return ""
    found = replacement(layer)
    if found is None or not drops_examples(found):
        return "it does not drop the branch of each example by a draw of its own"
    return ""


def _read_feed_forward(
    root: Any, places: dict[nn.Module, list[str]], once: set[nn.Module], groups: int
) -> Iterator[tuple[nn.Module, list[_Result]]]:
    """Yield the dropout layers of a transformer layer of torch, which torch.fx cannot trace."""
    for name, child in root.named_children():
        if child not in places:
            continue
        dims = _unit_dims(child)
        result: _Result
        if isinstance(dims, str):
            result = dims
        elif name != "dropout":
            result = (
                "its result is added to a residual stream, where dropped units are not known to "
                "be 0"
            )
        elif not is_elementwise(root.activation) or any(
            m not in once or spatial_dims(m) != 0 for m in (root.linear1, root.linear2)
        ):
            result = (
                "its activation is not known to act on each element alone, or its linear layers "
                "are shared"
            )
        elif groups > 1 and not root.self_attn.batch_first:
            result = (
                "groups are rows of the first axis, which holds tokens here; use batch_first=True"
            )
        else:
            result = Chain(root.linear1, root.linear2, root.linear1.out_features)
        yield child, [result]


def _edits(
    model: nn.Module,
    places: dict[nn.Module, list[str]],
    chains: dict[nn.Module, list[Chain]],
    groups: int,
    always: bool,
) -> list[Swap | AttributeChange | ForwardChange]:
    names = {module: name for name, module in model.named_modules()}
    parents = dict(model.named_modules(remove_duplicate=False))
    edits: list[Swap | AttributeChange | ForwardChange] = []
    forwards: dict[nn.Module, Shrinking] = {}
    for layer, found in chains.items():
        if isinstance(layer, Thinned) and layer.linked:
            continue
        thinned = layer if isinstance(layer, Thinned) else _thinned_layer(layer, groups)
        if thinned is layer:
            edits.append(
                AttributeChange(
                    path=places[layer][0], holder=thinned, attribute="linked", old=False, new=True
                )
            )
        else:
            thinned.linked = True
            for path in places[layer]:
                parent, _, child = path.rpartition(".")
                edits.append(
                    Swap(path=path, parent=parents[parent], child=child, old=layer, new=thinned)
                )
        # one layer in several places takes the place that saves most
        per_unit = 0 if always else max(map(_weights_per_unit, found))
        if thinned is layer:
            edits.append(
                AttributeChange(
                    path=places[layer][0],
                    holder=thinned,
                    attribute="weights_per_unit",
                    old=thinned.weights_per_unit,
                    new=per_unit,
                )
            )
        else:
            thinned.weights_per_unit = per_unit
        for chain in found:
            if chain.before is not None:
                _shrinking(forwards, chain.before).behind = thinned
            behind = _shrinking(forwards, chain.behind)
            behind.before, behind.units = thinned, chain.units
    return edits + [
        ForwardChange(path=names[m], module=m, old=m.__dict__.get("forward"), new=forward)
        for m, forward in forwards.items()
    ]


def _branch_edits(
    model: nn.Module,
    places: dict[nn.Module, list[str]],
    branches: dict[nn.Module, list[Start]],
    others: list[Swap | AttributeChange | ForwardChange],
) -> list[Swap | AttributeChange | ForwardChange]:
    """Return the changes that make branches run on their kept examples; ``others`` come before."""
    names = {module: name for name, module in model.named_modules()}
    parents = dict(model.named_modules(remove_duplicate=False))
    earlier = {edit.module: edit.new for edit in others if isinstance(edit, ForwardChange)}
    edits: list[Swap | AttributeChange | ForwardChange] = []
    for layer, starts in branches.items():
        new: Any = layer
        if not drops_examples(layer):
            new = replacement(layer)
            new.train(layer.training)
            for path in places[layer]:
                parent, _, child = path.rpartition(".")
                edits.append(
                    Swap(path=path, parent=parents[parent], child=child, old=layer, new=new)
                )
        branch = Branch(new)
        edits.append(
            ForwardChange(path=places[layer][0], module=new, old=None, new=BranchEnd(branch))
        )
        for start in starts:
            module = start.module
            old = earlier.get(module, module.__dict__.get("forward"))
            edits.append(
                ForwardChange(
                    path=names[module], module=module, old=old, new=BranchStart(module, branch, old)
                )
            )
    return edits


def _weights_per_unit(chain: Chain) -> int:
    before = 0 if chain.before is None else chain.before.weight.numel()
    return (before + chain.behind.weight.numel()) // chain.units


def _shrinking(forwards: dict[nn.Module, Shrinking], module: nn.Module) -> Shrinking:
    """Return the new forward of ``module``; links that an earlier call made are kept."""
    if module not in forwards:
        old = module.__dict__.get("forward")
        forwards[module] = (
            Shrinking(module)
            if old is None
            else Shrinking(module, old.before, old.behind, old.units)
        )
    return forwards[module]


def _thinned_layer(layer: Any, groups: int) -> Thinned:
    dims = _unit_dims(layer)
    assert isinstance(dims, int)
    thinned = Thinned(getattr(layer, "schedule", None) or layer.p, groups, dims)
    thinned.p = layer.p
    return thinned.train(layer.training)
