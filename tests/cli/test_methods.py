"""``thinned methods``: the table, the page of a method, and docs/methods.md."""

from __future__ import annotations

from pathlib import Path

from .common import call


def test_methods_lists_the_catalog():
    from typer.testing import CliRunner

    from thinned.cli.app import app
    from thinned.presets import CATALOG

    run = CliRunner(env={"COLUMNS": "200"})
    table = run.invoke(app, ["methods"])
    assert table.exit_code == 0
    assert all(name in table.output for name in CATALOG)
    page = run.invoke(app, ["methods", "drop_path"])
    assert "Larsson, Maire, Shakhnarovich 2017" in page.output
    wrong = run.invoke(app, ["methods", "droppath"])
    assert wrong.exit_code == 2
    assert "did you mean 'drop_path'" in wrong.output


def test_the_page_of_methods_is_the_catalog(capsys, monkeypatch):
    """docs/methods.md is what the command writes."""
    written = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    assert call(capsys, monkeypatch, "methods", "--markdown")[:2] == (0, written)
