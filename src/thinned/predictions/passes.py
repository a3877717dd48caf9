"""Runs the passes of a model over one batch, with as little work as their masks allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._errors import InputError
from ..algebra.key import stream_of
from ..algebra.per import EXAMPLE, Block, axes
from ..algebra.scale import KeptFraction
from ..nn.module import DropoutModule
from ..nn.spec_layer import SpecLayer
from ..surgery.foreign import ForeignSites
from ..surgery.model_access import preserve_generators, seed_all, tensors_in
from ..surgery.switching import original_class
from .batches import Inputs
from .draws import Draws
from .replay import Recorder, Recording, Replayer, ReplayError, equal, generator_states

_NUMBERS = 1 << 18  # the size of the inputs of the layers that run for several draws at once
# layers that treat each row by itself in evaluation, whatever the number of rows
_BY_ROW = (
    nn.Linear, nn.Identity, nn.LayerNorm, nn.GroupNorm, nn.Bilinear, nn.PReLU,
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish,
    nn.Hardsigmoid,
)  # fmt: skip
_POOLING = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class Passes:
    """Runs passes of one model.

    Args:
        model: The model, in evaluation, under a context that makes its dropout draw.
        sites: Its sites outside thinned's layers.
        draws: The keys of its own layers.
        seed: The seed of the other sites.
    """

    def __init__(self, model: nn.Module, sites: ForeignSites, draws: Draws, seed: int) -> None:
        self.model, self.draws, self.seed = model, draws, seed
        self.on_draw: Callable[[], None] = _nothing
        self.split = _split(model, sites) if draws.limit > 1 else None
        self.buffers = [
            (name, b, b._version, b.detach().clone()) for name, b in model.named_buffers()
        ]
        self.has_drawn = False

    def begin_batch(self, inputs: Inputs, ids: Tensor, number: int) -> None:
        """Take the inputs of the next batch."""
        self.inputs, self.ids, self.number = inputs, ids, number
        self.hidden: Tensor | None = None
        self.recording: Recording | None = None
        self.recordings = 0
        self.replays = self.split is None
        self.working: Inputs = inputs

    def end_batch(self) -> None:
        """Forget the batch."""
        self.hidden = self.recording = None
        self.draws.end_batch()

    def turn(self, name: str, module: DropoutModule) -> Any:
        """The key of the coming call of one of thinned's own layers."""
        self.on_draw()
        return self.draws.turn(name, module)

    def chunk(self, first: int, end: int) -> int:
        """How many draws from ``first`` on run in the next call."""
        if self.split is None:
            return 1
        numbers = self.hidden.numel() if self.hidden is not None else 1
        together = max(1, min(_NUMBERS // max(numbers, 1), self.draws.limit))
        return min(together, end - first, self.draws.length - first % self.draws.length)

    def prepare(self) -> None:
        """Run the part of the model before its first site, where it is a chain of layers."""
        if self.split is None:
            return
        (x,), named = self.inputs if len(self.inputs[0]) == 1 else ((None,), {"": None})
        if named or not isinstance(x, Tensor):
            self.split, self.replays = None, True
            return
        before = generator_states(self.ids.device)
        x = x.clone()
        for layer in self.split[0]:
            x = layer(x)
        has_rows = isinstance(x, Tensor) and x.dim() and len(x) == len(self.ids)
        if has_rows and equal(before, generator_states(self.ids.device)):
            self.hidden = x
        else:
            self.split, self.replays = None, True

    def run(self, steps: range) -> list[NDArray[Any]]:
        """The leaves of the output for the draws ``steps``, each [draws, b, ...]."""
        self.draws.begin(self.ids, steps)
        self.seed_pass(steps[0])
        before = None if self.has_drawn else generator_states(self.ids.device)
        output = self._run_model(steps) if self.split is None else self._run_rest(len(steps))
        if before is not None:
            after = generator_states(self.ids.device)
            self.has_drawn = self.draws.asked or not equal(before, after)
            if not self.has_drawn:
                raise InputError(
                    "no site of this model drew in the first pass, so all passes would be equal: "
                    "its rates are 0; raise them with thinned.set_rate(model, 0.1), or add dropout "
                    "with thinned.insert or thinned.apply"
                )
        self._check_buffers()
        self.structure = output
        leaves = flatten(output)
        return [self._to_array(leaf, len(steps)) for leaf in leaves]

    def run_once(self) -> list[NDArray[Any]]:
        """The leaves of the output of one pass without noise, each [1, b, ...]."""
        args, named = _cloned(self.inputs)
        self.structure = self.model(*args, **named)
        self._check_buffers()
        return [self._to_array(leaf, 1) for leaf in flatten(self.structure)]

    def seed_pass(self, draw: int) -> None:
        """Seed the generators that other sites draw from."""
        seed_all(stream_of(f"{self.seed} {draw} {self.number}") & (2**63 - 1))

    def _run_rest(self, draws: int) -> Any:
        assert self.split is not None
        assert self.hidden is not None
        x: Any = self.hidden.repeat(draws, *[1] * (self.hidden.dim() - 1))
        for layer in self.split[1]:
            dims = getattr(layer, "dims", None)
            if dims is not None and x.dim() != dims + 2:
                raise InputError(
                    f"{type(layer).__name__} got a tensor of shape {list(x.shape)}, which it reads "
                    f"as one example; pass it {dims + 2} axes, with the examples first"
                )
            x = layer(x)
        return x

    def _run_model(self, steps: range) -> Any:
        recording = self.recording
        if self.replays and recording is None:
            return self._record()
        if self.replays and recording is not None:
            replayer = Replayer(recording)
            self.on_draw = replayer.close
            try:
                if not recording.unchanged:
                    raise ReplayError
                with replayer:
                    args, named = self.working
                    return self.model(*args, **named)
            except ReplayError:
                # layers may do more in their first call for a shape, so one more recording
                self.replays = self.recordings < 2 and recording.unchanged
                self.recording = None
                self.draws.begin(self.ids, steps)
                self.seed_pass(steps[0])
                if self.replays:
                    return self._record()
            finally:
                self.on_draw = _nothing
        args, named = _cloned(self.inputs)
        return self.model(*args, **named)

    def _record(self) -> Any:
        self.working = _cloned(self.inputs)
        self.recordings += 1
        recording = Recording(self.working, self.ids.device)
        recorder = Recorder(recording)
        self.on_draw = recorder.close
        args, named = self.working
        try:
            with recorder:
                output = self.model(*args, **named)
        finally:
            self.on_draw = _nothing
        self.replays = not recording.open and recording.saves_time
        self.recording = recording if self.replays else None
        return output

    def _check_buffers(self) -> None:
        changed = [
            name
            for name, buffer, version, saved in self.buffers
            if buffer._version != version and not torch.equal(buffer, saved)
        ]
        if changed:
            self.restore()
            raise InputError(
                f"a pass of this model changes its own buffers ({', '.join(changed[:3])}), so no "
                "two passes are alike; they are restored. Freeze what writes them, for example "
                "batch normalization without running statistics, before predicting"
            )

    def restore(self) -> None:
        """Give every buffer the values that it had."""
        with torch.no_grad():
            for _, buffer, version, saved in self.buffers:
                if buffer._version != version and not torch.equal(buffer, saved):
                    buffer.copy_(saved)

    def _to_array(self, leaf: Tensor, draws: int) -> NDArray[Any]:
        count = len(self.ids)
        if not leaf.dim() or len(leaf) != draws * count:
            raise InputError(
                f"the outputs of the model have to have one row for each of the {count} examples, "
                f"but got the shape {list(leaf.shape)}; return the examples on the first axis"
            )
        if leaf.dtype in (torch.bfloat16, torch.float16):
            leaf = leaf.float()
        array: NDArray[Any] = leaf.detach().cpu().numpy().reshape(draws, count, *leaf.shape[1:])
        if np.isnan(array).any():
            raise InputError(
                f"the outputs of the model hold NaN in batch {self.number}; look for overflow in "
                "half precision, or for weights that are NaN"
            )
        copied: NDArray[Any] = array.copy()
        return copied


def _nothing() -> None:
    """Nothing is recorded or replayed."""


def _cloned(inputs: Inputs) -> Inputs:
    """The inputs for a pass, which may write into them."""
    cloned: Inputs = torch.utils._pytree.tree_map(
        lambda v: v.clone() if isinstance(v, Tensor) else v, inputs
    )
    return cloned


def flatten(output: Any) -> list[Tensor]:
    """The floating-point tensors of an output, in order; None and other values are left out."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [leaf for value in output.values() for leaf in flatten(value)]
    if isinstance(output, (list, tuple)):
        return [leaf for value in output for leaf in flatten(value)]
    return []


def rebuild(output: Any, leaves: list[Any]) -> Any:
    """The structure of an output with its tensors replaced; mappings become dicts."""
    if isinstance(output, Tensor):
        return leaves.pop(0) if output.is_floating_point() else None
    if isinstance(output, Mapping):
        return {name: rebuild(value, leaves) for name, value in output.items()}
    if isinstance(output, (list, tuple)):
        values = [rebuild(value, leaves) for value in output]
        if hasattr(output, "_fields"):
            return type(output)(*values)
        return values if isinstance(output, list) else tuple(values)
    return None


def _split(model: nn.Module, sites: ForeignSites) -> tuple[list[nn.Module], list[nn.Module]] | None:
    """The layers of a chain before its first site, and the rest if it can run several draws."""
    layers = _chain(model)
    if layers is None:
        return None
    drawing = {id(module) for module in sites.drawing.values()}

    def draws(layer: nn.Module) -> bool:
        return any(isinstance(m, DropoutModule) or id(m) in drawing for m in layer.modules())

    first = next((i for i, layer in enumerate(layers) if draws(layer)), len(layers))
    rest = layers[first:]
    if not rest or not all(_runs_by_row(layer, id(layer) in drawing) for layer in rest):
        return None
    return layers[:first], rest


def _chain(module: nn.Module) -> list[nn.Module] | None:
    """The layers of nested nn.Sequential, in order; None for other modules."""
    is_chain = original_class(module).forward is nn.Sequential.forward
    if not is_chain or "forward" in vars(module) or _has_hooks(module):
        return None
    layers: list[nn.Module] = []
    for child in module.children() if not _repeats(module) else module._modules.values():
        inner = _chain(child) if isinstance(child, nn.Sequential) else None
        layers += [child] if inner is None else inner  # type: ignore[list-item]
    return layers


def _repeats(module: nn.Module) -> bool:
    """Whether a layer comes several times, which ``children`` yields once."""
    return len(set(map(id, module._modules.values()))) < len(module._modules)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _runs_by_row(layer: nn.Module, draws: bool) -> bool:
    """Whether a layer gives the same result for a row, whatever other rows there are."""
    if isinstance(layer, SpecLayer):
        spec = layer.base_spec
        by_example = not isinstance(spec.per, Block) and EXAMPLE in axes(spec.per)
        usual = layer.layout is None and layer.shard is None
        first = spec.of.split()[0] == EXAMPLE
        return by_example and usual and first and not isinstance(spec.scale, KeptFraction)
    if "forward" in vars(layer) or _has_hooks(layer):
        return False
    kind = original_class(layer)
    if kind in _DROPOUTS:
        return True
    if draws:
        return False
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return bool(layer.track_running_stats)
    if kind in (nn.Softmax, nn.LogSoftmax):
        return layer.dim not in (None, 0)
    if kind is nn.Flatten:
        return int(layer.start_dim) == 1  # type: ignore[arg-type]
    return kind in _BY_ROW or kind in _POOLING


def keeping_generators(model: nn.Module, inputs: Any) -> Any:
    """A context that restores the generators that passes over the inputs may draw from."""
    tensors = list(model.parameters())[:1]
    return preserve_generators([*tensors, *tensors_in(inputs)])
