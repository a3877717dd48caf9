"""Notebooks: magics, cells that are not Python, places, and changes that keep all other bytes."""

from __future__ import annotations

import json

import pytest

from thinned.checks import check_source
from thinned.checks.static import fixed_source

NET = "class Net(nn.Module):\n    def forward(self, x):\n        return F.dropout(x)"
IMPORTS = "import torch.nn as nn\nimport torch.nn.functional as F"


def code(source):
    return {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }


def notebook(*sources, **options):
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "F.dropout(x)"},
        *map(code, sources),
    ]
    return json.dumps(
        {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, **options
    )


def places(raw):
    found = check_source(raw, "n.ipynb")
    return [(f.code, f.cell, f.line) for f in found], [what for what, _ in found.unchecked]


def test_cells_see_each_other_and_places_count_in_the_cell():
    raw = notebook(IMPORTS, NET, indent=1)
    (one,) = check_source(raw, "n.ipynb")
    assert (one.cell, one.line, one.column) == (3, 3, 15)
    assert "F.dropout(x)" in raw.split("\n")[one.raw_line - 1]


def test_a_list_of_lines_is_found_by_its_line_in_the_file():
    raw = notebook(IMPORTS, NET.splitlines(keepends=True), indent=1)
    (one,) = check_source(raw, "n.ipynb")
    assert raw.split("\n")[one.raw_line - 1].strip() == '"        return F.dropout(x)"'


@pytest.mark.parametrize(
    "magic",
    [
        "%matplotlib inline",
        "!pip install torch \\\n  --quiet",
        "%%time\n",
        "files = !ls *.py",
        "x = %who_ls",
        "torch?",
        "??Net",
        "await thing()",
        "for i in range(3):\n    !echo {i}",
        "%load_ext a\n%config b = 1",
    ],
)
def test_magics_are_read_past(magic):
    assert places(notebook(IMPORTS, f"{magic}\n{NET}")) == (
        [("L1", 3, 3 + f"{magic}\n".count("\n"))],
        [],
    )


def test_cells_of_other_languages_are_left_out():
    assert places(notebook(IMPORTS, "%%bash\nF.dropout(x", NET)) == ([("L1", 4, 3)], [])
    assert places(notebook(IMPORTS, "%%javascript\nlet x = 1;", NET)) == ([("L1", 4, 3)], [])


def test_a_cell_with_a_syntax_error_is_reported_and_the_others_are_checked():
    assert places(notebook(IMPORTS, "def f(:", NET)) == ([("L1", 4, 3)], ["n.ipynb:cell 3"])


def test_old_notebooks_of_format_three():
    cells = [
        {"cell_type": "code", "language": "python", "input": text, "outputs": []}
        for text in (IMPORTS, NET)
    ]
    raw = json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3})
    assert places(raw) == ([("L1", 2, 3)], [])


@pytest.mark.parametrize(
    "raw",
    [
        '{"cells": [{"cell_type": "code"}, 3, null, {"cell_type": "code", "source": [1]}]}',
        '{"cells": []}',
    ],
)
def test_odd_cells_hold_no_code(raw):
    assert places(raw) == ([], [])


def test_ignores_work_in_cells():
    assert places(notebook(IMPORTS, NET + "  # thinned: ignore[L1]")) == ([], [])
    found = check_source(notebook(IMPORTS, NET + "  # thinned: ignore[L0]"), "n.ipynb")
    assert found.unchecked == (("n.ipynb, line 3 of cell 3", "ignore names an unknown rule, 'L0'"),)


@pytest.mark.parametrize(
    "layout",
    [
        {"indent": 1},
        {"indent": 4, "ensure_ascii": False},
        {"separators": (",", ":")},
        {"indent": "\t"},
    ],
)
@pytest.mark.parametrize(
    "cut", [str, lambda text: text.splitlines(keepends=True)], ids=["string", "lines"]
)
def test_a_change_leaves_all_other_bytes(layout, cut):
    head = '# größe \\ "quoted" \t 😀\n'
    raw = notebook(IMPORTS, cut(head + "%time x = 1\n" + NET + "\n\n"), **layout)
    text, count = fixed_source(raw, "n.ipynb")
    assert count == 1
    assert text == raw.replace("return F.dropout(x)", "return F.dropout(x, training=self.training)")
    assert fixed_source(text, "n.ipynb") == (text, 0)


@pytest.mark.parametrize(
    "metadata",
    [{"language_info": {"name": "R"}}, {"kernelspec": {"language": "r", "name": "ir"}}],
)
def test_a_notebook_in_another_language_is_reported_once(metadata):
    raw = json.loads(notebook("x <- 1", "y %>% f()"))
    ((file, why),) = check_source(json.dumps({**raw, "metadata": metadata}), "a.ipynb").unchecked
    assert (file, why) == ("a.ipynb", "is a notebook in r, not in Python")


@pytest.mark.parametrize("name", ["python", "ipython", "Python 3"])
def test_a_notebook_that_says_python_is_read(name):
    raw = json.loads(notebook(IMPORTS, NET))
    raw["metadata"] = {"language_info": {"name": name}}
    assert check_source(json.dumps(raw), "a.ipynb").codes == {"L1"}
