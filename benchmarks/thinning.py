"""The time of a training step with thinning, as a ratio to the same step without dropout.

python benchmarks/thinning.py [--quick] [--crossover] [--accuracy [FOLDER]] [--seeds N] [--epochs N]

Steps are forward, backward and optimizer. They are compared with torch's dropout, with ours, and
with the floor: a dense network of the kept sizes, which no thinning can beat. All take turns in one
process, with one thread and its CPU time by default, because other programs affect that least;
--threads 2 measures wall time. Before any timing, results and gradients are compared with masked
dense products. --quick takes about a minute. --crossover measures where leaving units out begins to
pay, for the constants of thinned/functional/thinning.py.

With --accuracy also test errors of a smaller network are compared with elementwise dropout. FOLDER
holds MNIST or a similar data set as IDX files, of which 10,000 rows are used for training; without
it the digits of scikit-learn are used.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

import thinned
from common import medians_in_turns, write_result
from thinned import nn
from thinned.engines.torch import native, ops
from thinned.functional.thinning import kept_count

WIDTHS = (784, 2048, 2048, 10)
# (hidden units, batch, rate) of an MLP with 784 inputs
CASES = ((2048, 128, 0.5), (2048, 128, 0.3), (2048, 512, 0.5), (1024, 128, 0.5))
NARROW = ((512, 32, 0.5), (256, 32, 0.5))
CROSSOVER = tuple(
    itertools.product((128, 256, 512, 1024), (32, 64, 128, 512), (0.3, 0.5))
)  # with as many inputs as hidden units


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
    kept = [kept_count(n, p) for n in widths[1:-1]]
    return {
        "none": mlp(widths, None),
        "torch": mlp(widths, lambda: torch.nn.Dropout(p)),
        "thinned.nn.Dropout": mlp(widths, lambda: nn.Dropout(p)),
        "thinned.thin": cut,
        "floor": mlp((widths[0], *kept, widths[-1]), None),
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


class Block(torch.nn.Module):
    """A block of a vision transformer of the size S, with drop path on both branches."""

    def __init__(self, make: Callable[[float], torch.nn.Module], p: float, d: int = 384) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(d), torch.nn.LayerNorm(d)
        self.qkv, self.proj = torch.nn.Linear(d, 3 * d), torch.nn.Linear(d, d)
        self.up, self.down = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)
        self.path1, self.path2 = make(p), make(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 6, -1)).transpose(1, 3).unbind(2)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.path1(self.proj(attended.transpose(1, 2).flatten(2)))
        h = torch.nn.functional.gelu(self.up(self.norm2(x)))
        return x + self.path2(self.down(h))


def vision(make: Callable[[float], torch.nn.Module], rates: list[float]) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(*[Block(make, p) for p in rates])


def check_branches() -> None:
    """Exit before any timing unless kept examples alone give the result of the whole batch."""
    cut, dense = (vision(nn.DropPath, [0.4, 0.4]).double() for _ in range(2))
    thinned.thin(cut)
    x = torch.randn(6, 5, 384, dtype=torch.float64)
    results = []
    for net in (cut, dense):
        thinned.key(net, seed=3).at(1)
        y = net(x)
        results.append([y, *torch.autograd.grad(y.sum(), list(net.parameters()))])
    if not all(torch.allclose(a, b, 1e-10, 1e-12) for a, b in zip(*results, strict=True)):
        raise SystemExit("branches on kept examples differ from those on the batch; no results")


class Output(torch.nn.Module):
    """The output of a recurrent network, without its states."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0].mean((0, 1))


def stepping(
    net: torch.nn.Module, x: torch.Tensor, target: torch.Tensor | None
) -> Callable[[], None]:
    """A training step; without a target the loss is the mean square of the result."""
    optimizer = torch.optim.SGD(net.parameters(), 1e-4, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        y = net(x)
        loss = y.square().mean() if target is None else torch.nn.functional.cross_entropy(y, target)
        loss.backward()
        optimizer.step()

    return step


def measured(
    name: str,
    nets: dict[str, torch.nn.Module],
    x: torch.Tensor,
    target: torch.Tensor | None,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The times of a step of each network; prints their ratios to the one without dropout."""
    clock = time.process_time if options.threads == 1 else time.perf_counter
    runs = {n: stepping(net, x, target) for n, net in nets.items()}
    times = medians_in_turns(runs, options.budget, clock=clock)
    ratios = {n: round(t / times["none"], 3) for n, t in times.items() if n != "none"}
    text = ", ".join(f"{n} {ratio:.2f}" for n, ratio in ratios.items())
    print(f"{name}: {times['none'] / 1000:.2f} ms without dropout; {text}", flush=True)
    return {"case": name, "microseconds": times, "ratios": ratios}


def mlp_case(width: int, batch: int, p: float, inputs: int) -> tuple[str, Any, Any, Any]:
    nets = networks((inputs, width, width, 10), p)
    x, target = torch.randn(batch, inputs), torch.randint(10, (batch,))
    return f"MLP {inputs}-{width}-{width}-10, batch {batch}, p {p}", nets, x, target


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    for p in (0.3, 0.5):
        check(p)
    check_branches()
    cases = CASES[:1] + NARROW if options.quick else CASES + NARROW
    rows = [measured(*mlp_case(*case, inputs=784), options) for case in cases]
    depth, batch, tokens = (2, 10, 50) if options.quick else (6, 20, 197)
    x = torch.randn(batch, tokens, 384)
    linear = [0.4 * i / (depth - 1) for i in range(depth)]
    for name, rates in (("0.4", [0.4] * depth), ("0 to 0.4", linear)):
        cut = vision(nn.DropPath, rates)
        thinned.thin(cut)
        nets: dict[str, torch.nn.Module] = {
            "none": vision(lambda p: torch.nn.Identity(), rates),
            "thinned.nn.DropPath": vision(nn.DropPath, rates),
            "thinned.thin": cut,
        }
        rows.append(measured(f"{depth} blocks of ViT-S, drop path {name}", nets, x, None, options))
    torch.manual_seed(0)
    steps = 16 if options.quick else 64
    recurrent = {
        "none": torch.nn.LSTM(256, 256, 2),
        "variational": nn.DropState(torch.nn.LSTM(256, 256, 2), states=0.5, outputs=0.5),
        "thinned": nn.DropState(torch.nn.LSTM(256, 256, 2), states=0.5, method="thinned"),
        "floor": torch.nn.LSTM(256, 128, 2),
    }
    nets = {name: Output(net) for name, net in recurrent.items()}
    x = torch.randn(steps, 32, 256)
    rows.append(measured(f"LSTM 256 x 2, {steps} steps, p 0.5", nets, x, None, options))
    return rows


def crossover(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times with units left out and with units zeroed, and which of them is chosen."""
    rows = []
    for width, batch, p in CROSSOVER:
        name, nets, x, target = mlp_case(width, batch, p, inputs=width)
        chosen = nets.pop("thinned.thin")
        del nets["thinned.nn.Dropout"], nets["floor"]
        for way in ("left out", "zeroed"):
            nets[way] = copy.deepcopy(chosen)
            for layer in nets[way]:
                if isinstance(layer, nn.Thinned):
                    # 0: always; next to nothing: never
                    layer.weights_per_unit = 0 if way == "left out" else 1e-9  # type: ignore[assignment]
        row = measured(name, nets, x, target, options)
        row["pays"] = [m.pays(width, batch) for m in chosen if isinstance(m, nn.Thinned)]
        print(f"    left out in layers: {row['pays']}", flush=True)
        rows.append(row)
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
    parser.add_argument("--quick", action="store_true", help="few cases, small sizes, short turns")
    parser.add_argument("--crossover", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="1: CPU time; more: wall time")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds for each network")
    options = parser.parse_args()
    if ops.missing or not ops.has_parts:
        raise SystemExit(ops.missing or "the native kernels are of an older build; build them anew")
    options.budget = options.budget or (0.5 if options.quick else 4.0)
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "unit": "microseconds",
        "clock": "CPU time of the process" if options.threads == 1 else "wall time",
        "threads": options.threads,
        "instructions": native.running(),
    }
    result["steps"] = speed(options)
    if options.crossover:
        result["crossover"] = crossover(options)
    if options.accuracy is not None:
        result["test errors in percent"] = accuracy(
            options.accuracy or None, options.seeds, options.epochs
        )
    write_result("thinning-quick" if options.quick else "thinning", result)


if __name__ == "__main__":
    main()
