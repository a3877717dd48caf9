"""The entry point: version, and the message where an extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import thinned

from .common import call


def test_version(capsys, monkeypatch):
    assert call(capsys, monkeypatch, "--version")[:2] == (0, f"{thinned.__version__}\n")


def test_missing_extra_is_one_sentence(tmp_path):
    """Where rich is missing, the command prints what to install."""
    code = """
import sys
sys.modules["rich"] = None
sys.argv = ["thinned", "study"]
from thinned.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'thinned[study]'" in done.stderr
    assert "Traceback" not in done.stderr
