"""The cost of every preset on this CPU, forward and backward, compared with ReLU.

python benchmarks/presets.py [--peers]

With --peers also the layers of timm, torchvision and Keras, where installed: their speed, and their
measured against their nominal rates.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from common import medians_in_turns, write_result
from dropout import forward_and_backward
from thinned import CATALOG, nn
from thinned import functional as F
from thinned.algebra import Block, Classic, Key
from thinned.algebra.per import block_fraction
from thinned.algebra.plan import plan
from thinned.engines.torch import native, ops

SHAPES = {"map": (32, 64, 28, 28), "sequence": (64, 64, 512), "token": (64, 64, 512)}
FLAT = (2048, 1024)


def specs() -> list[dict[str, Any]]:
    rows = []
    for name, row in CATALOG.items():
        if row.make is None or row.place == "weight":
            continue
        x = torch.randn(SHAPES.get(row.place, FLAT))
        spec = row.make(**{row.rate_name: 0.1})
        if not torch.equal(
            F.drop(x[:4], spec, key=Key(1)), F.drop(x[:4], spec, key=Key(1), impl="reference")
        ):
            close = torch.allclose(
                F.drop(x[:4], spec, key=Key(1)),
                F.drop(x[:4], spec, key=Key(1), impl="reference"),
                1e-4,
                1e-5,
            )
            if not close:
                raise SystemExit(
                    f"{name}: the kernel does not draw the noise of the reference; no results"
                )
        layer, grad = nn.SpecDropout(spec), torch.randn_like(x)
        off = nn.SpecDropout(row.make(**{row.rate_name: 0.0}))
        evaluation = nn.SpecDropout(spec).eval()
        if off(x) is not x or (evaluation(x) is not x and spec.scale != Classic()):
            raise SystemExit(
                f"{name}: rate 0 or evaluation does not return the input itself; no results"
            )
        both = medians_in_turns(
            {
                "relu": forward_and_backward(torch.relu, x, grad),
                "ours": forward_and_backward(layer, x, grad),
            },
            1.0,
        )
        quick = medians_in_turns(
            {"rate 0": lambda f=off, x=x: f(x), "evaluation": lambda f=evaluation, x=x: f(x)}, 0.1
        )
        result = {
            "name": name,
            "shape": list(x.shape),
            **both,
            **quick,
            "evaluation is the input": evaluation(x) is x,
        }
        rows.append(result)
        print(
            f"{name:<18} forward and backward {result['ours'] / result['relu']:5.2f} x the time of "
            f"ReLU | at rate 0 {result['rate 0']:.1f} us, evaluation {result['evaluation']:.1f} us",
            flush=True,
        )
    return rows


def measured_rate(
    layer: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], draws: int = 40
) -> float:
    """The fraction of ones that a layer zeroes."""
    torch.manual_seed(0)
    return sum((layer(torch.ones(shape)) == 0).float().mean().item() for _ in range(draws)) / draws


def peers() -> list[dict[str, Any]]:
    """Each layer next to those of other libraries.

    Microseconds forward and backward, and the fraction that is dropped at rate 0.1.
    """
    candidates: dict[str, dict[str, Any]] = {
        "drop path, 64 x 196 x 384": {"ours": nn.DropPath(p=0.1)},
        "DropBlock 7, 32 x 64 x 28 x 28": {"ours": nn.DropBlock2d(0.1, 7)},
        "DropBlock 7, 32 x 64 x 14 x 14": {"ours": nn.DropBlock2d(0.1, 7)},
        "DropBlock 7, 32 x 64 x 7 x 7": {"ours": nn.DropBlock2d(0.1, 7)},
        "spatial, 32 x 64 x 28 x 28": {"ours": nn.Dropout2d(0.1), "torch": torch.nn.Dropout2d(0.1)},
        "alpha, 2048 x 1024": {"ours": nn.AlphaDropout(0.1), "torch": torch.nn.AlphaDropout(0.1)},
        "Gaussian, 2048 x 1024": {"ours": nn.GaussianDropout(0.1)},
    }
    # declares the operators of torchvision for a CPU build of torch
    with contextlib.suppress(ImportError):
        import torchvision_cpu  # noqa: F401
    try:
        import timm
        from timm.layers import DropBlock2d, DropPath

        candidates["drop path, 64 x 196 x 384"][f"timm {timm.__version__}"] = DropPath(0.1)
        for name in candidates:
            if name.startswith("DropBlock"):
                candidates[name][f"timm {timm.__version__}"] = DropBlock2d(0.1, 7)
    except ImportError as error:
        print(f"skipped: {error}")
    try:
        import torchvision

        candidates["drop path, 64 x 196 x 384"][f"torchvision {torchvision.__version__}"] = (
            torchvision.ops.StochasticDepth(0.1, "row")
        )
        for name in candidates:
            if name.startswith("DropBlock"):
                candidates[name][f"torchvision {torchvision.__version__}"] = (
                    torchvision.ops.DropBlock2d(0.1, 7)
                )
    except ImportError as error:
        print(f"skipped: {error}")
    try:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        for name, layer in (
            (
                "spatial, 32 x 64 x 28 x 28",
                keras.layers.SpatialDropout2D(0.1, data_format="channels_first"),
            ),
            ("alpha, 2048 x 1024", keras.layers.AlphaDropout(0.1)),
            ("Gaussian, 2048 x 1024", keras.layers.GaussianDropout(0.1)),
        ):
            candidates[name][f"keras {keras.__version__} on torch"] = lambda x, layer=layer: layer(
                x, training=True
            )
    except ImportError as error:
        print(f"skipped: {error}")
    rows = []
    for name, layers in candidates.items():
        shape = tuple(int(n) for n in name.split(", ")[1].split(" x "))
        x, grad = torch.randn(shape), torch.randn(shape)
        medians = medians_in_turns(
            {"ReLU": forward_and_backward(torch.relu, x, grad)}
            | {w: forward_and_backward(f, x, grad) for w, f in layers.items()}
        )
        row: dict[str, Any] = {"layer": name, "relu": medians["ReLU"]}
        spec = layers["ours"].spec
        if isinstance(spec.per, Block):
            planned = plan(spec, shape)
            row["expected share"] = block_fraction(planned.threshold / 2**32, planned.extent, shape)
        for library, layer in layers.items():
            row[library] = {"both": medians[library]}
            if not name.startswith(("alpha", "Gaussian")):
                row[library]["share"] = measured_rate(layer, shape)
        rows.append(row)
        details = "; ".join(
            f"{library} {v['both'] / row['relu']:.2f} x ReLU"
            + (f", drops {v['share']:.3f}" if "share" in v else "")
            for library, v in row.items()
            if isinstance(v, dict)
        )
        print(
            f"{name}: {details}"
            + (f" (defined: {row['expected share']:.3f})" if "expected share" in row else ""),
            flush=True,
        )
    return rows


def main() -> None:
    if ops.missing:
        raise SystemExit(ops.missing)
    torch.set_num_threads(2)
    result: dict[str, Any] = {
        "unit": "microseconds",
        "threads": 2,
        "instructions": native.running(),
        "specs": specs(),
    }
    if "--peers" in sys.argv:
        result["peers"] = peers()
    write_result("presets", result)


if __name__ == "__main__":
    main()
