"""The time that thinning saves in a training step of an MLP 784-2048-2048-10.

python benchmarks/thinning.py [--accuracy [FOLDER]] [--seeds N] [--epochs N]

It is compared with no dropout, with the dropout of torch and with ours; runs take turns. With
--accuracy also test errors of a smaller network are compared with elementwise dropout. FOLDER holds
MNIST or a similar data set as IDX files, of which 10,000 rows are used for training; without it
the digits of scikit-learn are used.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch

import thinned
from common import medians_in_turns, write_result
from thinned import nn
from thinned.engines.torch import native, ops

WIDTHS = (784, 2048, 2048, 10)
BATCHES = (128, 512)
RATES = (0.3, 0.5)


def mlp(widths: tuple[int, ...], make: Callable[[], torch.nn.Module] | None) -> torch.nn.Sequential:
    """An MLP with the same weights for any kind of dropout."""
    layers: list[torch.nn.Module] = []
    torch.manual_seed(0)
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layers.append(torch.nn.Linear(a, b))
        if i < len(widths) - 2:
            layers += [torch.nn.ReLU(), make() if make else torch.nn.Identity()]
    return torch.nn.Sequential(*layers)


def networks(widths: tuple[int, ...], p: float) -> dict[str, torch.nn.Sequential]:
    cut = mlp(widths, lambda: torch.nn.Dropout(p))
    thinned.thin(cut)
    return {
        "none": mlp(widths, None),
        "torch": mlp(widths, lambda: torch.nn.Dropout(p)),
        "thinned.nn.Dropout": mlp(widths, lambda: nn.Dropout(p)),
        "thinned.thin": cut,
    }


def check(p: float) -> None:
    """Exit before any timing unless results and gradients are those of masked dense products."""
    cut = networks(WIDTHS, p)["thinned.thin"].double()
    x, target = torch.randn(64, WIDTHS[0], dtype=torch.float64), torch.randint(WIDTHS[-1], (64,))
    key = thinned.key(cut, seed=7)
    key.at(3)
    y = cut(x)
    loss = torch.nn.functional.cross_entropy(y, target)
    gradients = torch.autograd.grad(loss, list(cut.parameters()))
    key.at(3)
    layers = [layer for layer in cut if isinstance(layer, torch.nn.Linear)]
    h = x
    for linear, place in zip(
        layers, [layer for layer in cut if isinstance(layer, nn.Thinned)], strict=False
    ):
        ones = torch.ones(1, linear.out_features, dtype=torch.float64)
        mask = thinned.functional.thin_units(ones, p, key=place.call_key())
        h = (h @ linear.weight.T + linear.bias).relu() * mask
    dense = h @ layers[-1].weight.T + layers[-1].bias
    dense_gradients = torch.autograd.grad(
        torch.nn.functional.cross_entropy(dense, target), list(cut.parameters())
    )
    pairs = [(y, dense), *zip(gradients, dense_gradients, strict=True)]
    if (
        not all(torch.allclose(a, b, 1e-10, 1e-12) for a, b in pairs)
        or not (gradients[2] == 0).any()
    ):
        raise SystemExit("thinned products differ from masked dense products; no results")


def stepping(
    net: torch.nn.Sequential, x: torch.Tensor, target: torch.Tensor, optimize: bool
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), target).backward()
        if optimize:
            optimizer.step()

    return step


def speed(budget: float) -> list[dict[str, Any]]:
    rows = []
    for p in RATES:
        check(p)
        for batch in BATCHES:
            x, target = torch.randn(batch, WIDTHS[0]), torch.randint(WIDTHS[-1], (batch,))
            for optimize in (False, True):
                runs = {
                    n: stepping(net, x, target, optimize) for n, net in networks(WIDTHS, p).items()
                }
                times = medians_in_turns(runs, budget)
                rows.append({"p": p, "batch": batch, "optimizer": optimize, **times})
                ratios = ", ".join(
                    f"{n} {t / times['none']:.2f}" for n, t in times.items() if n != "none"
                )
                what = "with fused SGD" if optimize else "forward and backward"
                print(
                    f"p {p}, batch {batch}, {what}: {times['none'] / 1000:.1f} ms without dropout; "
                    f"relative to that: {ratios}",
                    flush=True,
                )
    return rows


def rows_of(folder: str | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images and labels, test images and labels; pixels in [0, 1]."""
    if folder is None:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]
        return x[:1000], y[:1000], x[1000:], y[1000:]
    from pathlib import Path

    from thinned.studies.data import read_idx

    files = {part: sorted(Path(folder).glob(f"{part}-*idx*")) for part in ("train", "t10k")}
    (xs, ys), (xt, yt) = (
        [torch.from_numpy(read_idx(f).copy()) for f in files[part]] for part in ("train", "t10k")
    )
    flat = [t.flatten(1).float() / 255 for t in (xs[:10_000], xt)]
    return flat[0], ys[:10_000].long(), flat[1], yt.long()


def error(
    net: torch.nn.Sequential, data: tuple[torch.Tensor, ...], seed: int, epochs: int
) -> float:
    """The test error in percent after training."""
    x, y, xt, yt = data
    net = copy.deepcopy(net).train()
    torch.manual_seed(seed)
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, fused=True)
    orders = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=orders).split(100):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return float((net.eval()(xt).argmax(1) != yt).float().mean()) * 100


def accuracy(folder: str | None, seeds: int, epochs: int) -> dict[str, list[float]]:
    data = rows_of(folder)
    widths = (data[0].shape[1], 1024, 1024, 10)
    candidates: dict[str, torch.nn.Sequential] = {
        "none": mlp(widths, None),
        "dropout 0.5": mlp(widths, lambda: torch.nn.Dropout(0.5)),
    }
    for p, groups in ((0.2, 1), (0.3, 1), (0.5, 1), (0.5, 4)):
        net = mlp(widths, lambda p=p: torch.nn.Dropout(p))
        thinned.thin(net, groups)
        candidates[f"thinned {p}" + (f", {groups} groups" if groups > 1 else "")] = net
    result = {}
    for name, net in candidates.items():
        errors = result[name] = [error(net, data, seed, epochs) for seed in range(seeds)]
        print(
            f"{name:<24} mean {sum(errors) / seeds:.2f} %  of "
            + ", ".join(f"{e:.2f}" for e in errors),
            flush=True,
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accuracy", nargs="?", const="", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument(
        "--budget", type=float, default=4.0, help="seconds for each network and setting"
    )
    options = parser.parse_args()
    if ops.missing:
        raise SystemExit(ops.missing)
    torch.set_num_threads(2)
    result: dict[str, Any] = {
        "unit": "microseconds",
        "threads": 2,
        "instructions": native.running(),
        "widths": WIDTHS,
    }
    result["steps"] = speed(options.budget)
    if options.accuracy is not None:
        result["test errors in percent"] = accuracy(
            options.accuracy or None, options.seeds, options.epochs
        )
    write_result("thinning", result)


if __name__ == "__main__":
    main()
