"""The code of the README and of the pages runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PAGES = ("surgery.md", "thinning.md")


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number):
    exec(compile(BLOCKS[number], f"README block {number + 1}", "exec"), {})


@pytest.mark.parametrize("name", PAGES)
def test_page(name, capsys):
    """The blocks of a page, one after another in one place, as a reader would run them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), re.S)
    assert blocks
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name} block {number}", "exec"), names)


def test_there_are_blocks_and_links_lead_somewhere():
    assert len(BLOCKS) == 3
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
