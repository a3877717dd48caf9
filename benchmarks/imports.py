"""The time that ``import thinned`` adds to Python with NumPy: medians of fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from common import write_result

CODES = {
    "numpy": "import numpy",
    "numpy, thinned": "import numpy, thinned",
    "torch": "import torch",
}


def main():
    times = {name: [] for name in CODES}
    for _ in range(21):
        for name, code in CODES.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: round(median(t[1:]), 1) for name, t in times.items()}
    added = round(medians["numpy, thinned"] - medians["numpy"], 1)
    print(f"{medians}: import thinned adds {added} ms")
    write_result("imports", {"milliseconds": medians, "thinned_adds": added})


if __name__ == "__main__":
    main()
