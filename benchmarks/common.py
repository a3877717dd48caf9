"""Shared by the benchmarks: medians, a description of the machine, and the results folder."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the versions, for every results file."""
    import numpy
    import torch

    from thinned.studies.run import processor

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write ``results/NAME.json``, with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    command = "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    path.write_text(
        json.dumps({"command": command, "machine": machine(), **result}, indent=1) + "\n"
    )
    print(f"written: benchmarks/results/{path.name}")


def medians_in_turns(
    runs: Mapping[str, Callable[[], Any]],
    budget: float = 0.5,
    min_rounds: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median time of each run in microseconds.

    The runs take turns, so that a slow phase of the machine affects all of them. ``budget``:
    seconds for each run. ``clock``: ``time.process_time`` counts the time of all threads, which
    other programs on the machine affect less.
    """
    calls = {}
    for name, run in runs.items():
        run(), run()
        start = time.perf_counter()
        run()
        calls[name] = max(1, int(0.002 / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + budget * len(runs)
    while len(times[name]) < min_rounds or time.perf_counter() < end:
        for name, run in runs.items():
            start = clock()
            for _ in range(calls[name]):
                run()
            times[name].append((clock() - start) / calls[name] * 1e6)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}
