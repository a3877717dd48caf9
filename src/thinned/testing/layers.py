"""What every layer has to keep that draws: run it on your own layers too.

    from thinned.testing import LAYER_CHECKS, LayerCase
    for check in LAYER_CHECKS:
        check(LayerCase(lambda: MyLayer(0.5), (torch.randn(8, 16),)))

A check raises AssertionError with what it saw. Layers are hosts (:class:`thinned.nn.module.DropoutModule`) or
hold some. Draws are keyed, so a result never changes from run to run.
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

from .. import nn as dropout_modules
from .._errors import InputError
from ..nn.module import DropoutModule
from ..nn.module import dropout_modules as named_hosts


@dataclass(frozen=True)
class LayerCase:
    """A layer and what it is called with.

    ``build``: makes the layer, with the same weights at every call. ``inputs``: tensors, floating
    point in float32. ``examples``: the axis of the examples in inputs and results, or None where
    draws do not belong to examples. ``exact_gradient``: False where the backward pass is a draw of
    its own. ``differentiable``: False where results are ids. ``rated``: has it a rate ``p`` that
    takes 0 and 1? ``compiles``: False where the result's shape is a draw. ``draws``: False where
    noise is integrated out. ``exports``: False where evaluation cannot be exported.
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

    def held(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The layer in a model, under a name of its own."""
        torch.manual_seed(0)
        return Held(self.build()).to(dtype)

    def given(self, dtype: torch.dtype = torch.float32, learns: bool = False) -> tuple[Any, ...]:
        """The inputs, in ``dtype`` where they are floating point."""
        return tuple(
            x.detach().to(dtype).clone().requires_grad_(learns)
            if isinstance(x, Tensor) and x.is_floating_point()
            else x
            for x in self.inputs
        )

    @property
    def count(self) -> int:
        """How many examples there are."""
        return 0 if self.examples is None else int(self.inputs[0].shape[self.examples])


class Held(nn.Module):
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


def _set(model: nn.Module, p: float) -> None:
    for _, host in named_hosts(model):
        if hasattr(host, "p"):
            host.p = p


def check_zero_rate(case: LayerCase) -> None:
    """At rate 0 a layer is what it is with its noise off."""
    if not case.rated:
        return
    model = case.held()
    _set(model, 0.0)
    drawn = model(*case.given())
    with dropout_modules.off(model):
        _close(drawn, model(*case.given()), "rate 0 is not the layer without its noise")


def check_full_rate(case: LayerCase) -> None:
    """At rate 1 results and gradients are finite, or the rate is refused."""
    if not case.rated:
        return
    model = case.held()
    try:
        _set(model, 1.0)
        inputs = case.given(learns=True)
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
    """Evaluation draws nothing, and gives the same twice; with the noise off training and
    evaluation agree.
    """
    model = case.held().eval()
    before = torch.get_rng_state()
    first = model(*case.given())
    assert torch.equal(torch.get_rng_state(), before), "evaluation takes from torch's generator"
    assert _equal(first, model(*case.given())), "two evaluations differ"
    with dropout_modules.off(model):
        quiet = model(*case.given())
        model.train()
        _close(model(*case.given()), quiet, "with the noise off, training differs from evaluation")


def check_draws(case: LayerCase) -> None:
    """Training draws: another step another result, the same step the same; torch's seed decides
    where there is no key.
    """
    if not case.draws:
        return
    model = case.held()
    torch.manual_seed(5)
    first, second = model(*case.given()), model(*case.given())
    assert not _equal(first, second), "two training passes do not differ"
    torch.manual_seed(5)
    assert _equal(first, model(*case.given())), "the same torch seed gives another result"
    key = dropout_modules.key(model, seed=3)
    key.at(1)
    first = model(*case.given())
    key.at(2)
    assert not _equal(first, model(*case.given())), "two steps draw the same"
    key.at(1)
    before = torch.get_rng_state()
    assert _equal(first, model(*case.given())), "a step that comes again draws anew"
    assert torch.equal(torch.get_rng_state(), before), "a keyed layer takes from torch's generator"


def check_modes(case: LayerCase) -> None:
    """``sampling`` draws in evaluation what training draws; ``frozen`` draws the same twice."""
    model = case.held()
    key = dropout_modules.key(model, seed=4)
    key.at(0)
    drawn = model(*case.given())
    model.eval()
    with dropout_modules.sampling(model):
        key.at(0)
        _close(drawn, model(*case.given()), "sampling in evaluation is not what training draws")
    model.train()
    with dropout_modules.frozen(model):
        assert _equal(model(*case.given()), model(*case.given())), "frozen noise moves"


def check_batch(case: LayerCase) -> None:
    """An example's noise is its own: permuting the batch moves it."""
    if case.examples is None:
        return
    model, ids = case.held(), torch.arange(case.count) * 5 + 2
    key = dropout_modules.key(model, seed=6)
    key.at(1, samples=ids)
    whole = model(*case.given())
    order = torch.arange(case.count - 1, -1, -1)
    key.at(1, samples=ids[order])
    axis = case.examples
    turned = [
        x.index_select(axis, order) if isinstance(x, Tensor) and x.dim() > axis else x
        for x in case.given()
    ]
    if not isinstance(whole, Tensor):
        whole = whole[0]  # the rest is states, whose examples stand on axes of their own
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
    """At a fixed key the gradient is the slope (in float64)."""
    if not case.differentiable or not case.exact_gradient:
        return
    model = case.held(torch.float64)
    key = dropout_modules.key(model, seed=8)
    inputs = case.given(torch.float64, learns=True)
    places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run(*given: Tensor) -> list[Tensor]:
        key.at(1)
        now = list(inputs)
        for place, x in zip(places, given, strict=False):
            now[place] = x
        return [t for t in _tensors(model(*now)) if t.is_floating_point() and t.requires_grad]

    assert torch.autograd.gradcheck(
        run, (*(inputs[i] for i in places), *parameters), fast_mode=True, rtol=1e-3, atol=1e-5
    )


def check_copies(case: LayerCase) -> None:
    """Copies, pickles and checkpoints draw and compute the same."""
    model = case.held()
    key = dropout_modules.key(model, seed=9)
    key.at(4)
    drawn = model(*case.given())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        dropout_modules.key_of(twin).at(4)
        _close(drawn, twin(*case.given()), "a copy draws something else", rtol=0, atol=0)
    other = case.held()
    other.load_state_dict(model.state_dict())
    _close(
        model.eval()(*case.given()),
        other.eval()(*case.given()),
        "a checkpoint evaluates to something else",
    )


def check_compile(case: LayerCase) -> None:
    """A compiled graph without breaks draws what eager code draws, in every step, and has its
    gradients.
    """
    if not case.compiles:
        return
    torch._dynamo.reset()
    model = case.held()
    key = dropout_modules.key(model, seed=10)
    run = torch.compile(model, backend="aot_eager", fullgraph=True)
    for step in (1, 2):
        inputs, twins = (
            case.given(learns=case.differentiable),
            case.given(learns=case.differentiable),
        )
        key.at(step)
        y = run(*inputs)
        key.at(step)
        expected = model(*twins)
        _close(y, expected, "compiled draws something else than eager", rtol=1e-4, atol=1e-5)
        if case.differentiable and case.exact_gradient:
            for result in (y, expected):
                torch.stack(
                    [t.float().square().sum() for t in _tensors(result) if t.requires_grad]
                ).sum().backward()
            _close(
                [x.grad for x in inputs if isinstance(x, Tensor)],
                [x.grad for x in twins if isinstance(x, Tensor)],
                "compiled has other gradients than eager",
                rtol=1e-4,
                atol=1e-5,
            )


def check_export(case: LayerCase) -> None:
    """torch.export in evaluation gives the same function."""
    if not case.exports:
        return
    model = case.held().eval()
    exported = torch.export.export(model, case.given()).module()
    _close(
        exported(*case.given()), model(*case.given()), "the exported layer computes something else"
    )


def check_autocast(case: LayerCase) -> None:
    """Under autocast, and in bfloat16, results and gradients are finite and of the type they have
    without noise.
    """
    for dtype, cast in ((torch.float32, True), (torch.bfloat16, False)):
        model = case.held(dtype)
        inputs = case.given(dtype, learns=case.differentiable)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            y = _tensors(model(*inputs))
            with dropout_modules.off(model):
                quiet = _tensors(model(*case.given(dtype)))
        assert [t.dtype for t in y] == [t.dtype for t in quiet], (
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
    """Strided inputs give what contiguous ones give; a batch of no examples gives one."""
    model = case.held()
    key = dropout_modules.key(model, seed=12)
    key.at(0)
    expected = model(*case.given())
    turned = [
        x.transpose(0, -1).contiguous().transpose(0, -1)
        if isinstance(x, Tensor) and x.dim() > 1
        else x
        for x in case.given()
    ]
    key.at(0)
    _close(expected, model(*turned), "strided inputs draw something else", rtol=1e-4, atol=1e-5)
    if case.examples is not None:
        key.at(0)
        none = [
            x.narrow(case.examples, 0, 0)
            if isinstance(x, Tensor) and x.dim() > case.examples
            else x
            for x in case.given()
        ]
        empty = model(*none)
        assert _tensors(empty)[0].shape[case.examples] == 0


def check_is_found(case: LayerCase) -> None:
    """Tools that look for dropout layers find one, by its name or its base."""
    found = [h for _, h in named_hosts(case.held())]
    assert found, "there is no host"
    assert all(isinstance(h, DropoutModule) for h in found)
    names = [type(h).__name__ for h in found]
    assert any(
        "Drop" in n or isinstance(h, nn.modules.dropout._DropoutNd)
        for n, h in zip(names, found, strict=True)
    ), names


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
    check_is_found,
)
