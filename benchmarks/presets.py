"""What every point costs on this CPU, forward and backward, beside ReLU; and peers' layers: speed,
and realised against nominal rate.

python benchmarks/presets.py [--peers]     (--peers: timm, torchvision and Keras, where they are
installed)
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from common import keep, turns
from dropout import both_ways
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
        if isinstance(row.fn, str) or row.host == "weight":
            continue
        x = torch.randn(SHAPES.get(row.host, FLAT))
        spec = row.fn(**{row.strength: 0.1})
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
                    f"{name}: the kernel does not draw what the reference draws; no figures"
                )
        layer, grad = nn.Dropout(spec), torch.randn_like(x)
        off, quiet = nn.Dropout(row.fn(**{row.strength: 0.0})), nn.Dropout(spec).eval()
        if off(x) is not x or (quiet(x) is not x and spec.scale != Classic()):
            raise SystemExit(f"{name}: rate 0 or evaluation is not the input itself; no figures")
        both = turns(
            {"relu": both_ways(torch.relu, x, grad), "ours": both_ways(layer, x, grad)}, 1.0
        )
        quick = turns(
            {"rate 0": lambda f=off, x=x: f(x), "evaluation": lambda f=quiet, x=x: f(x)}, 0.1
        )
        result = {
            "name": name,
            "shape": list(x.shape),
            **both,
            **quick,
            "evaluation is the input": quiet(x) is x,
        }
        rows.append(result)
        print(
            f"{name:<18} forward and backward {result['ours'] / result['relu']:5.2f} x ReLU's | at rate 0 "
            f"{result['rate 0']:.1f} us, evaluation {result['evaluation']:.1f} us",
            flush=True,
        )
    return rows


def realised(
    layer: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], draws: int = 40
) -> float:
    """The share of ones that a layer zeroes."""
    torch.manual_seed(0)
    return sum((layer(torch.ones(shape)) == 0).float().mean().item() for _ in range(draws)) / draws


def peers() -> list[dict[str, Any]]:
    """Layer by layer beside whoever has it: microseconds both ways, and the share that falls at
    0.1.
    """
    made: dict[str, dict[str, Any]] = {
        "drop path, 64 x 196 x 384": {"ours": nn.DropPath(p=0.1)},
        "DropBlock 7, 32 x 64 x 28 x 28": {"ours": nn.DropBlock2d(0.1, 7)},
        "DropBlock 7, 32 x 64 x 14 x 14": {"ours": nn.DropBlock2d(0.1, 7)},
        "DropBlock 7, 32 x 64 x 7 x 7": {"ours": nn.DropBlock2d(0.1, 7)},
        "spatial, 32 x 64 x 28 x 28": {"ours": nn.Dropout2d(0.1), "torch": torch.nn.Dropout2d(0.1)},
        "alpha, 2048 x 1024": {"ours": nn.AlphaDropout(0.1), "torch": torch.nn.AlphaDropout(0.1)},
        "Gaussian, 2048 x 1024": {"ours": nn.GaussianDropout(0.1)},
    }
    with contextlib.suppress(
        ImportError
    ):  # declares torchvision's operators beside a CPU build of torch
        import torchvision_cpu  # noqa: F401
    try:
        import timm
        from timm.layers import DropBlock2d, DropPath

        made["drop path, 64 x 196 x 384"][f"timm {timm.__version__}"] = DropPath(0.1)
        for name in made:
            if name.startswith("DropBlock"):
                made[name][f"timm {timm.__version__}"] = DropBlock2d(0.1, 7)
    except ImportError as error:
        print(f"left out: {error}")
    try:
        import torchvision

        made["drop path, 64 x 196 x 384"][f"torchvision {torchvision.__version__}"] = (
            torchvision.ops.StochasticDepth(0.1, "row")
        )
        for name in made:
            if name.startswith("DropBlock"):
                made[name][f"torchvision {torchvision.__version__}"] = torchvision.ops.DropBlock2d(
                    0.1, 7
                )
    except ImportError as error:
        print(f"left out: {error}")
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
            made[name][f"keras {keras.__version__} on torch"] = lambda x, layer=layer: layer(
                x, training=True
            )
    except ImportError as error:
        print(f"left out: {error}")
    rows = []
    for name, layers in made.items():
        shape = tuple(int(n) for n in name.split(", ")[1].split(" x "))
        x, grad = torch.randn(shape), torch.randn(shape)
        medians = turns(
            {"ReLU": both_ways(torch.relu, x, grad)}
            | {w: both_ways(f, x, grad) for w, f in layers.items()}
        )
        row: dict[str, Any] = {"layer": name, "relu": medians["ReLU"]}
        spec = layers["ours"].spec
        if isinstance(spec.per, Block):
            planned = plan(spec, shape)
            row["expected share"] = block_fraction(planned.threshold / 2**32, planned.extent, shape)
        for sample_ids, layer in layers.items():
            row[sample_ids] = {"both": medians[sample_ids]}
            if not name.startswith(("alpha", "Gaussian")):
                row[sample_ids]["share"] = realised(layer, shape)
        rows.append(row)
        shown = "; ".join(
            f"{sample_ids} {v['both'] / row['relu']:.2f} x ReLU"
            + (f", falls {v['share']:.3f}" if "share" in v else "")
            for sample_ids, v in row.items()
            if isinstance(v, dict)
        )
        print(
            f"{name}: {shown}"
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
        "points": specs(),
    }
    if "--peers" in sys.argv:
        result["peers"] = peers()
    keep("presets", result)


if __name__ == "__main__":
    main()
