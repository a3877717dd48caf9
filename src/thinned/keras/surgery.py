"""A copy of a model with dropout put in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from .._errors import InputError, nearest
from ..algebra.drop import Drop
from . import arguments, traversal
from .layers.elementwise import Dropout, SpecDropout
from .layers.residual import ShakeShake, Swapout
from .layers.variational import VariationalDropout
from .sites import check_model

Where: TypeAlias = type[keras.Layer] | str | Callable[[str, keras.Layer], bool] | None
Make: TypeAlias = Callable[[], keras.Layer]


def apply(model: keras.Model, where: Where = None, rate: float | Drop | Make = 0.5) -> keras.Model:
    """A copy of ``model`` with dropout after the layers that ``where`` means, or in their place
    where they are dropout layers.

    ``model``: Sequential or functional, at any depth. ``where``: a class of layers; a name, the end
    of one after "/", or else a regular expression that matches somewhere in a name; a function of
    name and layer; None for every Dense and convolution but those that make the output. ``rate``: a
    rate of :class:`thinned.keras.layers.Dropout`, a point, or a function that makes a layer.

    Weights are copied, ``model`` stays as it is, the copy is not compiled. Layers keep their names;
    what is put in is named "<layer>_dropout". A layer used twice has one dropout behind it. Raises
    :class:`thinned.InputError` for subclassed models, whose calls cannot be rewritten, and where
    nothing is meant.
    """
    check_model(model)
    _known(model, "the model")
    make = _maker(rate)
    meant = _targets(model, where)
    copy = _copied(model, meant, make)
    if model.built:
        _weights(model, copy)
    return copy


def _maker(rate: Any) -> Make:
    if isinstance(rate, Drop):
        return lambda: SpecDropout(rate)
    if callable(rate):
        return rate
    arguments.rate_of(rate)
    return lambda: Dropout(rate)


def _sequential(model: Any) -> bool:
    return isinstance(model, keras.Sequential)


def _functional(model: Any) -> bool:
    return (
        isinstance(model, keras.Model)
        and hasattr(model, "_functional") is False
        and hasattr(model, "operations")
    )


def _known(model: Any, what: str) -> None:
    if not (_sequential(model) or _functional(model)):
        raise InputError(
            f"{what} ({type(model).__name__}) is neither Sequential nor functional; put dropout into its own code"
        )


def _parts(model: keras.Model, prefix: str = "") -> list[tuple[str, keras.Layer]]:
    """The layers that stand in graphs, with their names: nested models are opened, other layers are
    not.
    """
    found = []
    for layer in model.layers:
        if _sequential(layer) or _functional(layer):
            found += _parts(layer, f"{prefix}{layer.name}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            found.append((f"{prefix}{layer.name}", layer))
    return found


def _targets(model: keras.Model, where: Where) -> set[int]:
    known = _parts(model)
    if where is None:
        last = _last(model)
        found = [layer for _, layer in known if _computes(layer) and id(layer) not in last]
        if not found:
            raise InputError("no Dense or convolution layer stands before the output; say where")
        return {id(layer) for layer in found}
    named = [
        layer
        for name, layer in known
        if isinstance(where, str) and (name == where or name.endswith(f"/{where}"))
    ]
    found = named or [layer for name, layer in known if means(where, name, layer)]
    if not found:
        names = [name for name, _ in known]
        hint = (
            nearest(where, names) if isinstance(where, str) else f"there are {', '.join(names[:8])}"
        )
        raise InputError(f"{where!r} names no layer of this model; {hint}")
    return {id(layer) for layer in found}


def means(where: Where, name: str, layer: keras.Layer) -> bool:
    """Does ``where`` mean this layer?"""
    if isinstance(where, type):
        return isinstance(layer, where)
    if isinstance(where, str):
        try:
            return re.search(where, name) is not None
        except re.error as error:
            raise InputError(
                f"{where!r} is neither a name nor a regular expression: {error}"
            ) from None
    assert where is not None
    return bool(where(name, layer))


def _computes(layer: keras.Layer) -> bool:
    return hasattr(layer, "kernel") and not hasattr(layer, "recurrent_dropout")


def _only_drops(layer: keras.Layer) -> bool:
    """Does it nothing else, so that another dropout may stand in its place?"""
    more = layer.weights and not isinstance(layer, VariationalDropout)
    return (
        bool(traversal.sources(layer))
        and not more
        and not isinstance(layer, (keras.layers.Wrapper, ShakeShake, Swapout))
    )


def _last(model: keras.Model) -> set[int]:
    """The layers that compute the outputs: those that make them, with activations and reshapes
    behind left aside.
    """
    if _sequential(model):
        return _last_of(list(model.layers)[::-1])
    ends: set[int] = set()
    waiting = list(keras.tree.flatten(model.outputs))
    while waiting:
        history = waiting.pop()._keras_history
        layer = history.operation
        if _sequential(layer) or _functional(layer):
            ends |= _last(layer)
        elif _passes(layer):
            waiting += layer._inbound_nodes[history.node_index].input_tensors
        else:
            ends.add(id(layer))
    return ends


def _last_of(backwards: list[keras.Layer]) -> set[int]:
    for layer in backwards:
        if _sequential(layer) or _functional(layer):
            return _last(layer)
        if not _passes(layer):
            return {id(layer)}
    return set()


def _passes(layer: Any) -> bool:
    """Has it no weights, but an input?"""
    return not isinstance(layer, keras.layers.InputLayer) and not getattr(layer, "weights", ())


def _copied(model: keras.Model, meant: set[int], make: Make) -> keras.Model:
    behind: dict[str, keras.Layer] = {}

    def named(layer: keras.Layer) -> keras.Layer:
        new = make()
        if not isinstance(new, keras.Layer):
            raise InputError(f"rate has to make a Keras layer, but made {type(new).__name__}")
        new.name = f"{layer.name}_dropout"
        return new

    def clone(layer: keras.Layer) -> keras.Layer:
        if _sequential(layer) or _functional(layer):
            return _copied(layer, meant, make)
        if id(layer) in meant and _only_drops(layer):
            new = named(layer)
            new.name = layer.name
            return new
        new = type(layer).from_config(layer.get_config())
        if id(layer) in meant:
            behind[layer.name] = named(layer)
        return new

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        y = layer(*args, **kwargs)
        return behind[layer.name](y) if layer.name in behind else y

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
        if new.name in behind:
            copy.add(behind[new.name])
    return copy


def _inputs(model: keras.Model) -> Any:
    """Inputs as the model's, under their layers' names."""
    return keras.tree.map_structure(
        lambda t: keras.Input(
            batch_shape=t.shape, dtype=t.dtype, name=t._keras_history.operation.name
        ),
        model.input,
    )


def _weights(model: keras.Model, copy: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        twin = copy.get_layer(layer.name)
        if _sequential(layer) or _functional(layer):
            _weights(layer, twin)
        elif type(twin) is type(layer) and layer.weights:
            twin.set_weights(layer.get_weights())
