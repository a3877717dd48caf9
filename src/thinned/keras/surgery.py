"""A copy of a model with dropout added or replaced."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops

from .._errors import InputError, nearest
from ..algebra.drop import Drop
from . import arguments, traversal
from .layers.branches import ShakeShake, Swapout
from .layers.elementwise import Dropout
from .layers.learned import VariationalDropout
from .layers.spec_layer import SpecDropout
from .sites import check_model

Where: TypeAlias = type[keras.Layer] | str | Callable[[str, keras.Layer], bool] | None
MakeLayer: TypeAlias = Callable[[], keras.Layer]
_MakeAfter: TypeAlias = Callable[[keras.Layer], keras.Layer]  # the layer to add after a layer


def apply(
    model: keras.Model, where: Where = None, spec: float | Drop | MakeLayer = 0.5
) -> keras.Model:
    """Copy a model, with dropout after the selected layers.

    A selected layer that only drops is replaced. The copy has the weights of ``model``, which does
    not change, and is not compiled. Layers keep their names; what is added is named
    "<layer>_dropout". A layer that is used twice gets one dropout layer, used twice.

    Args:
        model: A Sequential or functional model; models inside it are copied in the same way.
        where: The layers: a class; a name, or the end of one after "/", or otherwise a regular
            expression that matches somewhere in a name; a function of name and layer; None for
            every Dense and convolution except those that compute the output.
        spec: What to add: a rate of :class:`thinned.keras.layers.Dropout`, a :class:`thinned.Drop`,
            in the data format of the selected layer, or a function without arguments that returns a
            new layer.

    Returns:
        The copy.

    Raises:
        InputError: For subclassed models, since a ``call`` of their own cannot be rewritten, where
            no layer is selected, and where a layer has no ``get_config`` to copy it by;
            :func:`thinned.keras.set_rate` sets rates in place and needs none.

    Example:
        >>> dense = keras.layers.Dense
        >>> model = keras.Sequential([keras.Input((4,)), dense(8, name="a"), dense(2, name="b")])
        >>> [layer.name for layer in apply(model, spec=0.1).layers]
        ['a', 'a_dropout', 'b']
    """
    check_model(model)
    _check_rewritable(model, "the model")
    make_layer = _layer_maker(spec)
    selected = _selected(model, where)
    copy = _copied(model, selected, make_layer)
    if model.built:
        _copy_weights(model, copy)
    return copy


def _layer_maker(spec: Any) -> _MakeAfter:
    if isinstance(spec, Drop):
        return lambda layer: SpecDropout(spec, data_format=getattr(layer, "data_format", None))
    if callable(spec):
        return lambda layer: spec()
    arguments.rate_of(spec, "spec")
    return lambda layer: Dropout(spec)


def _sequential(model: Any) -> bool:
    return isinstance(model, keras.Sequential)


def _functional(model: Any) -> bool:
    return (
        isinstance(model, keras.Model)
        and hasattr(model, "_functional") is False
        and hasattr(model, "operations")
    )


def _check_rewritable(model: Any, what: str) -> None:
    if not (_sequential(model) or _functional(model)):
        raise InputError(
            f"{what} ({type(model).__name__}) is neither Sequential nor functional; add dropout in "
            "its own code"
        )


def _graph_layers(model: keras.Model, prefix: str = "") -> list[tuple[str, keras.Layer]]:
    """(name, layer) of the layers in graphs: of nested models too, but not inside other layers."""
    found = []
    for layer in model.layers:
        if _sequential(layer) or _functional(layer):
            found += _graph_layers(layer, f"{prefix}{layer.name}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append((f"{prefix}{layer.name}", layer))
    return found


def _selected(model: keras.Model, where: Where) -> set[int]:
    """The ids of the layers that ``where`` selects."""
    known = _graph_layers(model)
    if where is None:
        outputs = _output_layers(model)
        found = [layer for _, layer in known if _has_kernel(layer) and id(layer) not in outputs]
        if not found:
            raise InputError(
                "no Dense or convolution layer comes before the output; select layers by where="
            )
        return {id(layer) for layer in found}
    named = [
        layer
        for name, layer in known
        if isinstance(where, str) and (name == where or name.endswith(f"/{where}"))
    ]
    found = named or [layer for name, layer in known if matches(where, name, layer)]
    if not found:
        names = [name for name, _ in known]
        hint = (
            nearest(where, names) if isinstance(where, str) else f"there are {', '.join(names[:8])}"
        )
        raise InputError(f"where={where!r} selects no layer of this model; {hint}")
    return {id(layer) for layer in found}


def matches(where: Where, name: str, layer: keras.Layer) -> bool:
    """Whether ``where`` selects this layer."""
    if isinstance(where, type):
        return isinstance(layer, where)
    if isinstance(where, str):
        try:
            return re.search(where, name) is not None
        except re.error as error:
            raise InputError(
                f"where={where!r} is neither a name nor a regular expression: {error}"
            ) from None
    assert where is not None
    return bool(where(name, layer))


def _has_kernel(layer: keras.Layer) -> bool:
    return hasattr(layer, "kernel") and not hasattr(layer, "recurrent_dropout")


def _only_drops(layer: keras.Layer) -> bool:
    """Whether it does nothing but drop, so that another dropout layer can replace it."""
    computes = layer.weights and not isinstance(layer, VariationalDropout)
    return (
        bool(traversal.sources(layer))
        and not computes
        and not isinstance(layer, (keras.layers.Wrapper, ShakeShake, Swapout))
    )


def _output_layers(model: keras.Model) -> set[int]:
    """The ids of the layers that compute the outputs, without later activations and reshapes."""
    if _sequential(model):
        return _output_layers_of(list(model.layers)[::-1])
    ends: set[int] = set()
    waiting = list(keras.tree.flatten(model.outputs))
    while waiting:
        history = waiting.pop()._keras_history
        layer = history.operation
        if _sequential(layer) or _functional(layer):
            ends |= _output_layers(layer)
        elif _passes_through(layer):
            waiting += layer._inbound_nodes[history.node_index].input_tensors
        else:
            ends.add(id(layer))
    return ends


def _output_layers_of(backwards: list[keras.Layer]) -> set[int]:
    for layer in backwards:
        if _sequential(layer) or _functional(layer):
            return _output_layers(layer)
        if not _passes_through(layer):
            return {id(layer)}
    return set()


def _passes_through(layer: Any) -> bool:
    """Whether it has an input and no weights."""
    return not isinstance(layer, keras.layers.InputLayer) and not getattr(layer, "weights", ())


def _copied(model: keras.Model, selected: set[int], make_layer: _MakeAfter) -> keras.Model:
    # the name of a layer -> the dropout layer after it
    added: dict[str, keras.Layer] = {}

    def named(layer: keras.Layer) -> keras.Layer:
        new = make_layer(layer)
        if not isinstance(new, keras.Layer):
            raise InputError(f"spec has to return a Keras layer, but returned {type(new).__name__}")
        new.name = f"{layer.name}_dropout"
        return new

    def clone(layer: keras.Layer) -> keras.Layer:
        if _sequential(layer) or _functional(layer):
            return _copied(layer, selected, make_layer)
        if id(layer) in selected and _only_drops(layer):
            new = named(layer)
            new.name = layer.name
            return new
        new = _cloned(layer)
        if id(layer) in selected:
            added[layer.name] = named(layer)
        return new

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        y = layer(*args, **kwargs)
        return added[layer.name](y) if layer.name in added else y

    if _functional(model):
        return keras.models.clone_model(
            model, _inputs(model), clone_function=clone, call_function=call
        )
    copy = keras.Sequential(name=model.name)
    if model.built and model.inputs:
        copy.add(keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype))
    for layer in model.layers:
        new = clone(layer)
        copy.add(new)
        if new.name in added:
            copy.add(added[new.name])
    return copy


def _cloned(layer: keras.Layer) -> keras.Layer:
    kind = type(layer).__name__
    try:
        config = layer.get_config()
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError) as error:
        raise InputError(
            f"the layer {layer.name!r} cannot be copied, since {kind} cannot be made from its "
            "configuration; write in the class: def get_config(self): return "
            "{**super().get_config(), 'units': self.units}, with all arguments of its __init__, "
            "or set rates in place by thinned.keras.set_rate"
        ) from error


def _inputs(model: keras.Model) -> Any:
    """New inputs of the same shapes, types and names."""
    return keras.tree.map_structure(
        lambda t: keras.Input(
            batch_shape=t.shape, dtype=t.dtype, name=t._keras_history.operation.name
        ),
        model.input,
    )


def _copy_weights(model: keras.Model, copy: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        twin = copy.get_layer(layer.name)
        if _sequential(layer) or _functional(layer):
            _copy_weights(layer, twin)
        elif type(twin) is type(layer):
            for one, other in zip(layer._flatten_layers(), twin._flatten_layers(), strict=True):
                _copy_state(one, other)


def _copy_state(layer: keras.Layer, twin: keras.Layer) -> None:
    """Copy the state of one layer as a file holds it: then what is derived from weights, such as
    the constants of an adapted Normalization, and vocabularies are rebuilt too.
    """
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    if store:
        twin.load_own_variables({k: ops.convert_to_numpy(v) for k, v in store.items()})
    if hasattr(layer, "save_assets") and hasattr(layer, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            if os.listdir(folder):
                twin.load_assets(folder)
