"""Batchwise thinning in the place of elementwise dropout: products shrink by what fell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from .._errors import InputError, whole
from ..algebra.scale import Inverted
from ..nn import Thinned
from ..nn.spec_layer import SpecLayer
from ..nn.thinned import Shrinking
from .chains import Chain, Tracer, chain, dims_of, elementwise
from .edits import Edits, Reset, Shrink, Swap, done
from .model_access import plain

_TORCH: dict[type[nn.Module], int] = {
    nn.Dropout: 0,
    nn.Dropout1d: 1,
    nn.Dropout2d: 2,
    nn.Dropout3d: 3,
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FEED_FORWARD = (
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)  # linear2(dropout(activation(linear1(x))))
_Verdict = Chain | str


def thin(model: nn.Module, groups: int = 1) -> Edits:
    """Put batchwise thinning in the place of dropout, and cut what falls out of the matrix products
    around it, in place.

    A dropout between linear layers (or channel dropout between convolutions) becomes
    :class:`thinned.nn.Thinned` at its rate: about (1 - p) n of n units, a fixed count, stay for the
    whole batch. While training the layers before and behind it multiply by the kept rows and
    columns of their weights alone; evaluation is untouched. Between them may stand functions of
    each element alone, with f(0) = 0 behind the dropout, pooling in each channel, and flattening of
    maps before a linear layer. A dropout with only a layer behind it thins the inputs of that one.
    torch's transformer layers are known by their feed-forward part. ``groups``: the batch in so
    many parts (consecutive rows), each with a pattern of its own: better averages, more and smaller
    products.

    It is another regularizer than dropout, not only a faster one. All examples of a step train the
    same thinned network, so gradients have more noise and rates want tuning again, about 0.3 in the
    place of 0.5 (docs/thinning.md has the errors that were measured). Gradients of what fell are
    zero and not missing: weight decay and momentum still move all weights. Between two linked
    layers a tensor holds the kept units alone, so code that looks at it there sees fewer.

    Weights, their names and ``state_dict`` stay as they are, and so do optimizers. Do it before
    :func:`thinned.key`. What was left, and why, is printed with the result; ``.undo()`` takes all
    back; doing it again changes nothing. Sequentials and forward passes that torch.fx can read are
    taken; a module is read by itself, without its callers.

    Raises :class:`thinned.InputError` before anything is changed: where nothing can be thinned,
    with the reason for each dropout, and for ``groups`` below 1.

    >>> model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
    >>> print(thin(model))
    2: Dropout(p=0.5, inplace=False) -> Thinned(p=0.5, groups=1, linked)
    0: Linear(in_features=8, out_features=6, bias=True) multiplies the kept outputs alone
    3: Linear(in_features=6, out_features=2, bias=True) multiplies the kept inputs alone

    Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using submatrices".
    """
    groups = whole(groups, "groups", 1)
    model = plain(model)
    places = _places(model)
    if not places:
        raise InputError(
            "this model has no dropout layer to thin; F.dropout in a forward pass has to become a layer first"
        )
    verdicts = _verdicts(model, places, groups)
    fits = {layer: [v for v in found if isinstance(v, Chain)] for layer, found in verdicts.items()}
    fits = {layer: chains for layer, chains in fits.items() if len(chains) == len(verdicts[layer])}
    left = []
    for layer, names in places.items():
        if layer not in fits and not (isinstance(layer, Thinned) and layer.linked):
            why = next(
                (v for v in verdicts.get(layer, []) if isinstance(v, str)),
                "its caller's forward pass cannot be read",
            )
            left.append(f"{' and '.join(names)}: left as it is: {why}")
    edits = _edits(model, places, fits, groups)
    if not fits and left:
        raise InputError("nothing in this model can be thinned:\n" + "\n".join(left))
    return done(edits, left)


def _places(model: nn.Module) -> dict[nn.Module, list[str]]:
    """The dropout layers, each with all its names."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.modules.dropout._DropoutNd, SpecLayer, Thinned)):
            found.setdefault(module, []).append(name or "(the model)")
    return found


def _thinnable(layer: nn.Module) -> int | str:
    """How many map axes stand behind what falls at ``layer``; or why it is not thinned."""
    if isinstance(layer, SpecLayer) and not isinstance(layer.base_spec.scale, Inverted):
        return 'its scaling is not inverted; thinned.rescale(model, "inverted") makes it so'
    if any(getattr(layer, hooks) for hooks in _HOOKS):
        return "it has hooks of its own"
    if isinstance(layer, Thinned):
        return layer.dims
    if type(layer) in _TORCH:
        return _TORCH[type(layer)]
    if not isinstance(layer, SpecLayer):
        return f"{type(layer).__name__} is no dropout that thinning stands for"
    spec = layer.base_spec
    if (
        spec.name in ("dropout", "batchwise")
        and layer.layout is None
        and layer.shard is None
        and layer.dims is None
    ):
        return 0
    if spec.name == "spatial" and layer.dims is not None:
        return layer.dims
    return "it is no dropout of single units or of channels"


def _verdicts(
    model: nn.Module, places: dict[nn.Module, list[str]], groups: int
) -> dict[nn.Module, list[_Verdict]]:
    """For each dropout layer what stands around each of its calls, from the outermost forward pass
    that shows it.
    """
    names: dict[nn.Module, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        names[module] = names.get(module, 0) + 1
    once = {module for module, count in names.items() if count == 1 and _own_forward(module)}
    verdicts: dict[nn.Module, list[_Verdict]] = {}
    for root in model.modules():
        if not any(True for _ in root.children()):
            continue
        seen = {
            layer: found
            for layer, found in _read(root, places, once, groups)
            if layer not in verdicts
        }
        for layer, found in seen.items():
            shared = len({name.rpartition(".")[0] for name in places[layer]}) > 1
            verdicts[layer] = ["it stands in several modules"] if shared else found
    return verdicts


def _own_forward(module: nn.Module) -> bool:
    """Is the module's forward pass its class's, or ours?"""
    return isinstance(module.__dict__.get("forward", Shrinking), (type, Shrinking))


def _read(
    root: nn.Module, places: dict[nn.Module, list[str]], once: set[nn.Module], groups: int
) -> Iterator[tuple[nn.Module, list[_Verdict]]]:
    """The dropout layers that ``root`` itself calls, and what stands around each call."""
    if isinstance(root, _FEED_FORWARD):
        yield from _feed_forward(root, places, once, groups)
        return
    if type(root) is not nn.Sequential and type(root).__module__.startswith("torch.nn."):
        return
    try:
        graph = Tracer().trace(root)
    except Exception:  # noqa: BLE001 - any code may stand in a forward pass
        return
    called: dict[nn.Module, list[Any]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            called.setdefault(root.get_submodule(str(node.target)), []).append(node)
    single = {m for m in once if len(called.get(m, [])) == 1}
    for layer, nodes in called.items():
        if layer in places:
            dims = _thinnable(layer)
            yield (
                layer,
                [
                    dims if isinstance(dims, str) else chain(root, node, dims, single)
                    for node in nodes
                ],
            )


def _feed_forward(
    root: Any, places: dict[nn.Module, list[str]], once: set[nn.Module], groups: int
) -> Iterator[tuple[nn.Module, list[_Verdict]]]:
    """torch's transformer layers, whose forward passes torch.fx cannot read."""
    for name, child in root.named_children():
        if child not in places:
            continue
        dims = _thinnable(child)
        if isinstance(dims, str):
            yield child, [dims]
        elif name != "dropout":
            yield (
                child,
                ["its result is added to a residual stream, where what fell is not known to be 0"],
            )
        elif not elementwise(root.activation) or any(
            m not in once or dims_of(m) != 0 for m in (root.linear1, root.linear2)
        ):
            yield (
                child,
                [
                    "its activation is not known to act on each element alone, or its linear layers are shared"
                ],
            )
        elif groups > 1 and not root.self_attn.batch_first:
            yield (
                child,
                [
                    "groups are rows of the first axis, which holds tokens here; use batch_first=True"
                ],
            )
        else:
            yield child, [Chain(root.linear1, root.linear2, root.linear1.out_features)]


def _edits(
    model: nn.Module,
    places: dict[nn.Module, list[str]],
    fits: dict[nn.Module, list[Chain]],
    groups: int,
) -> list[Swap | Reset | Shrink]:
    names = {module: name for name, module in model.named_modules()}
    parents = dict(model.named_modules(remove_duplicate=False))
    edits: list[Swap | Reset | Shrink] = []
    shrinking: dict[nn.Module, Shrinking] = {}
    for layer, chains in fits.items():
        if isinstance(layer, Thinned) and layer.linked:
            continue
        host = layer if isinstance(layer, Thinned) else _host(layer, groups)
        if host is layer:
            edits.append(Reset(places[layer][0], host, "linked", False, True))
        else:
            host.linked = True
            for path in places[layer]:
                parent, _, name = path.rpartition(".")
                edits.append(Swap(path, parents[parent], name, layer, host))
        for found in chains:
            if found.before is not None:
                _shrunk(shrinking, found.before).behind = host
            behind = _shrunk(shrinking, found.behind)
            behind.before, behind.units = host, found.units
    return edits + [
        Shrink(names[m], m, m.__dict__.get("forward"), run) for m, run in shrinking.items()
    ]


def _shrunk(made: dict[nn.Module, Shrinking], module: nn.Module) -> Shrinking:
    """The forward pass that ``module`` will have; what it has of ours goes on."""
    if module not in made:
        old = module.__dict__.get("forward")
        made[module] = (
            Shrinking(module)
            if old is None
            else Shrinking(module, old.before, old.behind, old.units)
        )
    return made[module]


def _host(layer: Any, groups: int) -> Thinned:
    dims = _thinnable(layer)
    assert isinstance(dims, int)
    host = Thinned(getattr(layer, "schedule", None) or layer.p, groups, dims)
    host.p = layer.p
    return host.train(layer.training)
