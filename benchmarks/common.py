"""What the benchmarks share: medians, the machine, and where results go."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the versions, as every result carries them."""
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


def keep(name: str, result: dict[str, Any]) -> None:
    """Write ``results/NAME.json``; the command is part of it."""
    RESULTS.mkdir(exist_ok=True)
    command = "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, "machine": machine(), **result}, indent=1) + "\n")
    print(f"written: benchmarks/results/{path.name}")
