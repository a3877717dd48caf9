"""Tests the randomness of masks by dieharder.

    python benchmarks/randomness.py [TEST ...]

TEST is the number of a test of dieharder; by default all of them run, for about an hour. The bits
are mask entries at p = 1/2, with samples, elements and steps in the order of training. Needs
``dieharder`` on the path. Prints its table and saves the p values.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from itertools import count

import numpy as np
import torch

from common import write_result
from thinned import functional as F
from thinned import presets
from thinned.algebra import Key
from thinned.algebra.key import stream_of

ROWS, COLUMNS = 256, 4096  # the mask of a batch: a million bits


def chunk(step: int) -> bytes:
    """The mask of one step of one layer, 8 entries in each byte."""
    key = Key(1, stream_of("features.3.drop"), step=step, samples=torch.arange(ROWS) + ROWS * step)
    dropped = ~F.mask(presets.dropout(0.5), (ROWS, COLUMNS), key)
    return np.packbits(dropped.numpy()).tobytes()


def run(test: list[str]) -> tuple[list[dict[str, object]], int]:
    """The rows that dieharder prints for a choice of tests, and the number of bits it read."""
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
    bits_read = 0

    def feed() -> None:
        nonlocal bits_read
        try:
            for step in count():
                process.stdin.write(chunk(step))  # type: ignore[union-attr]
                bits_read += ROWS * COLUMNS
        except BrokenPipeError:
            return  # dieharder needs no more bits

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
    return rows, bits_read


def main() -> None:
    if shutil.which("dieharder") is None:
        raise SystemExit("dieharder is not installed (Debian: apt install dieharder)")
    rows, bits_read = [], 0
    for test in [["-d", t] for t in sys.argv[1:]] or [["-a"]]:
        found, bits = run(test)
        rows += found
        bits_read += bits
        write_result(
            "randomness",
            {
                "bits": bits_read,
                "failed": sum(r["assessment"] == "FAILED" for r in rows),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
