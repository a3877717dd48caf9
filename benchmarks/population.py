"""Networks trained per minute: a population against a loop over torch models.

Both have the same data (digits), split, architecture, optimizer, learning rates, epochs and batch
size. The loop over models with ``torch.nn.Dropout`` is what a careful user writes: tensors in
memory, one permutation for each epoch, no data loader, and one evaluation at the end. The
population also evaluates training and validation rows in every epoch and records its curves. Each
side runs as one process with all threads of the machine, and as one process with one thread for
each core. The speed-up is printed only if the final test errors agree.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time

import torch
from torch import nn

from common import write_result
from thinned.presets import dropout
from thinned.studies.data import load
from thinned.studies.folds import splits
from thinned.train import Optimizer, Recipe, fit_population

RATES = [0.05 + 0.6 * i / 63 for i in range(64)]
WIDTH, BATCH, LR = 128, 64, 3e-3


def loop(split, rates, epochs):
    """Train one torch model after the other; return the test errors."""
    errors = []
    x, y = split.train.x, split.train.y
    for p in rates:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, WIDTH),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(p),
            nn.Linear(WIDTH, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, epochs * math.ceil(len(y) / BATCH)
        )
        criterion = nn.CrossEntropyLoss()
        for _ in range(epochs):
            for rows in torch.randperm(len(y)).split(BATCH):
                optimizer.zero_grad()
                criterion(model(x[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            errors.append((model(split.test.x).argmax(1) != split.test.y).float().mean().item())
    return errors


def population(split, rates, epochs):
    """Train all models at once; return the test errors."""
    optimizer = Optimizer("adam", LR, decay="cosine")
    recipes = [
        Recipe(
            drops=(None, dropout(p), dropout(p)),
            optimizer=optimizer,
            epochs=epochs,
            batch_size=BATCH,
        )
        for p in rates
    ]
    return [t.scores["test"].metric for t in fit_population(split, recipes)]


SIDES = {"loop": loop, "population": population}


def timed(side, threads, count, epochs):
    """(networks per minute, errors) in this process."""
    torch.set_num_threads(threads)
    split = splits(load(None), 5, 1, 0)[0]
    rates = RATES[:: len(RATES) // count]
    SIDES[side](split, rates[:2], 2)  # warm up
    began = time.perf_counter()
    errors = SIDES[side](split, rates, epochs)
    return 60 * len(rates) / (time.perf_counter() - began), errors


def spread(side, processes, count, epochs):
    """Networks per minute of several processes at once, with one thread each."""
    command = [
        sys.executable,
        __file__,
        "--one",
        side,
        "--count",
        str(count),
        "--epochs",
        str(epochs),
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return sum(float(p.communicate()[0]) for p in running)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument(
        "--loop-count",
        type=int,
        default=16,
        help="number of networks of the loop; its time is linear in it",
    )
    parser.add_argument("--one", choices=SIDES)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    if options.one:
        print(timed(options.one, 1, options.count, options.epochs)[0])
        return
    cores = torch.get_num_threads()
    rows = []
    whole = {}
    for side, count in (("loop", options.loop_count), ("population", len(RATES))):
        speed, errors = timed(side, cores, count, options.epochs)
        whole[side] = (speed, errors)
        rows.append((side, f"1 process, {cores} threads", speed))
        rows.append(
            (side, f"{cores} processes, 1 thread each", spread(side, cores, count, options.epochs))
        )
    shared = [
        whole["population"][1][i] for i in range(0, len(RATES), len(RATES) // options.loop_count)
    ]
    mean = [sum(e) / len(e) for e in (whole["loop"][1], shared)]
    error = math.sqrt(
        2 * mean[0] * (1 - mean[0]) / 360
    )  # of the difference of two errors on 360 test rows each
    for side, how, speed in rows:
        print(f"{side:11} {how:28} {speed:8.0f} networks per minute")
    print(
        f"mean test error of the {options.loop_count} rates that both trained: loop {mean[0]:.4f}, "
        f"population {mean[1]:.4f}"
    )
    if abs(mean[0] - mean[1]) > 2 * error:
        sys.exit("the errors differ by more than two standard errors: no speed-up is printed")
    threads, processes = rows[2][2] / rows[0][2], rows[3][2] / rows[1][2]
    print(f"speed-up: {threads:.1f} x in one process, {processes:.1f} x in {cores} processes")
    write_result(
        "population",
        {
            "rows": [{"side": s, "how": h, "networks_per_minute": round(v)} for s, h, v in rows],
            "epochs": options.epochs,
            "test_error": {"loop": mean[0], "population": mean[1]},
            "speedup": {
                "one process": round(threads, 2),
                f"{cores} processes": round(processes, 2),
            },
        },
    )


if __name__ == "__main__":
    main()
