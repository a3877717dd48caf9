"""The network of a recipe as an ``nn.Module``, with a dropout module at every position."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedParameter

from .._errors import InputError
from ..algebra.drop import Drop
from ..nn import DropConnect
from ..nn.layer_of import layer_of
from ..presets import dropout
from .data import Split
from .recipe import Cnn, Custom, Mlp, Recipe

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}
WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, DropConnect)
NO_DROPOUT = dropout(0.0)


def build(recipe: Recipe, split: Split) -> nn.Module:
    """Build the network of ``recipe`` for ``split``: [n, features] in, [n, outputs] out.

    Its initial weights are a function of the architecture and ``recipe.seed``. The names of its
    modules ("drop0", "linear1") are part of the random key: other names draw other masks.

    Raises :class:`thinned.InputError` where the user's function cannot be found, raises, or returns
    something other than an ``nn.Module``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        match recipe.network:
            case Mlp():
                return _mlp(recipe, recipe.network, split.inputs, split.task.outputs)
            case Cnn():
                return _cnn(recipe, recipe.network, split)
            case Custom():
                return NetworkWithDropout(_custom(recipe.network, split), recipe, split.image)


def _layer(
    recipe: Recipe, i: int, linear: nn.Module, norm: nn.Module, act: nn.Module
) -> list[tuple[str, nn.Module]]:
    network = recipe.network
    assert not isinstance(network, Custom)
    if recipe.drop_connect and isinstance(linear, nn.Linear):
        wrapped = DropConnect(
            linear, recipe.drop_connect, activation=act, sampling="moments", inference="moments"
        )
        linear, act = wrapped, nn.Identity()
    drop = layer_of(recipe.drop(i) or NO_DROPOUT)
    steps = {"linear": linear, "norm": norm, "act": act, "drop": drop}
    return [(f"{step}{i}", steps[step]) for step in network.order]


def _mlp(recipe: Recipe, network: Mlp, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [("drop0", layer_of(recipe.drop(0) or NO_DROPOUT))]
    for i, width in enumerate(network.hidden, 1):
        linear = nn.Linear(inputs, width, bias=network.bias)
        activation = ACTIVATIONS[network.activation]()
        layers += _layer(recipe, i, linear, nn.BatchNorm1d(width), activation)
        inputs = width
    layers.append((f"linear{len(network.hidden) + 1}", nn.Linear(inputs, outputs)))
    return nn.Sequential(OrderedDict(layers))


def _cnn(recipe: Recipe, network: Cnn, split: Split) -> nn.Sequential:
    if split.image is None:
        raise InputError(
            "model 'cnn' needs images: an IDX folder, or an NPZ file with an x of 3 or 4 axes; use "
            "mlp for tables"
        )
    channels, height, width = split.image
    layers: list[tuple[str, nn.Module]] = [
        ("image", nn.Unflatten(1, split.image)),
        ("drop0", layer_of(recipe.drop(0) or NO_DROPOUT)),
    ]
    for i, wide in enumerate(network.channels, 1):
        layers += _layer(
            recipe,
            i,
            nn.Conv2d(channels, wide, 3, padding=1, bias=network.bias),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        )
        channels = wide
        if min(height, width) >= 2:
            layers.append((f"pool{i}", nn.MaxPool2d(2)))
            height, width = height // 2, width // 2
    last = len(network.channels) + 1
    layers.append(("flat", nn.Flatten()))
    parts = (
        nn.Linear(channels * height * width, network.dense, bias=network.bias),
        nn.BatchNorm1d(network.dense),
        nn.ReLU(),
    )
    layers += _layer(recipe, last, *parts)
    layers.append((f"linear{last + 1}", nn.Linear(network.dense, split.task.outputs)))
    return nn.Sequential(OrderedDict(layers))


class _DropoutHook:
    """A forward pre-hook that applies a dropout module to the input of a layer.

    It is an object and not a closure, so that copies and pickles of the network contain their own
    dropout module.
    """

    def __init__(self, dropout_module: nn.Module) -> None:
        self.dropout_module = dropout_module

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        if args:
            return (self.dropout_module(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs), "input")  # layer(input=x)
        return args, {**kwargs, first: self.dropout_module(kwargs[first])}


class NetworkWithDropout(nn.Module):
    """A user's network with a dropout module before each of its weight layers.

    The first dropout module acts on the input, the others on hidden values. The dropout that the
    network brings along, including that of attention and recurrent layers, is set to rate 0, so
    that only the recipe decides what is dropped.
    """

    def __init__(self, net: nn.Module, recipe: Recipe, image: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.net, self.image = net, image
        # attention uses the weights of its output projection without calling it, so that a hook
        # there would never run
        uncalled: set[nn.Module] = set()
        for module in net.modules():
            if isinstance(module, (_DropoutNd, DropConnect)):
                module.p = 0.0
            elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
                module.dropout = 0.0
            if isinstance(module, nn.MultiheadAttention):
                uncalled.add(module.out_proj)
        layers = [m for m in net.modules() if isinstance(m, WEIGHT_LAYERS) and m not in uncalled]
        if not layers:
            raise InputError("the model has no Linear or convolution layer to put dropout before")
        self.drops = nn.ModuleList(
            layer_of(_spec_at(recipe, i) or NO_DROPOUT) for i in range(len(layers))
        )
        for layer, dropout_module in zip(layers, self.drops, strict=True):
            layer.register_forward_pre_hook(_DropoutHook(dropout_module), with_kwargs=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.unflatten(1, self.image) if self.image else x)


def _spec_at(recipe: Recipe, i: int) -> Drop | None:
    """The spec before weight layer ``i``; hidden layers beyond the recipe's specs use its last."""
    if not recipe.drops or (i > 0 and len(recipe.drops) == 1):
        return None
    return recipe.drop(min(i, len(recipe.drops) - 1))


def _custom(network: Custom, split: Split) -> nn.Module:
    function = load_model_function(network.path)
    inputs: Any = split.image or split.inputs
    try:
        net = function(inputs=inputs, outputs=split.task.outputs)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{network.path}(inputs={inputs}, outputs={split.task.outputs}) raised "
            f"{_first_line(error)}"
        ) from error
    if not isinstance(net, nn.Module):
        raise InputError(
            f"{network.path} has to return a torch.nn.Module, but returned {type(net).__name__}"
        )
    return net


def load_model_function(path: str) -> Callable[..., object]:
    """Import the function named by ``"module:function"`` or ``"file.py:function"``.

    Modules are searched for in the working directory and on ``sys.path``. Raises
    :class:`thinned.InputError` where the module or function does not exist or the import fails.
    """
    where, _, name = path.rpartition(":")
    if not where or not name:
        raise InputError(
            f"model {path!r} is neither built in (mlp, wide, deep, cnn) nor of the form "
            "module:function"
        )
    file = Path(where)
    if file.suffix == ".py" and not file.is_file():
        raise InputError(f"model file {where!r} does not exist")
    folder = str(file.parent.resolve() if file.suffix == ".py" else Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = _import_file(file) if file.suffix == ".py" else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"importing {where!r} for the model raised {_first_line(error)}"
        ) from error
    finally:
        sys.path.remove(folder)
    if not callable(getattr(module, name, None)):
        raise InputError(f"module {where!r} has no function {name!r}")
    function: Callable[..., object] = getattr(module, name)
    return function


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"thinned_model_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that its classes can be pickled
    spec.loader.exec_module(module)
    return module


def _first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def check_model(make: Callable[[], nn.Module], split: Split, batch_size: int) -> None:
    """Raise :class:`thinned.InputError` unless the networks that ``make`` builds can be trained.

    Every call has to build a network with weights of its own; a forward and a backward pass on a
    batch of training rows and an evaluation of a batch of another size have to work; and both have
    to return finite numbers [rows, outputs].
    """
    with torch.random.fork_rng(devices=[]):
        net, other = make(), make()
        if {id(p) for p in net.parameters()} & {id(p) for p in other.parameters()}:
            raise InputError(
                "two calls of the model function returned networks that share weights; build new "
                "layers in every call"
            )
        if any(isinstance(p, UninitializedParameter) for p in net.parameters()):
            raise InputError(
                "the model has lazy layers, with sizes that are not known yet; pass them their "
                "input sizes"
            )
        if not any(p.requires_grad for p in net.parameters()):
            raise InputError(
                "the model has no weights that can be trained; set requires_grad on some of its "
                "parameters"
            )
        for training, size in ((True, min(batch_size, len(split.train))), (False, 2)):
            net.train(training)
            when = f"on a batch of {size} rows in {'training' if training else 'evaluation'}"
            try:
                y = net(split.train.x[:size])
            except (Exception, SystemExit) as error:
                raise InputError(f"{when} the model raised {_first_line(error)}") from error
            _check_values(y, (size, split.task.outputs), when)
            if training:
                try:
                    y.sum().backward()
                except Exception as error:
                    raise InputError(
                        f"the gradients of the model cannot be computed: {_first_line(error)}"
                    ) from error


def _check_values(y: object, shape: tuple[int, int], when: str) -> None:
    got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    if not isinstance(y, Tensor) or tuple(y.shape) != shape:
        raise InputError(
            f"the model has to return a tensor of shape {shape} {when}, but returned {got}"
        )
    if not y.is_floating_point():
        raise InputError(f"the model has to return floating-point numbers, but returned {y.dtype}")
    if not y.isfinite().all():
        raise InputError(
            f"the model returned values that are not finite {when}; look for a division by 0 or an "
            "overflow"
        )
