"""Random keys of models: masks become a function of seed, layer, step and sample id."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._errors import InputError, nearest
from ..algebra.key import (
    CONTRACT,
    COPY,
    check_contract,
    checked_number,
    checked_seed,
    stream_of,
)
from ..engines.torch import ops
from ..engines.torch.tensor_key import (
    TensorKey,
    int64_vector,
    is_wrapped,
    mapped_levels,
    to_int64,
    without_gradients,
)
from .module import DropoutModule, dropout_modules
from .recompute import CallCounter


class ModelKey:
    """The random key of a model: create it with :func:`thinned.key`, move it with :meth:`at`.

    While it exists, the mask of a layer depends on the seed, the name of the layer, the step, the
    number of the call within the step and the sample id of each example, and on nothing else.

    Args:
        model: The model.
        seed: The seed, an integer.
        layers_by_name: The dropout modules of the model with their qualified names.
        capturable: Whether to keep seed, step and sample ids at fixed addresses, as a captured CUDA
            graph needs. Then a backward pass has to run before the next :meth:`at`.
        shared: For each name of a shared stream the layers that draw from it.

    Attributes:
        shared: For each name of a shared stream the layers that draw from it; read only.

    Example:
        >>> import torch
        >>> import thinned
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> key = thinned.key(model, seed=7)
        >>> key.at(step=3, samples=[10, 11])
        >>> first = model(torch.ones(2, 4))
        >>> key.at(step=3, samples=[11, 10])
        >>> bool((model(torch.ones(2, 4)).flip(0) == first).all())
        True
    """

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        layers_by_name: dict[str, DropoutModule],
        capturable: bool = False,
        shared: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.shared = checked_groups(shared, layers_by_name)
        self.seed = seed
        self.step: int | Tensor | None = None
        self.capturable = capturable
        self._model = model
        self._layers_by_name = layers_by_name
        self._children = _children(model)
        self._current: TensorKey | None = None
        # (positions, number of all examples) while a residual branch runs on a part of the batch
        self.kept_examples: tuple[Tensor, int] | None = None
        self._vmap_level = 0  # of the ids; 0 where they are not mapped
        self._is_copy = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy, which is moved by itself."""
        state = {**self.__dict__, "_is_copy": True, "kept_examples": None}
        return {**state, "_current": None, "_vmap_level": 0} if self._vmap_level else state

    def __repr__(self) -> str:
        """Show the seed, the step and each keyed layer, with its shared stream if it has one."""
        stream_of = {name: stream for stream, names in self.shared.items() for name in names}
        step = "not set" if self.step is None else self.step
        if isinstance(step, Tensor):
            step = "one for each example" if step.ndim else int(step)
        lines = [f"ModelKey(seed={self.seed}, step={step}, layers={len(self._layers_by_name)})"]
        for name, layer in self._layers_by_name.items():
            stream = f", stream {stream_of[name]!r}" if name in stream_of else ""
            lines.append(f"  {name or '(the model)'}: {layer!r}{stream}")
        return "\n".join(lines)

    @property
    def layers(self) -> tuple[str, ...]:
        """The qualified names of the keyed layers; the masks are a function of them."""
        return tuple(self._layers_by_name)

    def at(
        self,
        step: int | Tensor,
        samples: Any = None,
        copies: Tensor | NDArray[Any] | Sequence[int] | None = None,
    ) -> None:
        """Set the optimizer step and the examples of the batch that comes next.

        It also moves the schedules of the layers, and starts to count calls from 0 again: call it
        before each micro-batch, with the ids of the micro-batch.

        Args:
            step: The number of the optimizer step, in [0, 2^32); or one step for each example, as a
                tensor [b].
            samples: The sample id of each example, in [0, 2^63): a tensor, array or list of length
                b. None stands for 0, 1, 2 and so on. Inside ``torch.func.vmap`` it may be a mapped
                tensor [b]; then call ``at`` again after the vmap.
            copies: Where a batch holds an example several times, which copy of it each one is, in
                [0, 2^16): a tensor, array or list of length b. Copies draw masks of their own, and
                copy 0 draws what the example draws without ``copies``. Ids then have to be below
                2^47.

        Raises:
            InputError: Where ``step``, ``samples`` or ``copies`` is of another type or out of
                range, their lengths differ, a layer has a schedule but each example has a step of
                its own, or the layers of the model are no longer those that were keyed.

        Example:
            >>> import torch
            >>> import thinned
            >>> import thinned.nn as tnn
            >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
            >>> key = thinned.key(model, seed=7)
            >>> key.at(step=3, samples=[10, 11, 10, 11], copies=[0, 0, 1, 1])
            >>> first, second = model(torch.ones(4, 40)).chunk(2)
            >>> bool((first == second).all())
            False
        """
        samples, copies = _without_gradients(samples), _without_gradients(copies)
        step = _without_gradients(step)
        mapped = _is_wrapped(samples) or _is_wrapped(copies)
        if _is_wrapped(step) or (
            mapped and isinstance(step, (list, Tensor)) and torch.as_tensor(step).dim()
        ):
            raise InputError(
                "step has to be one number for the whole batch inside vmap, but got "
                f"{type(step).__name__}; map the sample ids only"
            )
        if not getattr(step, "ndim", 0) and not isinstance(step, (list, tuple, range)):
            step = checked_number("step", step)
        # keys are read, so those of a model on the meta device have values all the same
        devices = (p.device for p in self._model.parameters() if not p.is_meta)
        device = next(devices, torch.device("cpu"))
        # The tensors are used after the modes that surround this call have ended, such as
        # inference mode or a dispatch mode.
        with ops.ordinary_tensors():
            new = self._tensor_key(
                step, None if mapped else samples, None if mapped else copies, device
            )
        levels: set[int] = set()
        if mapped:  # the wrappers are read by operations of the transform that made them
            if self.capturable:
                raise InputError(
                    "a capturable key takes no ids that vmap maps; create the key with "
                    "capturable=False"
                )
            ids = _sample_ids(samples, copies, device)
            levels = mapped_levels(ids)
            new = new._replace(sample_ids=ids)
        self._check_layers()
        if not isinstance(step, int) and any(
            getattr(layer, "schedule", None) is not None for layer in self._layers_by_name.values()
        ):
            raise InputError(
                "a schedule needs one step for the whole batch, but got one for each example; "
                "set the rates by hand"
            )
        if not mapped and isinstance(step, int) and _repeats(new.sample_ids):
            warnings.warn(
                "samples names an example more than once, so its rows draw equal masks; give them "
                "different ones with key.at(step, samples=ids, copies=...), one copy number for "
                "each row",
                UserWarning,
                stacklevel=2,
            )
        self.step = step
        self._current = self._at_fixed_addresses(new)
        self.kept_examples = None
        self._vmap_level = max(levels, default=0)
        for layer in self._layers_by_name.values():
            layer.calls.reset()
            if isinstance(step, int):
                layer.step(step)

    def _tensor_key(
        self, step: int | Tensor, samples: Any, copies: Any, device: torch.device
    ) -> TensorKey:
        sample_ids = _sample_ids(samples, copies, device)
        if isinstance(step, int):
            return TensorKey(torch.tensor([to_int64(self.seed), step], device=device), sample_ids)
        steps = _integers("step", step, 32, device)
        if sample_ids is not None and len(sample_ids) != len(steps):
            raise InputError(
                "step and samples have to be of one length, but got "
                f"{len(steps)} and {len(sample_ids)}"
            )
        sample_ids = torch.stack(
            (torch.arange(len(steps), device=device) if sample_ids is None else sample_ids, steps)
        )
        return TensorKey(torch.tensor([to_int64(self.seed)], device=device), sample_ids)

    def _at_fixed_addresses(self, new: TensorKey) -> TensorKey:
        """``new``; with ``capturable`` written into the present tensors where the shapes agree."""
        old = self._current
        if (
            not self.capturable
            or old is None
            or old.seed_step.shape != new.seed_step.shape
            or old.seed_step.device != new.seed_step.device
        ):
            return new
        if (old.sample_ids is None) != (new.sample_ids is None) or (
            old.sample_ids is not None and old.sample_ids.shape != new.sample_ids.shape  # type: ignore[union-attr]
        ):
            return new
        old.seed_step.copy_(new.seed_step)
        if old.sample_ids is not None:
            old.sample_ids.copy_(new.sample_ids)  # type: ignore[arg-type]
        return old

    def tensor_key(self) -> TensorKey:
        """Return the seed, the step and the sample ids of the present step as tensors.

        Returns:
            The key as a named tuple of tensors, without a stream and a call.

        Raises:
            InputError: Before the first :meth:`at`.
        """
        if self._current is None:
            if self._is_copy:
                raise InputError(
                    "this model is a copy of a keyed model and has a key of its own, which has no "
                    "step yet; call thinned.key_of(copy).at(step, samples=ids) before its forward "
                    "pass, or switch its dropout off with copy.eval()"
                )
            raise InputError(
                "this model has a key, but no step yet; call key.at(step) before the forward pass"
            )
        if self._vmap_level and self._vmap_level > (torch._C._functorch.maybe_current_level() or 0):
            raise InputError(
                "the sample ids of this key were mapped by a vmap that has ended; call "
                "key.at(step, samples=ids) before the next forward pass"
            )
        return self._current if self.kept_examples is None else self._of_kept_examples()

    def _of_kept_examples(self) -> TensorKey:
        current: TensorKey = self._current  # type: ignore[assignment]
        kept, total = self.kept_examples  # type: ignore[misc]
        ids = current.sample_ids
        if ids is None:
            ids = torch.arange(total, device=kept.device)
        return current._replace(sample_ids=ids.to(kept.device).index_select(-1, kept))

    def set_streams(self) -> None:
        """Give every layer the stream of its name, or of the group that it is in."""
        group_of = {layer: group for group, names in self.shared.items() for layer in names}
        for name, layer in self._layers_by_name.items():
            group = group_of.get(name)
            layer.stream = to_int64(stream_of(name if group is None else f"shared:{group}"))

    def remove(self) -> None:
        """Remove the key from the model; its layers draw from torch's generator again."""
        for layer in self._layers_by_name.values():
            layer.model_key = None
        self._layers_by_name = {}

    def state_dict(self) -> dict[str, Any]:
        """Return seed, step, shared streams and the number of the mask contract."""
        shared = {group: list(names) for group, names in self.shared.items()}
        return {"seed": self.seed, "step": self.step, "shared": shared, "contract": CONTRACT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take seed, step and shared streams of a checkpoint; :meth:`at` sets sample ids.

        Args:
            state: What :meth:`state_dict` returned. Without "shared", the present ones are kept.

        Raises:
            InputError: Where the seed or the step is missing, of another type or out of range, a
                stream is shared by a layer that the model does not have, or the state was stored
                under another mask contract.
        """
        missing = [name for name in ("seed", "step") if name not in state]
        if missing:
            raise InputError(
                f"the state of a key has to hold seed and step, but got none for "
                f"{' and '.join(missing)}; pass what key.state_dict() returned"
            )
        check_contract(state, "key")
        shared = checked_groups(state.get("shared", self.shared), self._layers_by_name)
        before, self.seed = self.seed, checked_seed(state["seed"])
        if state["step"] is not None:
            try:
                self.at(state["step"])
            except InputError:
                self.seed = before
                raise
        self.shared = shared
        self.set_streams()

    def _check_layers(self) -> None:
        if not self._layers_by_name:
            raise InputError(
                "this key was removed from its model; create a new one with "
                "thinned.key(model, seed)"
            )
        if all(
            len(children) == len(was) and all(children.get(n) is c for n, c in was)
            for children, was in self._children
        ):
            return
        present = dict(dropout_modules(self._model))
        keyed = self._layers_by_name
        if {n: id(m) for n, m in present.items()} != {n: id(m) for n, m in keyed.items()}:
            gone = sorted(keyed.keys() - present.keys())
            new = sorted(present.keys() - keyed.keys())
            raise InputError(
                "the dropout layers of the model changed after it was given its key (gone: "
                f"{', '.join(gone) or 'none'}; new: "
                f"{', '.join(new) or 'none, but other layers have these names now'}); call "
                "key.remove() and thinned.key(model, seed) again: layers that kept their names "
                "keep their masks"
            )
        self._children = _children(self._model)


def checked_groups(shared: Any, layers: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the groups of layers that share a stream, or raise :class:`thinned.InputError`."""
    rule = (
        "shared has to name the layers of each stream, such as "
        '{"condition": ["encoder.drop", "decoder.drop"]}'
    )
    if shared is None:
        return {}
    if not isinstance(shared, Mapping) or not all(isinstance(name, str) for name in shared):
        raise InputError(f"{rule}, but got {shared!r}")
    groups: dict[str, tuple[str, ...]] = {}
    group_of: dict[str, str] = {}
    for group, names in shared.items():
        is_list = isinstance(names, (list, tuple, set, frozenset))
        if not group or not is_list or not names or not all(isinstance(n, str) for n in names):
            raise InputError(f"{rule}, but got {group!r}: {names!r}")
        for name in names:
            if name not in layers:
                raise InputError(
                    f"shared[{group!r}] names the layer {name!r}, which is no dropout layer of "
                    f"the model; {nearest(name, layers)}"
                )
            if name in group_of:
                raise InputError(
                    f"a layer has one stream, but shared names {name!r} twice, in "
                    f"{group_of[name]!r} and {group!r}; name it once"
                )
            group_of[name] = group
        groups[group] = tuple(sorted(names))
    return groups


def _children(model: nn.Module) -> list[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    """The children of every module as they are now, to see quickly whether a model was changed."""
    return [(m._modules, list(m._modules.items())) for m in model.modules() if m._modules]


def _without_gradients(value: Any) -> Any:
    return without_gradients(value) if isinstance(value, Tensor) else value


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, Tensor) and is_wrapped(value)


def _sample_ids(samples: Any, copies: Any, device: torch.device) -> Tensor | None:
    """The ids with the copy numbers added to their high bits."""
    if samples is None:
        if copies is not None:
            raise InputError(
                "copies tell rows with one sample id apart, but got no samples; write "
                "key.at(step, samples=ids, copies=copies)"
            )
        return None
    if copies is None:
        return _integers("samples", samples, 63, device)
    ids = _integers("samples", samples, COPY, device)
    numbers = _integers("copies", copies, 63 - COPY, device)
    if len(ids) != len(numbers):
        raise InputError(
            f"samples and copies have to be of one length, but got {len(ids)} and {len(numbers)}"
        )
    return without_gradients(ids + (numbers << COPY))


def _repeats(sample_ids: Tensor | None) -> bool:
    """Whether an id comes twice; not known of ids on another device, which would wait for it."""
    if sample_ids is None or sample_ids.device.type != "cpu":
        return False
    return len(set(sample_ids.tolist())) < len(sample_ids)


def _integers(name: str, values: Any, bits: int, device: torch.device) -> Tensor:
    # a copy: the caller may reuse the memory
    return without_gradients(int64_vector(name, values, bits).to(device, copy=True))


def key(
    model: nn.Module,
    seed: int = 0,
    *,
    capturable: bool = False,
    shared: Mapping[str, Sequence[str]] | None = None,
) -> ModelKey:
    """The part of :func:`thinned.key` that reaches thinned's own layers."""
    named = dict(dropout_modules(model))
    if not named:
        raise InputError(
            "this model has no thinned dropout to give a key to; build it with thinned.nn.Dropout"
        )
    for name, layer in named.items():
        if layer.model_key is not None:
            raise InputError(
                f"layer {name!r} has a key already (seed {layer.model_key.seed}); use "
                "thinned.key_of(model), or call its remove() first"
            )
    model_key = ModelKey(model, checked_seed(seed), named, capturable, shared)
    for layer in named.values():
        layer.model_key = model_key
        layer.calls = CallCounter()
    model_key.set_streams()
    return model_key


def step(model: nn.Module, step: int) -> None:
    """Move the schedules of the rates in ``model`` to ``step``.

    It is not needed for keyed models: :meth:`ModelKey.at` already advances schedules.

    Args:
        model: The model.
        step: The number of the optimizer step, at least 0.

    Raises:
        InputError: Where ``step`` is not a whole number of at least 0.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> from thinned.algebra import Linear
        >>> model = torch.nn.Sequential(tnn.Dropout(Linear(0.0, 0.4, steps=100)))
        >>> tnn.step(model, 50)
        >>> model[0].p
        0.2
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError(f"step has to be a whole number of at least 0, but got {step!r}")
    for _, layer in dropout_modules(model):
        layer.step(step)


def key_of(model: nn.Module) -> ModelKey:
    """Return the key of a model, also of a copied or unpickled one.

    Args:
        model: A model that was given a key by :func:`thinned.key`.

    Returns:
        The key.

    Raises:
        InputError: Where the model has no key.

    Example:
        >>> import copy
        >>> import torch
        >>> import thinned
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> original = thinned.key(model, seed=7)
        >>> tnn.key_of(model) is original, tnn.key_of(copy.deepcopy(model)).seed
        (True, 7)
    """
    for _, layer in dropout_modules(model):
        if layer.model_key is not None:
            return layer.model_key
    raise InputError("this model has no key; give it one with thinned.key(model, seed)")
