"""The cost of dropout on this CPU, compared with torch, with ReLU and with a copy.

python benchmarks/dropout.py [--peers]     (--peers: also TensorFlow and JAX, where installed)

All medians, and the minima of narrow rows, are of one run in one process.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as TF

import thinned
from common import write_result
from thinned import functional as F
from thinned import nn
from thinned.algebra import Key
from thinned.engines.torch import native, ops

SHAPES = [(8, 64), (64, 512), (256, 1024), (1024, 1024), (1024, 2048), (4096, 4096)]


def median(run: Callable[[], Any], budget: float = 0.5) -> float:
    """Microseconds for each call."""
    for _ in range(3):
        run()
    start = time.perf_counter()
    run()
    calls = max(1, int(0.01 / max(time.perf_counter() - start, 1e-7)))
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return sorted(times)[len(times) // 2]


def forward_and_backward(
    f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, grad: torch.Tensor
) -> Callable[[], None]:
    leaf = x.clone().requires_grad_()

    def run() -> None:
        leaf.grad = None
        f(leaf).backward(grad)

    return run


def check() -> None:
    """Exit before any timing unless the mask is that of the reference."""
    for shape in SHAPES[:4]:
        x, key = torch.randn(shape), Key(1, samples=torch.arange(shape[0]))
        ours = F.drop(x, thinned.presets.dropout(0.1), key=key)
        if not torch.equal(
            ours, F.drop(x, thinned.presets.dropout(0.1), key=key, impl="reference")
        ):
            raise SystemExit(
                "the native kernel does not draw the mask of the reference; no results"
            )


def table() -> list[dict[str, Any]]:
    rows = []
    for p in (0.1, 0.5):
        for shape in SHAPES:
            x, grad = torch.randn(shape), torch.randn(shape)
            ours, theirs = nn.Dropout(p), torch.nn.Dropout(p)
            keyed = torch.nn.Sequential(nn.Dropout(p))
            key = thinned.key(keyed)
            key.at(0, samples=torch.arange(shape[0]))
            row = {
                "p": p,
                "shape": list(shape),
                "copy": median(x.clone),
                "relu": median(lambda x=x: torch.relu(x)),
                "torch": median(lambda x=x, f=theirs: f(x)),
                "ours": median(lambda x=x, f=ours: f(x)),
                "keyed": median(lambda x=x, f=keyed[0]: f(x)),
                "relu both": median(forward_and_backward(torch.relu, x, grad)),
                "torch both": median(forward_and_backward(theirs, x, grad)),
                "ours both": median(forward_and_backward(ours, x, grad)),
                "keyed both": median(forward_and_backward(keyed[0], x, grad)),
            }
            rows.append(row)
            print(
                f"p {p}  {shape[0]:>5} x {shape[1]:<5} forward: "
                f"{row['torch'] / row['ours']:6.1f} x the speed of F.dropout, "
                f"{row['ours'] / row['relu']:5.2f} x the time of ReLU | forward and backward: "
                f"{row['torch both'] / row['ours both']:6.1f} x the speed, "
                f"{row['ours both'] / row['relu both']:5.2f} x the time of ReLU | keyed "
                f"{row['keyed both'] / row['ours both']:4.2f} x the time",
                flush=True,
            )
    return rows


def narrow_rows() -> list[dict[str, Any]]:
    """The forward pass on 1M elements in short rows: several examples share a register.

    The minimum of interleaved calls, and its ratio to that of rows of 2048.
    """
    count = 2**20
    inputs = {width: torch.randn(count // width, width) for width in (2048, 64, 32, 16, 8, 4, 2, 1)}
    runs: dict[str, Callable[[], Any]] = {
        f"{count // width} x {width}": lambda x=x: F.dropout(x) for width, x in inputs.items()
    }
    line = inputs[1].flatten()
    runs[str(count)] = lambda: F.dropout(line)
    key = Key(1, samples=torch.arange(count // 16))
    runs[f"{count // 16} x 16, with ids"] = lambda: F.drop(
        inputs[16], thinned.presets.dropout(0.5), key=key
    )
    best = dict.fromkeys(runs, math.inf)
    for _ in range(200):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e6)
    wide = best[f"{count // 2048} x 2048"]
    for name, time_of in best.items():
        print(f"narrow rows, {name}: {time_of / wide:.2f} x the time of rows of 2048")
    return [{"rows": name, "ours": t, "ratio": t / wide} for name, t in best.items()]


def into_a_buffer() -> dict[str, float]:
    """Write 16M elements into allocated memory."""
    x = torch.randn(4096, 4096)
    y = torch.zeros_like(x)
    noise = (
        ops.pack_constants(1 << 31, 2.0, 0.0, 0.0, 0.0),
        torch.tensor([3]),
        None,
        [0, 1],
        0,
        0,
        0,
        0,
        0,
    )
    result = {
        "copy_": median(lambda: y.copy_(x)),
        "ours": median(lambda: ops.map_into(y, x, *noise, False)),
    }
    print(f"into a buffer: {result['copy_'] / result['ours']:.0%} of copy_'s bandwidth")
    return result


def compiled() -> list[dict[str, Any]]:
    rows = []
    for shape in SHAPES[1:]:
        x, grad = torch.randn(shape), torch.randn(shape)
        times = {}
        for name, layer in (("torch", torch.nn.Dropout(0.5)), ("ours", nn.Dropout(0.5))):
            torch._dynamo.reset()
            net = torch.compile(torch.nn.Sequential(torch.nn.ReLU(), layer), fullgraph=True)
            times[name] = median(forward_and_backward(net, x, grad))
        rows.append({"shape": list(shape), **times})
        print(
            f"compiled ReLU + dropout {shape[0]} x {shape[1]}: "
            f"{times['torch'] / times['ours']:.2f} x the speed of compiled torch"
        )
    return rows


def saved(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    """Bytes for each element that autograd saves for dropout alone."""
    total = 0

    def pack(t: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += t.numel() * t.element_size()
        return t

    leaf = x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        f(leaf)
    return total / x.numel()


class Block(torch.nn.Module):
    """A transformer block with three dropout layers; attention itself has none."""

    def __init__(self, width: int, make: Callable[[float], torch.nn.Module]) -> None:
        super().__init__()
        self.attend = torch.nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width) for _ in range(2)])
        self.drops = torch.nn.ModuleList([make(0.1) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norms[0](x)
        x = x + self.drops[0](self.attend(h, h, h, need_weights=False)[0])
        return x + self.drops[1](self.down(self.drops[2](torch.relu(self.up(self.norms[1](x))))))


def networks(
    make: Callable[[float], torch.nn.Module],
) -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    mlp: list[torch.nn.Module] = []
    for width in (784, *[1024] * 11):
        mlp += [torch.nn.Linear(width, 1024), torch.nn.ReLU(), make(0.5)]
    cnn = []
    for a, b in ((3, 32), (32, 64), (64, 64)):
        cnn += [
            torch.nn.Conv2d(a, b, 3, padding=1),
            torch.nn.ReLU(),
            make(0.2),
            torch.nn.MaxPool2d(2),
        ]
    return {
        "MLP of 12 layers, batch 128": (
            torch.nn.Sequential(*mlp, torch.nn.Linear(1024, 10)),
            torch.randn(128, 784),
        ),
        "CNN of 3 layers, batch 32": (
            torch.nn.Sequential(*cnn, torch.nn.Flatten(), torch.nn.Linear(64 * 16, 10)),
            torch.randn(32, 3, 32, 32),
        ),
        "transformer of 2 blocks, 16 x 64 tokens": (
            torch.nn.Sequential(Block(128, make), Block(128, make)),
            torch.randn(16, 64, 128),
        ),
    }


def activations(net: torch.nn.Module, x: torch.Tensor) -> int:
    """Bytes of distinct storage that autograd holds between the passes, without parameters."""
    sizes: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = net(x)
    del y
    return sum(sizes.values())


def steps() -> list[dict[str, Any]]:
    kinds: dict[str, Callable[[float], torch.nn.Module]] = {
        "none": lambda p: torch.nn.Identity(),
        "torch": torch.nn.Dropout,
        "ours": nn.Dropout,
    }
    rows = []
    for name in networks(kinds["none"]):
        row: dict[str, Any] = {"network": name}
        for kind, make in kinds.items():
            net, x = networks(make)[name]
            optimizer = torch.optim.SGD(net.parameters(), 1e-3)

            def step(net=net, x=x, optimizer=optimizer) -> None:
                optimizer.zero_grad()
                net(x).square().mean().backward()
                optimizer.step()

            row[kind] = median(step, 2.0)
            row[f"{kind} MiB"] = activations(net, x) / 2**20
        rows.append(row)
        print(
            f"{name}: a step takes {row['ours'] / row['none']:.2f} x the time without dropout, "
            f"with torch {row['torch'] / row['none']:.2f} x; "
            f"saved for backward: none {row['none MiB']:.1f}, ours {row['ours MiB']:.1f}, "
            f"torch {row['torch MiB']:.1f} MiB"
        )
    return rows


def peers() -> list[dict[str, Any]]:
    """The compiled dropout of TensorFlow and JAX on 4M elements, compared with ours and torch."""
    shape = (2048, 2048)
    x = torch.randn(shape)
    rows = [
        {"name": "thinned", "time": median(lambda: F.dropout(x))},
        {"name": "torch", "time": median(lambda: TF.dropout(x))},
    ]
    try:
        import tensorflow as tf

        constant = tf.constant(x.numpy())
        run = tf.function(lambda v: tf.nn.dropout(v, 0.5))
        rows.append(
            {"name": f"tensorflow {tf.__version__}", "time": median(lambda: run(constant).numpy())}
        )
    except ImportError as error:
        print(f"skipped: {error}")
    try:
        import jax

        array = jax.numpy.asarray(x.numpy())
        drop = jax.jit(
            lambda key, v: jax.numpy.where(jax.random.bernoulli(key, 0.5, v.shape), v / 0.5, 0.0)
        )
        key = jax.random.PRNGKey(0)
        rows.append(
            {
                "name": f"jax {jax.__version__}",
                "time": median(lambda: drop(key, array).block_until_ready()),
            }
        )
    except ImportError as error:
        print(f"skipped: {error}")
    for row in rows:
        print(f"{row['name']}: {row['time'] / 1000:.2f} ms")
    return rows


def main() -> None:
    if ops.missing:
        raise SystemExit(ops.missing)
    torch.set_num_threads(2)
    check()
    result: dict[str, Any] = {
        "unit": "microseconds",
        "threads": 2,
        "instructions": native.running(),
        "eager": table(),
    }
    result["narrow rows"] = narrow_rows()
    result["into a buffer"] = into_a_buffer()
    result["compiled"] = compiled()
    x = torch.randn(1024, 1024)
    result["saved bytes an element"] = {
        "thinned": saved(F.dropout, x),
        "thinned, 16k elements": saved(F.dropout, x[:16].contiguous()),
        "torch": saved(TF.dropout, x),
    }
    print("saved, bytes for each element:", result["saved bytes an element"])
    result["training steps"] = steps()
    if "--peers" in sys.argv:
        result["peers"] = peers()
    write_result("dropout", result)


if __name__ == "__main__":
    main()
