"""The default study from start to report: wall time, peak memory, and the number of networks."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_result


def memory(pid):
    """Bytes that a process and its children use; shared pages count in proportion (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended, or this is not Linux
        return 0
    own = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(memory(int(c)) for c in children)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arguments", nargs="*", help="arguments of thinned study, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "thinned",
            "study",
            "--out",
            f"{folder}/out",
            *options.arguments,
        ]
        began, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.25)
        seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(f"thinned study ended with {process.returncode}")
        from thinned.studies.outputs import load

        networks = len({(r["chunk"], str(r["recipe"])) for r in load(Path(folder) / "out").records})
    print(f"{networks} networks, {seconds:.1f} s, peak {peak / 2**20:.0f} MiB")
    write_result(
        "study",
        {"networks": networks, "seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)},
    )


if __name__ == "__main__":
    main()
