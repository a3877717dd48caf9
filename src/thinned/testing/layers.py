"""The contract of dropout layers, as checks to run on layers of your own.

    from thinned.testing import LAYER_CHECKS, LayerCase

    case = LayerCase(lambda: MyLayer(0.5), (torch.randn(8, 16),))
    for check in LAYER_CHECKS:
        check(case)

A check raises AssertionError with what it found. Layers are dropout modules
(:class:`thinned.nn.DropoutModule`) or contain some. All draws are keyed or seeded, so a result
never changes from run to run.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .. import nn as tnn
from .._errors import InputError
from ..nn import modes
from ..nn.keys import key as assign_key
from ..nn.module import dropout_modules


@dataclass(frozen=True)
class LayerCase:
    """A layer to check, and the inputs to call it with.

    Args:
        build: Builds the layer, with the same weights at every call.
        inputs: The arguments of the layer; floating-point tensors are float32.
        examples: The axis of the examples in inputs and results, or None where draws are not keyed
            by sample ids.
        exact_gradient: False where the backward pass is not the derivative of the forward pass.
        differentiable: False where the results are ids.
        rated: Whether it has a rate ``p`` that can be set to 0 and 1.
        compiles: False where the shape of the result is random.
        exports: False where evaluation cannot be exported.
        draws: False where the noise is integrated out instead of drawn.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> case = LayerCase(lambda: tnn.Dropout(0.5), (torch.ones(4, 3),))
        >>> case.example_count
        4
        >>> check_evaluation(case)
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    examples: int | None = 0
    exact_gradient: bool = True
    differentiable: bool = True
    rated: bool = True
    compiles: bool = True
    exports: bool = True
    draws: bool = True

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Build a model of this layer, which has the name ``"layer"`` in it.

        Args:
            dtype: The dtype of its parameters.

        Returns:
            The model, in training mode.
        """
        torch.manual_seed(0)
        return OneLayerModel(self.build()).to(dtype)

    def copy_inputs(
        self, dtype: torch.dtype = torch.float32, requires_grad: bool = False
    ) -> tuple[Any, ...]:
        """Copy the inputs.

        Args:
            dtype: The dtype of floating-point tensors.
            requires_grad: Whether floating-point tensors require gradients.

        Returns:
            The arguments of the layer.
        """
        return tuple(
            x.detach().to(dtype).clone().requires_grad_(requires_grad)
            if isinstance(x, Tensor) and x.is_floating_point()
            else x
            for x in self.inputs
        )

    @property
    def example_count(self) -> int:
        """The number of examples; 0 where draws are not keyed by sample ids."""
        return 0 if self.examples is None else int(self.inputs[0].shape[self.examples])


class OneLayerModel(nn.Module):
    """A model of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        return self.layer(*inputs)


def _tensors(result: Any) -> list[Tensor]:
    return [t for t in tree_leaves(result) if isinstance(t, Tensor)]


def _equal(a: Any, b: Any) -> bool:
    x, y = _tensors(a), _tensors(b)
    return len(x) == len(y) and all(
        s.shape == t.shape and torch.equal(s, t) for s, t in zip(x, y, strict=True)
    )


def _close(
    a: Any, b: Any, message: str, rtol: float | None = None, atol: float | None = None
) -> None:
    x, y = _tensors(a), _tensors(b)
    assert len(x) == len(y), message
    for s, t in zip(x, y, strict=True):
        torch.testing.assert_close(
            s, t, msg=lambda seen: f"{message}: {seen}", rtol=rtol, atol=atol
        )


def _set_rates(model: nn.Module, p: float) -> None:
    for _, module in dropout_modules(model):
        if hasattr(module, "p"):
            module.p = p


def check_zero_rate(case: LayerCase) -> None:
    """At rate 0 a layer computes what it computes with its noise off."""
    if not case.rated:
        return
    model = case.model()
    _set_rates(model, 0.0)
    drawn = model(*case.copy_inputs())
    with modes.off(model):
        _close(
            drawn, model(*case.copy_inputs()), "rate 0 differs from the layer with its noise off"
        )


def check_full_rate(case: LayerCase) -> None:
    """At rate 1 results and gradients are finite, or the rate raises an error."""
    if not case.rated:
        return
    model = case.model()
    try:
        _set_rates(model, 1.0)
        inputs = case.copy_inputs(requires_grad=True)
        y = model(*inputs)
    except InputError:
        return
    for t in _tensors(y):
        assert not t.is_floating_point() or t.isfinite().all(), (
            "rate 1 gives results that are not finite"
        )
        if t.requires_grad:
            t.sum().backward(retain_graph=True)
    for x in [*inputs, *model.parameters()]:
        if isinstance(x, Tensor) and x.grad is not None:
            assert x.grad.isfinite().all(), "rate 1 gives gradients that are not finite"


def check_evaluation(case: LayerCase) -> None:
    """Evaluation draws nothing; with the noise off training and evaluation agree."""
    model = case.model().eval()
    before = torch.get_rng_state()
    first = model(*case.copy_inputs())
    assert torch.equal(torch.get_rng_state(), before), "evaluation takes from torch's generator"
    assert _equal(first, model(*case.copy_inputs())), "two evaluations differ"
    with modes.off(model):
        without_noise = model(*case.copy_inputs())
        model.train()
        _close(
            model(*case.copy_inputs()),
            without_noise,
            "with the noise off, training differs from evaluation",
        )


def check_draws(case: LayerCase) -> None:
    """Training draws as the step of the key says, or without a key as torch's seed does."""
    if not case.draws:
        return
    model = case.model()
    torch.manual_seed(5)
    first, second = model(*case.copy_inputs()), model(*case.copy_inputs())
    assert not _equal(first, second), "two training passes do not differ"
    torch.manual_seed(5)
    assert _equal(first, model(*case.copy_inputs())), "the same torch seed gives another result"
    key = assign_key(model, seed=3)
    key.at(1)
    first = model(*case.copy_inputs())
    key.at(2)
    assert not _equal(first, model(*case.copy_inputs())), "two steps draw the same mask"
    key.at(1)
    before = torch.get_rng_state()
    assert _equal(first, model(*case.copy_inputs())), "the same step draws another mask"
    assert torch.equal(torch.get_rng_state(), before), "a keyed layer takes from torch's generator"


def check_modes(case: LayerCase) -> None:
    """``sampling`` draws in evaluation what training draws; ``frozen`` repeats one draw."""
    model = case.model()
    key = assign_key(model, seed=4)
    key.at(0)
    drawn = model(*case.copy_inputs())
    model.eval()
    with modes.sampling(model):
        key.at(0)
        _close(
            drawn, model(*case.copy_inputs()), "sampling in evaluation is not what training draws"
        )
    model.train()
    with modes.frozen(model):
        assert _equal(model(*case.copy_inputs()), model(*case.copy_inputs())), (
            "two calls under frozen differ"
        )


def check_batch(case: LayerCase) -> None:
    """The noise of an example is keyed by its sample id: permuting the batch permutes the noise."""
    if case.examples is None:
        return
    model, ids = case.model(), torch.arange(case.example_count) * 5 + 2
    key = assign_key(model, seed=6)
    key.at(1, samples=ids)
    whole = model(*case.copy_inputs())
    order = torch.arange(case.example_count - 1, -1, -1)
    key.at(1, samples=ids[order])
    axis = case.examples
    turned = [
        x.index_select(axis, order) if isinstance(x, Tensor) and x.dim() > axis else x
        for x in case.copy_inputs()
    ]
    if not isinstance(whole, Tensor):
        whole = whole[0]  # the rest is states, with the examples on another axis
    moved = model(*turned)
    moved = moved if isinstance(moved, Tensor) else moved[0]
    _close(
        whole.index_select(axis, order),
        moved,
        "permuting the batch changes what examples draw",
        rtol=1e-4,
        atol=1e-5,
    )


def check_gradient(case: LayerCase) -> None:
    """At a fixed key the gradient is the derivative of the result (in float64)."""
    if not case.differentiable or not case.exact_gradient:
        return
    model = case.model(torch.float64)
    key = assign_key(model, seed=8)
    inputs = case.copy_inputs(torch.float64, requires_grad=True)
    places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run(*changed: Tensor) -> list[Tensor]:
        key.at(1)
        now = list(inputs)
        for place, x in zip(places, changed, strict=False):
            now[place] = x
        return [t for t in _tensors(model(*now)) if t.is_floating_point() and t.requires_grad]

    assert torch.autograd.gradcheck(
        run, (*(inputs[i] for i in places), *parameters), fast_mode=True, rtol=1e-3, atol=1e-5
    )


def check_copies(case: LayerCase) -> None:
    """Copies, pickles and checkpoints draw and compute the same."""
    model = case.model()
    key = assign_key(model, seed=9)
    key.at(4)
    drawn = model(*case.copy_inputs())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for duplicate in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        tnn.key_of(duplicate).at(4)
        _close(drawn, duplicate(*case.copy_inputs()), "a copy draws another mask", rtol=0, atol=0)
    other = case.model()
    other.load_state_dict(model.state_dict())
    _close(
        model.eval()(*case.copy_inputs()),
        other.eval()(*case.copy_inputs()),
        "a checkpoint evaluates to another result",
    )


def check_compile(case: LayerCase) -> None:
    """A compiled graph without breaks has the draws and gradients of eager code, in every step."""
    if not case.compiles:
        return
    torch._dynamo.reset()
    model = case.model()
    key = assign_key(model, seed=10)
    run = torch.compile(model, backend="aot_eager", fullgraph=True)
    for step in (1, 2):
        inputs, twins = (
            case.copy_inputs(requires_grad=case.differentiable),
            case.copy_inputs(requires_grad=case.differentiable),
        )
        key.at(step)
        y = run(*inputs)
        key.at(step)
        expected = model(*twins)
        _close(
            y, expected, "compiled code draws another mask than eager code", rtol=1e-4, atol=1e-5
        )
        if case.differentiable and case.exact_gradient:
            for result in (y, expected):
                torch.stack(
                    [t.float().square().sum() for t in _tensors(result) if t.requires_grad]
                ).sum().backward()
            _close(
                [x.grad for x in inputs if isinstance(x, Tensor)],
                [x.grad for x in twins if isinstance(x, Tensor)],
                "compiled code has other gradients than eager code",
                rtol=1e-4,
                atol=1e-5,
            )


def check_export(case: LayerCase) -> None:
    """A model exported by torch.export in evaluation computes the same."""
    if not case.exports:
        return
    model = case.model().eval()
    exported = torch.export.export(model, case.copy_inputs()).module()
    _close(
        exported(*case.copy_inputs()),
        model(*case.copy_inputs()),
        "the exported layer computes another result",
    )


def check_autocast(case: LayerCase) -> None:
    """Under autocast and in bfloat16 all is finite, and dtypes are those without noise."""
    for dtype, cast in ((torch.float32, True), (torch.bfloat16, False)):
        model = case.model(dtype)
        inputs = case.copy_inputs(dtype, requires_grad=case.differentiable)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            y = _tensors(model(*inputs))
            with modes.off(model):
                without_noise = _tensors(model(*case.copy_inputs(dtype)))
        assert [t.dtype for t in y] == [t.dtype for t in without_noise], (
            "the noise changes the type of the result"
        )
        for t in y:
            assert not t.is_floating_point() or t.isfinite().all(), (
                f"{dtype} gives results that are not finite"
            )
            if t.requires_grad:
                t.float().sum().backward(retain_graph=True)
        assert all(
            x.grad is None or x.grad.isfinite().all() for x in inputs if isinstance(x, Tensor)
        )


def check_layouts(case: LayerCase) -> None:
    """Strided inputs give what contiguous ones give; an empty batch gives an empty result."""
    model = case.model()
    key = assign_key(model, seed=12)
    key.at(0)
    expected = model(*case.copy_inputs())
    turned = [
        x.transpose(0, -1).contiguous().transpose(0, -1)
        if isinstance(x, Tensor) and x.dim() > 1
        else x
        for x in case.copy_inputs()
    ]
    key.at(0)
    _close(expected, model(*turned), "strided inputs draw another mask", rtol=1e-4, atol=1e-5)
    if case.examples is not None:
        key.at(0)
        none = [
            x.narrow(case.examples, 0, 0)
            if isinstance(x, Tensor) and x.dim() > case.examples
            else x
            for x in case.copy_inputs()
        ]
        empty = model(*none)
        assert _tensors(empty)[0].shape[case.examples] == 0


def check_meta(case: LayerCase) -> None:
    """Tensors of the meta device give those of the shapes and dtypes of real ones, keyed or not."""
    if not case.compiles:
        return
    inputs = [x.to("meta") if isinstance(x, Tensor) else x for x in case.copy_inputs()]
    real, model = case.model(), case.model().to("meta")
    for keyed in (False, True):
        if keyed:
            ids = None if case.examples is None else range(case.example_count)
            assign_key(model, seed=13).at(0, samples=ids)
        for training in (True, False):
            results = _tensors(model.train(training)(*inputs))
            expected = _tensors(real.train(training)(*case.copy_inputs()))
            assert all(t.is_meta for t in results), "a meta tensor gives one with values"
            assert [(t.shape, t.dtype) for t in results] == [
                (t.shape, t.dtype) for t in expected
            ], "a meta tensor gives another shape or dtype"


def check_is_found(case: LayerCase) -> None:
    """Tools that search a model for dropout layers find this one, by its base class."""
    found = [name for name, _ in dropout_modules(case.model())]
    assert found, (
        "the layer is no thinned.nn.DropoutModule and contains none, so keys and modes do not "
        "reach it"
    )


LAYER_CHECKS: tuple[Callable[[LayerCase], None], ...] = (
    check_zero_rate,
    check_full_rate,
    check_evaluation,
    check_draws,
    check_modes,
    check_batch,
    check_gradient,
    check_copies,
    check_compile,
    check_export,
    check_autocast,
    check_layouts,
    check_meta,
    check_is_found,
)
