"""The Triton kernels compared with the reference operators.

They run on a GPU where there is one, and otherwise in the interpreter of Triton.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thinned.engines.torch import ops

pytest.importorskip("triton", reason="Triton is not installed")
GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if GPU else "cpu"
needs_triton = pytest.mark.skipif(
    not (GPU or INTERPRETED), reason="needs a GPU, or TRITON_INTERPRET=1"
)


def test_in_the_interpreter():
    """Run this file again in a separate process, with the interpreter of Triton."""
    if GPU or INTERPRETED:
        pytest.skip("this process runs the kernels itself")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(Path(__file__))],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTEST_XDIST_WORKER": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def noise_arguments(x):
    """Yield arguments of the operators, with every distribution, sharing, ids, steps and offsets.

    (constants, key, sample_ids, strides, axis, distribution, offset, stream, call)
    """
    inner = x.numel() // x.shape[0] if x.numel() else 1
    own = [0, *(inner // int(torch.tensor(x.shape[1 : i + 1]).prod()) for i in range(1, x.dim()))]
    ids = torch.arange(x.shape[0]) * 2**40 + 3
    both = torch.stack((ids, torch.arange(x.shape[0]) + 2**31))
    dropout = ops.pack_constants(int(0.3 * 2**32), 1 / 0.7, 0.0, 0.0, 0.0)
    alpha = ops.pack_constants(int(0.3 * 2**32), 1.2, 0.25, -0.5, 0.0)
    continuous = ops.pack_constants(0, 1.0, 0.0, 0.0, 0.7)
    everything = ops.pack_constants(2**32, 0.0, 0.0, -0.5, 0.0)
    key, step = torch.tensor([-77]), torch.tensor([2**62, 2**32 - 1])
    channels = [0, 1, *([0] * (x.dim() - 2))]
    yield dropout, key, None, own, 0, 0, 0, 0, 0
    yield dropout, step, ids, own, 0, 0, 8, -(2**62), 3
    yield dropout, key, both, own, 0, 0, 1, 5, 0
    yield alpha, step, ids, channels, 0, 0, 0, 5, 2**31
    yield dropout, step, None, [max(n, 1) for n in own], -1, 0, 0, 5, 0
    yield everything, key, None, own, 0, 0, 0, 0, 0
    yield continuous, step, ids, own, 0, 1, 3, 9, 1
    yield continuous, step, both, channels, 0, 2, 0, 9, 1


@needs_triton
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_equals_the_reference(dtype):
    from thinned.engines.torch import triton

    for shape in ((2, 3, 4, 5), (3, 8), (5, 7), (2, 3, 300)):
        x = (
            torch.linspace(-2, 2, max(1, int(torch.tensor(shape).prod())))
            .reshape(shape)
            .to(dtype)
            .to(DEVICE)
        )
        layouts = [x, x.transpose(0, -1).contiguous().transpose(0, -1), x[:, :1].expand(shape)]
        if len(shape) == 4:
            layouts.append(x.contiguous(memory_format=torch.channels_last))
        elif not GPU and dtype != torch.float32:
            continue
        if not GPU and (len(shape) != 4 or dtype != torch.float32):
            layouts = layouts[:1]
        for strided in layouts:
            complete = GPU or (strided is x and len(shape) == 4 and dtype == torch.float32)
            every = 1 if complete else 4  # the interpreter takes 0.2 s a launch
            for noise in list(noise_arguments(strided))[::every]:
                tolerance = 1e-5 if dtype.itemsize > 2 else 2 * torch.finfo(dtype).eps
                # one product is equal to the bit, but the interpreter truncates bfloat16
                one_product = noise[5] == 0 and noise[0][2] == 0
                exact = one_product and (GPU or dtype != torch.bfloat16)
                close = {"rtol": 0 if exact else tolerance, "atol": 0 if exact else tolerance}
                for grad in (True, False):
                    ours, theirs = (
                        triton.map(strided, *noise, grad),
                        ops.reference_map(strided, *noise, grad),
                    )
                    torch.testing.assert_close(ours, theirs, **close)
                    assert torch.equal(ours == 0, theirs == 0)
                torch.testing.assert_close(
                    triton.factor(strided, *noise), ops.reference_factor(strided, *noise), **close
                )
                torch.testing.assert_close(
                    triton.map_add(strided, strided, *noise),
                    ops._reference_map_add(strided, strided, *noise),
                    rtol=tolerance,
                    atol=tolerance,
                )
                into = strided.clone()
                triton.map_into(into, strided, *noise, False)
                assert torch.equal(into, ours)


@needs_triton
def test_dropout_add_norm():
    from thinned.engines.torch import triton

    torch.manual_seed(0)
    x, residual = torch.randn(3, 5, 24, device=DEVICE), torch.randn(3, 5, 24, device=DEVICE)
    weight, bias = torch.randn(24, device=DEVICE), torch.randn(24, device=DEVICE)
    key, ids = torch.tensor([3, 4]), torch.arange(3) + 9
    for threshold, gain in ((int(0.3 * 2**32), 1 / 0.7), (2**32, 0.0), (0, 1.0)):
        constants = ops.pack_constants(threshold, gain, 0.0, 0.0, 0.0)
        y, total, mean, rstd = triton.add_norm(
            x, residual, weight, bias, 1e-5, constants, key, ids, 5, 0
        )
        expected = ops._reference_map_add(
            x, residual, constants, key, ids, [0, 24, 1], 0, 0, 0, 5, 0
        )
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(y, torch.nn.functional.layer_norm(expected, (24,), weight, bias))
        torch.testing.assert_close(mean, expected.mean(-1, keepdim=True))
        torch.testing.assert_close(
            rstd, (expected.var(-1, keepdim=True, correction=0) + 1e-5).rsqrt()
        )


@needs_triton
@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_a_model_on_the_gpu_draws_what_it_draws_on_the_cpu():
    import thinned
    from thinned import nn

    model = torch.nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.3), nn.DropBlock2d(0.2, 3))
    x = torch.rand(4, 3, 16, 16) + 1
    key = thinned.key(model, 2)
    key.at(1, samples=torch.arange(4) + 8)
    expected = model(x)
    key.at(1, samples=torch.arange(4) + 8)
    torch.testing.assert_close(model(x.cuda()).cpu(), expected)
