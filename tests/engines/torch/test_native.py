"""The native kernels compared with the reference and NumPy.

Every instruction set, dtype, layout and noise distribution.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import Bernoulli, Classic, Drop, Key, plan
from thinned.engines import numpy as numpy_engine
from thinned.engines.torch import dispatch, native, ops, tensor_key

needs_native = pytest.mark.skipif(
    bool(ops.missing), reason=ops.missing or "native kernels are installed"
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SPECS = {
    "dropout": presets.dropout(0.3),
    "alpha": presets.alpha_dropout(0.2),
    "gaussian": presets.gaussian_dropout(0.4),
    "uniform": presets.uniform_dropout(0.3),
    "spatial": presets.spatial_dropout(0.4),
    "classic": presets.dropout(0.3, "classic"),
    "time": Drop(Bernoulli(0.4), per="b d", of="b t d", scale=Classic()),
    "batch-tied": Drop(Bernoulli(0.4), per="*"),
    "time-first": Drop(Bernoulli(0.4), per="t b d", of="t b d"),
}
RANK3 = ("time", "time-first")


def shapes(name):
    if name in RANK3:
        return [(5, 7, 33), (1, 3, 2), (4, 130, 1)]
    return [(6, 5, 9, 7), (3, 2, 1, 130), (1, 1, 1, 1), (2, 3, 1100, 1)]


def formats(x):
    """The same values under other strides."""
    yield x
    yield x.transpose(0, -1).contiguous().transpose(0, -1)
    wide = torch.empty((*x.shape, 3), dtype=x.dtype)[..., 1]
    yield wide.copy_(x)
    yield x[:, :1].expand(x.shape)
    if x.dim() == 4:
        yield x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_equals_the_reference(name, dtype, instructions):
    """Values and gradients: Bernoulli to the bit, continuous noise to 1e-5.

    Half types agree to their last place.
    """
    drop = SPECS[name]
    exact = isinstance(drop.law, Bernoulli)
    for shape in shapes(name):
        axis = plan(drop, shape).sample_axis
        ids = None if axis is None else torch.arange(shape[axis]) * 2**40 + 5
        key = Key(2**63 + 9, stream=2**64 - 3, call=2, step=2**32 - 2, samples=ids)
        for x in formats(torch.linspace(-3, 3, math.prod(shape)).reshape(shape).to(dtype)):
            results = []
            for impl in ("native", "reference"):
                leaf = x.detach().requires_grad_()
                y = F.drop(leaf, drop, key=key, impl=impl)
                (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
                quiet = F.drop(x, drop, key=key, impl=impl)
                results.append(
                    (
                        y.detach(),
                        grad,
                        quiet,
                        F.drop(x.clone(), drop, key=key, impl=impl, inplace=True),
                    )
                )
            for ours, theirs in zip(*results, strict=True):
                if exact:
                    assert torch.equal(ours, theirs)
                else:
                    tolerance = 1e-5 if dtype.itemsize > 2 else 2 * torch.finfo(dtype).eps
                    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=2 * tolerance)


def test_every_instruction_set_gives_the_same_bits(instructions):
    """Also for continuous noise: its arithmetic is written once and never contracted."""
    x = torch.linspace(-2, 2, 7 * 1111).reshape(7, 1111)
    for drop in SPECS.values():
        if drop.of not in ("b *",):
            continue
        ours = F.drop(x, drop, key=Key(1), impl="native")
        native.use("portable")
        assert torch.equal(ours, F.drop(x, drop, key=Key(1), impl="native"))
        native.use(instructions)


def test_masks_equal_numpys(instructions):
    for p in (2.0**-16, 0.1, 0.5, 1 - 2.0**-16):
        # the last shape has ties, where the low halves decide
        for shape in ((3, 1), (5, 130), (2, 4097), (1, 700_001)):
            key = Key(-5, stream=7, call=1, step=3, samples=torch.arange(shape[0]) + 2**33)
            planned = plan(presets.dropout(p), shape)
            assert np.array_equal(
                F.mask(presets.dropout(p), shape, key).numpy(), numpy_engine.kept(planned, key)
            )
            x = torch.ones(shape)
            assert np.array_equal(
                F.drop(x, presets.dropout(p), key=key, impl="native").numpy() != 0,
                numpy_engine.kept(planned, key),
            )


# examples of one chunk of registers and of some, whole and not, and too few to be drawn together
NARROW = [(5, 3), (12, 8), (33, 130), (64, 16), (75, 33), (4200, 1), (2100, 2), (700, 7)]
PLACES = {"rows alone": None, "ids": "ids", "ids and steps": "steps"}


def narrow_key(place, examples):
    ids = torch.arange(examples).flip(0) * 2**31 + 2**40 + 7
    if place is None:
        return Key(11, stream=3, call=1, step=2**32 - 2)
    step = 9 if place == "ids" else torch.arange(examples) % 5 + 2**31
    return Key(11, stream=3, call=1, step=step, samples=ids)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_masks_of_narrow_rows_equal_numpys(place, instructions):
    """Every width around those that are drawn together, at rates that low halves decide."""
    for width in range(1, 131):
        examples = 75 if width % 3 else 41
        key = narrow_key(place, examples)
        for p in (2.0**-32, 2.0**-15 + 2.0**-17, 0.3, 1 - 2.0**-32):
            drop = presets.dropout(p)
            ours = F.drop(torch.ones(examples, width), drop, key=key, impl="native")
            kept = numpy_engine.kept(plan(drop, (examples, width)), key)
            assert np.array_equal(ours.numpy() != 0, kept), (width, p)
            assert np.array_equal(F.mask(drop, (examples, width), key).numpy(), kept), (width, p)


def test_ties_of_narrow_rows_equal_numpys(instructions):
    """Among so many elements, the low halves decide some: in every position of a block."""
    for shape in ((300_000, 1), (100_000, 3), (40_000, 16), (7_000, 90)):
        for p in (0.3, 0.7):
            drop = presets.dropout(p)
            ours = F.drop(torch.ones(shape), drop, key=Key(4), impl="native")
            assert np.array_equal(ours.numpy() != 0, numpy_engine.kept(plan(drop, shape), Key(4)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["dropout", "alpha", "gaussian", "uniform"])
def test_narrow_rows_equal_the_reference(name, dtype, instructions):
    """Values, gradients and sums, in every layout, and in place."""
    drop = SPECS[name]
    for shape in NARROW:
        key = narrow_key("steps", shape[0])
        for x in formats(torch.linspace(-3, 3, math.prod(shape)).reshape(shape).to(dtype)):
            results = []
            for impl in ("native", "reference"):
                leaf = x.detach().requires_grad_()
                y = F.drop(leaf, drop, key=key, impl=impl)
                (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
                within = F.drop(x.clone(), drop, key=key, impl=impl, inplace=True)
                results.append((y.detach(), grad, within))
            for ours, theirs in zip(*results, strict=True):
                if isinstance(drop.law, Bernoulli):
                    assert torch.equal(ours, theirs)
                else:
                    tolerance = 1e-5 if dtype.itemsize > 2 else 2 * torch.finfo(dtype).eps
                    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("law", [0, 1, 2])
def test_narrow_rows_that_start_inside_a_block(law, instructions):
    """Offsets of any remainder, a residual, and examples between other axes."""
    constants = ops.pack_constants(
        1 << 30 if law == 0 else 0, 1.5, 0.25 if law == 0 else 0.0, -0.5 if law == 0 else 0.0, 0.3
    )
    close = {"rtol": 1e-5, "atol": 1e-5}
    for width in (1, 2, 5, 8, 21, 96):
        for offset in (1, 2, 7, 13, 40):
            x, residual = torch.randn(3, 50, width), torch.randn(50, 3, width).transpose(0, 1)
            ids = torch.stack((torch.arange(50) * 3, torch.arange(50) + 8))
            for strides in ([width, 0, 1], [2**35 + 5, 0, 1], [0, 0, 1]):
                noise = (constants, torch.tensor([3]), ids, strides, 1, law, offset, -5, 2)
                ours, theirs = (
                    (f(x, *noise, False), g(x, residual, *noise), h(x, *noise))
                    for f, g, h in (
                        (ops.map, ops.map_add, ops.factor),
                        (ops.reference_map, ops._reference_map_add, ops.reference_factor),
                    )
                )
                for a, b in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(a, b, **close)


def test_narrow_rows_give_the_same_bits_alone_and_together(instructions):
    """Few examples are drawn one by one; continuous noise must not differ by a bit there."""
    for name in ("dropout", "gaussian", "uniform"):
        for width in (2, 7, 16, 96):
            x, ids = torch.linspace(-2, 2, 40 * width).reshape(40, width), torch.arange(40)
            whole = F.drop(x, SPECS[name], key=Key(2, samples=ids), impl="native")
            parts = [
                F.drop(x[i : i + 4], SPECS[name], key=Key(2, samples=ids[i : i + 4]), impl="native")
                for i in range(0, 40, 4)
            ]
            assert torch.equal(whole, torch.cat(parts))


@needs_native
def test_a_second_derivative_and_a_gradient_in_place():
    x = torch.randn(
        200, 200, dtype=torch.float64, requires_grad=True
    )  # above the size of the small path
    y = F.drop(x, presets.dropout(0.5), key=Key(3))
    (g,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), x)
    a = F.drop(torch.ones_like(x), presets.dropout(0.5), key=Key(3)).detach()
    torch.testing.assert_close(h, 6 * x * a**3)
    z = F.drop(x * 1.0, presets.dropout(0.5), key=Key(3), inplace=True)
    (g2,) = torch.autograd.grad(z.sum(), x)
    assert torch.equal(g2, a)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        F.drop(x, presets.dropout(0.5), inplace=True)


@needs_native
def test_nothing_but_the_key_is_saved():
    """Mask memory is 0 bytes an element: what autograd keeps does not grow with the tensor."""
    saved: list[int] = []

    def pack(t):
        saved.append(t.numel() * t.element_size())
        return t

    x = torch.randn(512, 512, requires_grad=True)
    for spec in (presets.dropout(0.5), presets.alpha_dropout(0.5), presets.gaussian_dropout(0.5)):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            F.drop(x, spec)
    assert sum(saved) <= 3 * 64
    saved.clear()
    image = torch.randn(8, 16, 32, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        F.drop(image, presets.drop_block(0.1, 5))
    assert sum(saved) <= 64


@needs_native
@pytest.mark.parametrize("randomness", ["same", "different", "error"])
def test_vmap(randomness):
    x = torch.ones(6, 40)
    run = lambda: torch.func.vmap(lambda row: F.dropout(row, 0.5), randomness=randomness)(x)  # noqa: E731
    if randomness == "error":
        with pytest.raises(RuntimeError, match="randomness"):
            run()
        return
    y = run()
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert bool((y == y[0]).all()) == (randomness == "same")


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transforms():
    x, t = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    a = F.drop(torch.ones_like(x), presets.dropout(0.5), key=Key(3))
    f = lambda v: F.drop(v, presets.dropout(0.5), key=Key(3))  # noqa: E731
    y, tangent = torch.func.jvp(f, (x,), (t,))
    assert torch.equal(y, x * a)
    assert torch.equal(tangent, t * a)
    assert torch.equal(torch.func.grad(lambda v: f(v).sum())(x), a)
    hessian = torch.func.hessian(lambda v: f(v).pow(2).sum())(x).reshape(40, 40)
    torch.testing.assert_close(hessian, torch.diag(2 * a.flatten() ** 2))
    f = lambda v: F.drop(v, presets.alpha_dropout(0.3), key=Key(3))  # noqa: E731
    assert torch.equal(torch.func.vmap(f)(x.unsqueeze(0))[0], f(x))


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operators_keep_their_promises():
    """Schemas, fakes and autograd, as torch's own checker sees them."""
    x = torch.randn(4, 6, requires_grad=True)
    constants = ops.pack_constants(1 << 31, 2.0, 0.0, 0.0, 0.0)
    sample_ids = torch.arange(4)
    noise = (constants, torch.tensor([3, 1]), sample_ids, [0, 1], 0, 0, 0, 5, 0)
    torch.library.opcheck(ops.apply, (x, *noise, False))
    plain = x.detach()
    for op, args in (
        (ops.map, (plain, *noise, False)),
        (ops.factor, (plain, *noise)),
        (ops.map_add, (plain, plain, *noise)),
    ):
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(
        ops.map_into,
        (plain.clone(), plain, *noise, False),
        test_utils=("test_schema", "test_faketensor"),
    )


@needs_native
@pytest.mark.parametrize("law", [0, 1, 2])
def test_reference_operators_equal_the_native_ones(law):
    """The operators' own Python kernels, which serve devices without native ones."""
    x = torch.randn(6, 5, 9)
    constants = ops.pack_constants(
        1 << 30 if law == 0 else 0, 1.5, 0.25 if law == 0 else 0.0, -0.5 if law == 0 else 0.0, 0.3
    )
    sample_ids = torch.stack((torch.arange(5) * 3, torch.arange(5) + 8))
    for strides, axis in (
        ([45, 0, 1], 1),
        ([9, 0, 1], 1),
        ([0, 0, 1], 1),
        ([0, 0, 0], 1),
        ([45, 9, 1], -1),
    ):
        noise = (
            constants,
            torch.tensor([3]),
            sample_ids if axis >= 0 else None,
            strides,
            axis,
            law,
            13,
            -5,
            2,
        )
        torch.testing.assert_close(
            ops.map(x, *noise, False), ops.reference_map(x, *noise, False), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            ops.factor(x, *noise), ops.reference_factor(x, *noise), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            ops.map_add(x, x, *noise), ops._reference_map_add(x, x, *noise), rtol=1e-5, atol=1e-5
        )


def test_the_scale_is_exactly_unbiased():
    """E[a] = q gain + 0 = 1 exactly at the rate of the threshold, in rational numbers.

    From p = 2^-16 to 1 - 2^-16.
    """
    from fractions import Fraction

    for p in [2.0**-16, 2.0**-10, 1e-3, 0.1, 1 / 3, 0.5, 0.7, 0.9, 0.999, 1 - 2.0**-16]:
        planned = plan(presets.dropout(p), (4, 4))
        q = 1 - Fraction(planned.threshold, 2**32)
        assert abs(q * Fraction(planned.gain) - 1) < Fraction(
            1, 2**52
        )  # the rounding of one double
        assert abs(planned.threshold / 2**32 - p) <= 2.0**-33


@needs_native
def test_bad_calls_are_refused():
    x = torch.ones(3, 4)
    constants = ops.pack_constants(1 << 31, 2.0, 0.0, 0.0, 0.0)
    with pytest.raises(
        RuntimeError, match="samples has to name each of the 3 examples, but got 2 ids"
    ):
        ops.map(x, constants, torch.tensor([1]), torch.arange(2), [0, 1], 0, 0, 0, 0, 0, False)
    with pytest.raises(RuntimeError, match="strides has to have one number for each axis"):
        ops.map(x, constants, torch.tensor([1]), None, [1], 0, 0, 0, 0, 0, False)
    with pytest.raises(RuntimeError, match="key has to be a contiguous int64"):
        ops.map(x, constants, torch.tensor([1.0]), None, [0, 1], 0, 0, 0, 0, 0, False)
    with pytest.raises(
        InputError, match=r"impl=.native. cannot run: the kernels do not take torch\.complex64"
    ):
        F.drop(x.to(torch.complex64), presets.dropout(), impl="native")
    with pytest.raises(InputError, match="impl='triton' does not run on cpu"):
        F.drop(x, presets.dropout(), impl="triton")
    with pytest.raises(InputError, match="unknown impl 'nativ'"):
        F.drop(x, presets.dropout(), impl="nativ")


def test_environment_chooses():
    code = "import torch; from thinned.functional import explain; print(explain(torch.ones(2)))"
    for name, start in (("reference", "reference: requested"), ("nonsense", None)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"THINNED_IMPL": name},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if start:
            assert done.stdout.startswith(start)
        else:
            assert "unknown THINNED_IMPL 'nonsense'" in done.stderr


@needs_native
def test_explain():
    assert F.explain(torch.ones(2)) == f"native ({native.running()}): the fastest for this tensor"


def test_keys_read_back():
    for key in (
        Key(5),
        Key(2**64 - 1, 2**63, 4, 9, torch.arange(3)),
        Key(1, step=torch.tensor([4, 5]), samples=torch.tensor([7, 8])),
    ):
        back = tensor_key.to_key(tensor_key.from_key(key))
        assert back.seed & (2**64 - 1) == key.seed
        assert back.stream & (2**64 - 1) == key.stream
        assert back.call == key.call
        for ours, theirs in ((back.step, key.step), (back.samples, key.samples)):
            assert torch.equal(
                torch.as_tensor(-1 if ours is None else ours),
                torch.as_tensor(-1 if theirs is None else theirs),
            )


def test_small_and_large_tensors_draw_the_same(monkeypatch):
    """The stored factor of small tensors is the map of large ones."""
    x = torch.randn(40, 50, requires_grad=True)
    results = []
    for limit in (0, 1 << 20):
        monkeypatch.setattr(dispatch, "SMALL", limit)
        y = F.drop(x, presets.dropout(0.3), key=Key(2))
        results.append((y.detach(), *torch.autograd.grad(y.sum(), x)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_does_not_remember_the_mode_it_was_made_in():
    """A rate first used under a mode, a transform or another default device is an ordinary rate
    afterwards.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from thinned import nn

    def use(p):
        x = torch.ones(300, 300, requires_grad=True)
        for f in (nn.Dropout(p), lambda t: F.dropout(t, p)):
            y = f(x)
            y.sum().backward()
            assert 0.5 * p < (y == 0).float().mean() < 2 * p
            assert (F.dropout(torch.ones(40, 40), p) == 0).any()

    with torch.device("meta"):
        made = nn.Dropout(0.371)
        F.dropout(torch.ones(4, 4, device="cpu"), 0.371)
    assert (made(torch.ones(40, 40)) == 0).any()
    use(0.371)
    with FakeTensorMode():
        assert F.dropout(torch.empty(4, 4), 0.372).shape == (4, 4)
        assert nn.Dropout(0.372)(torch.empty(300, 300)).shape == (300, 300)
    use(0.372)
    with torch.inference_mode():
        F.dropout(torch.ones(200, 200), 0.373)
        nn.Dropout(0.373)(torch.ones(4))
    use(0.373)
    torch.func.grad(lambda x: F.dropout(x, 0.374).sum())(torch.ones(10, 10))
    use(0.374)
    rate = torch.tensor(0.1)
    F.dropout(torch.ones(10), rate)
    rate.fill_(1.0)
    assert not F.dropout(torch.ones(10), rate).any()


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_writing_in_place_is_seen_and_checked():
    w, x = torch.ones(100, 100, requires_grad=True), torch.ones(100, 100)
    y = w * x
    F.dropout(x, 0.5, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="refers to a single memory location"):
        F.dropout(torch.ones(100, 1).expand(100, 100), 0.5, inplace=True)
    leaf = torch.ones(300, 300, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        F.dropout(leaf, 0.5, inplace=True)
    assert torch.equal(leaf.detach(), torch.ones(300, 300))
    view = torch.randn(200, 200, dtype=torch.complex64).conj().imag
    expected = F.drop(view.clone(), presets.dropout(0.5), key=Key(3))
    assert torch.equal(F.drop(view, presets.dropout(0.5), key=Key(3), inplace=True), expected)


def test_traces_hold_no_draw_under_a_key():
    def trace(**arguments):
        return torch.jit.trace(
            lambda t: F.drop(t, presets.dropout(0.5), **arguments) + 1,
            torch.ones(4),
            check_trace=False,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's own: deprecated, and values it reads
        with pytest.raises(InputError, match=r"trace would store the masks of one key"):
            trace(key=Key(3))
        traced = trace(mode="off")
    assert torch.equal(traced(torch.ones(4)), torch.full((4,), 2.0))


@pytest.mark.parametrize("samples", [torch.arange(4)[None], torch.tensor(3), torch.ones(4)])
def test_samples_are_a_list_of_whole_numbers(samples):
    with pytest.raises(InputError, match="samples has to be a 1-d tensor of integers"):
        F.drop(torch.ones(4, 6), presets.dropout(0.5), key=Key(0, samples=samples))


def test_blocks_under_transforms():
    block = presets.drop_block(0.3, 3)
    x = torch.randn(2, 3, 8, 8)
    g = torch.func.grad(lambda t: F.drop(t, block, key=Key(1)).sum())(x)
    torch.testing.assert_close(g, F.drop(torch.ones_like(x), block, key=Key(1)))


@needs_native
@pytest.mark.parametrize("spec", ["dropout", "gaussian", "block"])
def test_threads_do_not_change_a_bit(spec):
    """Forward and backward, in one part and in parts of several threads."""
    drop = presets.drop_block(0.2, 3) if spec == "block" else SPECS[spec]
    given = torch.randn(6, 16, 80, 80)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = given.clone().requires_grad_()
            y = F.drop(x, drop, key=Key(5))
            y.backward(given)
            seen.append((y.detach(), x.grad))
    finally:
        torch.set_num_threads(before)
    for y, grad in seen[1:]:
        assert torch.equal(y, seen[0][0])
        assert torch.equal(grad, seen[0][1])
    assert seen[0][0].ne(given).any()
