"""How often a study says "helps" on pure noise, and where dropout must help.

The noise has features and targets that are independent, so any "helps" is an error; the nominal
share is 2.5 % (one side of a 95 % interval), and "helps" also needs networks that are better than
the constant prediction. The other data have flipped labels, few rows and a wide network. Seeds are
fixed, so the verdicts can be repeated exactly with one version of PyTorch.

    python benchmarks/study_verdicts.py [--noise 40] [--flipped 20] [--jobs 1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from typing import Any

import numpy as np

from common import write_result
from thinned import study

METHODS = ("dropout",)


def noise(seed: int) -> tuple[Any, Any]:
    """Targets that are independent of the features: classes for even seeds, values for odd."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 8))
    return x, rng.integers(0, 2, 120).astype(str) if seed % 2 == 0 else rng.normal(size=120)


def flipped(seed: int) -> tuple[Any, Any]:
    """Two classes by a linear rule of 20 features, with a fifth of the labels flipped."""
    rng = np.random.default_rng(1000 + seed)
    x = rng.normal(size=(300, 20))
    y = x @ rng.normal(size=20) > 0
    return x, (y ^ (rng.random(300) < 0.2)).astype(str)


def tones(make: Any, count: int, jobs: int, **options: Any) -> dict[str, Any]:
    """The tones of ``count`` studies, with the p values of what decided them."""
    rows = []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            result = study(
                make(seed),
                methods=METHODS,
                level="quick",
                seed=seed,
                jobs=jobs,
                out=folder,
                **options,
            )
        a, change = result.analysis, result.analysis.families["dropout"].change
        rows.append(
            {
                "seed": seed,
                "tone": result.verdict.tone,
                "headline": result.verdict.headline,
                "p_dropout": change.p,
                "p_constant": a.against_constant(a.families["dropout"]).p,
            }
        )
        print(f"{make.__name__} {seed}: {result.verdict.headline}", flush=True)
    return {"tones": dict(Counter(row["tone"] for row in rows)), "studies": rows}


def main() -> None:
    """Run the studies and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=int, default=40)
    parser.add_argument("--flipped", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    began = time.process_time()
    result = {
        "flipped": tones(flipped, arguments.flipped, arguments.jobs, folds=5, model="wide"),
        "noise": tones(noise, arguments.noise, arguments.jobs, folds=5),
    }
    for name, found in result.items():
        print(f"{name}: {found['tones']}")
    write_result("study_verdicts", {"cpu_seconds": time.process_time() - began, **result})


if __name__ == "__main__":
    main()
