"""A call of the command line in this process."""

from __future__ import annotations

import sys

import pytest

from thinned.cli import main


def call(capsys, monkeypatch, *arguments):
    """(exit status, standard output, standard error) of ``thinned ARGUMENTS`` in this process."""
    monkeypatch.setattr(sys, "argv", ["thinned", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err
