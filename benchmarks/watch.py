"""The overhead of ``thinned.watch`` in a training loop, at its default budget.

``python benchmarks/watch.py``: a small MLP, CNN and transformer train on the CPU, watched and
unwatched in alternating order, from one seed. First comes the parity: after all steps the weights,
the state of the optimizer and the generator of torch are equal bit by bit; otherwise nothing is
reported. Then come the time of a step, the median over the pairs of runs, and the overhead, the
median of their ratios. The target is 3 % of a step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import thinned
from common import write_result

TARGET = 0.03


class Tokens(nn.Module):
    """A transformer encoder that classifies sequences."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 256, 0.1, batch_first=True)
        self.words, self.encoder, self.last = (
            nn.Embedding(200, 128),
            nn.TransformerEncoder(layer, 2),
            nn.Linear(128, 10),
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.encoder(self.words(ids)).mean(1))  # [b, 10]


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(256, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 10),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.1),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(1024, 10),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], Tensor]]] = {
    "MLP 256-512-512-10, batch 128": (mlp, lambda g: torch.randn(128, 256, generator=g)),
    "CNN 3-32-64, 32 x 32, batch 32": (cnn, lambda g: torch.randn(32, 3, 32, 32, generator=g)),
    "transformer 2 x 128, 32 tokens, batch 32": (
        Tokens,
        lambda g: torch.randint(0, 200, (32, 32), generator=g),
    ),
}


def run(name: str, steps: int, watched: bool) -> tuple[float, list[Tensor], Any]:
    """(seconds, all tensors that training changes, the watch)."""
    build, batch = MODELS[name]
    torch.manual_seed(0)
    model, generator = build(), torch.Generator().manual_seed(1)
    batches = [
        (batch(generator), torch.randint(0, 10, (len(batch(generator)),), generator=generator))
        for _ in range(4)
    ]
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    watch = thinned.watch(model, loss=F.cross_entropy) if watched else None
    start = time.perf_counter()
    for number in range(steps):
        x, y = batches[number % len(batches)]
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        if watch is not None:
            watch.step(x, y, loss=loss)
    seconds = time.perf_counter() - start
    states = [t for state in opt.state.values() for t in state.values()]
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return seconds, [*model.state_dict().values(), *states, *grads, torch.get_rng_state()], watch


def measure(name: str, steps: int, pairs: int) -> dict[str, Any]:
    """Time pairs of runs, in alternating order."""
    for watched in (False, True):
        run(name, 5, watched)  # warm
    times: dict[bool, list[float]] = {False: [], True: []}
    samples, spent = [], []
    for number in range(pairs):
        ends = {}
        for watched in (number % 2 == 0, number % 2 != 0):
            seconds, ends[watched], watch = run(name, steps, watched)
            times[watched].append(seconds)
            if watch is not None:
                samples.append(len(watch.history))
                spent.append(watch.overhead)
        if not all(torch.equal(a, b) for a, b in zip(ends[False], ends[True], strict=True)):
            sys.exit(f"{name}: the watched run differs from the unwatched one; nothing is reported")
    ratios = [w / u for w, u in zip(times[True], times[False], strict=True)]
    return {
        "step, ms": round(statistics.median(times[False]) / steps * 1e3, 3),
        "watched, ms": round(statistics.median(times[True]) / steps * 1e3, 3),
        "overhead": round(statistics.median(ratios) - 1, 4),
        "overheads": [round(r - 1, 4) for r in sorted(ratios)],
        "reported by the watch": round(statistics.median(spent), 4),
        "samples": statistics.median(samples),
        "steps": steps,
        "pairs": pairs,
        "equal bit by bit": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of one run")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run, with meaningless figures"
    )
    options = parser.parse_args()
    rows = {}
    for name in MODELS:
        run(name, 3, False)
        step = run(name, 5, False)[0] / 5
        steps, pairs = (
            (12, 2) if options.quick else (max(100, int(options.seconds / step)), options.pairs)
        )
        rows[name] = row = measure(name, steps, pairs)
        print(
            f"{name}: {row['step, ms']} ms for each step, watched {row['watched, ms']}, "
            f"overhead {row['overhead']:+.1%} (the watch reports "
            f"{row['reported by the watch']:.1%}, {row['samples']:g} samples in {steps} steps); "
            "weights, optimizer, gradients and generator are equal bit by bit"
        )
    worst = max(row["overhead"] for row in rows.values())
    print(
        f"largest overhead {worst:+.1%}, target {TARGET:.0%}"
        + ("; a smoke run, figures are meaningless" if options.quick else "")
    )
    if not options.quick:
        write_result("watch", {"target": TARGET, "models": rows})


if __name__ == "__main__":
    main()
