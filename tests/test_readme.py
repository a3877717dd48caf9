"""The code of the README and of the pages runs as it stands."""

from __future__ import annotations

import re
import sys
import types
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# the blocks of a page, each going on from the one before
PAGES = ("surgery.md", "thinning.md", "extending.md", "predict.md", "programs.md")
COUNTS = {"README.md": 6, "docs/checks-live.md": 1, "docs/integrations.md": 7, "docs/watch.md": 4}
BLOCKS = {
    f"{page} block {number + 1}": block
    for page in COUNTS
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    )
}
EXTRAS = ("lightning", "transformers", "keras", "accelerate", "skorch", "timm", "torchvision")


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, tmp_path, monkeypatch):
    needs = [
        package
        for package in EXTRAS
        if re.search(rf"^import (\w+, )*{package}\b", BLOCKS[name], re.M)
    ]
    if "keras" in needs:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    for package in needs:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    code = compile(BLOCKS[name], name, "exec")
    if not needs:
        exec(code, {})
        return
    import torch

    torch.use_deterministic_algorithms(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        exec(code, {"__name__": name})


@pytest.mark.parametrize("name", PAGES)
def test_page(name, capsys, monkeypatch):
    """The blocks of a page, one after another in one place, as a reader would run them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), re.S)
    assert blocks
    module = types.ModuleType("page")  # in sys.modules, so that what a page defines can be pickled
    monkeypatch.setitem(sys.modules, "page", module)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name} block {number}", "exec"), module.__dict__)


def test_the_readme_counts_the_methods():
    import thinned

    counts = re.findall(r"\b(\d+) methods|all (\d+)\]", (ROOT / "README.md").read_text())
    assert {int(a or b) for a, b in counts} == {len(thinned.CATALOG)}


def test_there_are_blocks_and_links_lead_somewhere():
    assert {page: sum(name.startswith(page) for name in BLOCKS) for page in COUNTS} == COUNTS
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )
