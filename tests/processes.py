"""Scripts that run as several ranks of one process group."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def ranks(script: Path, arguments: list[list[str]], folder: Path, seconds: float = 120.0) -> None:
    """Run ``script`` once for each list of arguments, at once. A rank that fails ends all, and its
    errors are shown.

    Where none fails and some do not end in time, the errors of all are.
    """
    errors = [folder / f"errors.{script.stem}.{len(arguments)}.{i}" for i in range(len(arguments))]
    started = []
    for more, path in zip(arguments, errors, strict=True):
        with path.open("wb") as stream:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", str(script), *more], stderr=stream
                )
            )
    deadline = time.monotonic() + seconds
    try:
        while (
            any(p.poll() is None for p in started)
            and not any(p.poll() for p in started)
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        codes = [p.poll() for p in started]
        for p in started:
            if p.poll() is None:
                p.send_signal(6)  # faulthandler writes where it stands
                p.wait(20)
    finally:
        for p in started:
            p.kill()
            p.wait()
    outputs = {
        i: path.read_text(errors="replace")[-4000:]
        for i, path in enumerate(errors)
        if codes[i] != 0
    }
    assert all(code == 0 for code in codes), (codes, outputs)
