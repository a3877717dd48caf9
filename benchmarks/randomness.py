"""Mask bits through dieharder: samples, cells and steps in the order in which training uses them,
at p = 1/2.

    python benchmarks/randomness.py [TEST ...]     (dieharder's test numbers; default: its whole
    set, about an hour)

Needs ``dieharder`` on the path. Prints its table and keeps the p values.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from itertools import count

import numpy as np
import torch

from common import keep
from thinned import functional as F
from thinned import presets
from thinned.algebra import Key
from thinned.algebra.key import stream_of

ROWS, CELLS = 256, 4096  # a batch's mask: a million bits


def chunk(step: int) -> bytes:
    """The mask of one step of one layer, 8 cells a byte."""
    key = Key(1, stream_of("features.3.drop"), step=step, samples=torch.arange(ROWS) + ROWS * step)
    fell = ~F.mask(presets.dropout(0.5), (ROWS, CELLS), key)
    return np.packbits(fell.numpy()).tobytes()


def run(test: list[str]) -> tuple[list[dict[str, object]], int]:
    """dieharder's rows for one of its choices of tests, and how many bits it took."""
    command = [
        "dieharder",
        *test,
        "-g",
        "200",
        "-D",
        "test_name",
        "-D",
        "ntuple",
        "-D",
        "pvalues",
        "-D",
        "assessment",
        "-c",
        ",",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    taken = 0

    def feed() -> None:
        nonlocal taken
        try:
            for step in count():
                process.stdin.write(chunk(step))  # type: ignore[union-attr]
                taken += ROWS * CELLS
        except BrokenPipeError:
            return  # dieharder has what it needs

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    rows = []
    for line in process.stdout:  # type: ignore[union-attr]
        parts = [p.strip() for p in line.decode().strip().split(",")]
        if len(parts) == 4:
            rows.append(
                {"test": parts[0], "ntuple": parts[1], "p": float(parts[2]), "assessment": parts[3]}
            )
            print(*parts, flush=True)
    process.wait()
    return rows, taken


def main() -> None:
    if shutil.which("dieharder") is None:
        raise SystemExit("dieharder is not installed (Debian: apt install dieharder)")
    rows, taken = [], 0
    for test in [["-d", t] for t in sys.argv[1:]] or [["-a"]]:
        found, bits = run(test)
        rows += found
        taken += bits
        keep(
            "randomness",
            {"bits": taken, "failed": sum(r["assessment"] == "FAILED" for r in rows), "rows": rows},
        )


if __name__ == "__main__":
    main()
