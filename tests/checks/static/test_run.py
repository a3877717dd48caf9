"""Static checks: every program of the corpus, ignore comments, and input that cannot be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

import thinned
from thinned.checks import RULES, check_paths, check_source
from thinned.checks.static import STATIC, checked, fixed_paths, fixed_source

from .programs import programs

PROGRAMS = programs()
WRONG = """\
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""


def codes(text, **options):
    return [(f.code, f.line) for f in check_source(textwrap.dedent(text), **options)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_program(program):
    """A wrong program has one finding, of the rule that it names; a right program has none."""
    found = check_source(program.text, program.name)
    assert Counter(one.code for one in found) == Counter(program.expected), str(found)
    assert not found.unchecked
    for one in found:
        assert one.source.strip()
        assert one.message
        assert one.what_to_do


def test_corpus_is_balanced_and_covers_every_rule():
    wrong = [p for p in PROGRAMS if p.expected]
    right = [p for p in PROGRAMS if not p.expected]
    assert len(PROGRAMS) >= 120
    assert abs(len(wrong) - len(right)) <= 10
    assert {code for p in wrong for code in p.expected} == set(STATIC)
    rules_of_right = {p.name[1:3] for p in right if re.match(r"l\d\d_", p.name)}
    assert rules_of_right == {f"{int(code[1:]):02}" for code in STATIC}
    for program in PROGRAMS:
        kind = "wrong" if program.expected else "right"
        assert program.path.stem.endswith(kind), program.name
        if program.path.suffix == ".py":
            compile(program.text, program.name, "exec")


def test_every_static_rule_says_what_it_looks_for():
    assert set(STATIC) == {code for code, rule in RULES.items() if rule.how in ("static", "both")}
    for code, find in STATIC.items():
        text = " ".join(find.__doc__.split())
        assert text.startswith("Signal:"), code
        assert "Let pass:" in text, code
        assert find.__name__ == RULES[code].name.replace("-", "_")


def test_every_rule_alone_finds_what_all_together_find():
    for program in PROGRAMS:
        for code in program.expected:
            assert check_source(program.text, program.name, select=[RULES[code].name]).codes == {
                code
            }
            assert not check_source(program.text, program.name, ignore=list(program.expected))


@pytest.mark.parametrize(
    "imported",
    [
        "from torch.nn.functional import dropout as d",
        "import torch\nd = torch.nn.functional.dropout",
        "from torch import nn\nfrom torch.nn import functional\nd = functional.dropout",
        "import torch\nd = torch.dropout",
    ],
)
def test_a_function_by_any_name(imported):
    rate = ", p=0.5" if "torch.dropout" not in imported else ", 0.5, True"
    net = f"class Net(torch.nn.Module):\n    def forward(self, x):\n        return d(x{rate})\n"
    text = f"{imported}\nimport torch\n{net}"
    assert [code for code, _ in codes(text)] == ["L7" if "torch.dropout" in imported else "L1"]


def test_a_name_of_another_library_is_let_pass():
    assert not check_source(WRONG.replace("import torch.nn.functional as F", "from mine import F"))
    assert not check_source(WRONG.replace("class Net", "from mine import F\n\n\nclass Net"))
    shadowed = WRONG.replace("def forward(self, x)", "def forward(self, x, F)")
    assert not check_source(shadowed)


def test_places_count_characters_not_bytes():
    text = WRONG.replace("return F", "größe = 'ü'; return F")
    (one,) = check_source(text)
    assert text.splitlines()[one.line - 1][one.column :].startswith("F.dropout")


@pytest.mark.parametrize("names", ["", "[L1]", "[l1]", "[dropout-without-training]", "[L2, L1]"])
def test_ignore_on_the_line(names):
    assert codes(WRONG) == [("L1", 7)]
    assert codes(WRONG.replace("0.5)", f"0.5)  # thinned: ignore{names}")) == []
    assert codes(WRONG.replace("0.5)", f"0.5)  # noqa  # thinned: ignore{names} because")) == []


def test_ignore_covers_its_statement_alone():
    assert (
        codes(
            WRONG.replace(
                "F.dropout(x, 0.5)",
                "F.dropout(\n            x,  # thinned: ignore[L1]\n            0.5,\n        )",
            )
        )
        == []
    )
    assert codes(WRONG.replace("    def", "    # thinned: ignore[L1]\n    def")) == [("L1", 8)]
    assert codes(WRONG.replace("(self, x):", "(self, x):  # thinned: ignore")) == [("L1", 7)]
    assert codes(WRONG.replace("0.5)", "0.5)  # thinned: ignore[L2]")) == [("L1", 7)]
    assert codes(WRONG.replace("return", "'# thinned: ignore'\n        return")) == [("L1", 8)], (
        "a string is not a comment"
    )


def test_ignore_in_a_whole_file():
    assert codes("# thinned: ignore-file\n" + WRONG) == []
    assert codes("# thinned: ignore-file[L1]\n" + WRONG) == []
    assert codes("# thinned: ignore-file[L2]\n" + WRONG) == [("L1", 8)]


def test_an_unknown_rule_in_an_ignore_is_reported():
    found = check_source(WRONG.replace("0.5)", "0.5)  # thinned: ignore[L99]"), "net.py")
    assert found.codes == {"L1"}
    assert found.unchecked == (("net.py, line 7", "ignore names an unknown rule, 'L99'"),)


@pytest.mark.parametrize("given", [{"select": ["L99"]}, {"ignore": ["dropout-without-trainin"]}])
def test_unknown_rules_are_refused(given):
    with pytest.raises(thinned.InputError, match="unknown rule"):
        check_source(WRONG, **given)
    with pytest.raises(thinned.InputError, match="text must be a str"):
        check_source(b"x = 1")


def unread(path, **options):
    """({file name: why it was not read}, names of the files with findings)."""
    found, _ = checked(path, **options)
    return {os.path.basename(what): why for what, why in found.unchecked}, [
        os.path.basename(one.file) for one in found
    ]


def test_files_that_cannot_be_read_are_reported_and_the_others_are_checked(tmp_path):
    (tmp_path / "good.py").write_text(WRONG)
    (tmp_path / "syntax.py").write_text("import torch\ndef f(:\n")
    (tmp_path / "python2.py").write_text("import torch\nprint 'drop'\n")
    (tmp_path / "latin.py").write_bytes("x = 'é'".encode("latin-1"))
    (tmp_path / "codec.py").write_bytes(b"# coding: klingon\nx = 1\n")
    (tmp_path / "null.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "deep.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "minus.py").write_text("x = " + "-" * 100_000 + "1")
    (tmp_path / "broken.ipynb").write_text('{"cells": [')
    (tmp_path / "list.ipynb").write_text("[]")
    (tmp_path / "none.ipynb").write_text("{}")
    (tmp_path / "cells.ipynb").write_text('{"cells": 3}')
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    why, files = unread(tmp_path)
    assert files == ["good.py"]
    assert set(why) == {p.name for p in tmp_path.iterdir()} - {"good.py"}
    assert re.search(r"is not Python: .*\(line 2\)", why["syntax.py"])
    assert "(line 2)" in why["python2.py"]
    assert (
        why["latin.py"]
        == "cannot be read: it is not UTF-8, and no coding line names another encoding"
    )
    assert "klingon" in why["codec.py"]
    assert "not valid JSON" in why["broken.ipynb"]
    assert why["list.ipynb"] == "not a notebook: the JSON is not an object"
    assert why["none.ipynb"] == why["cells.ipynb"] == "not a notebook: it has no list of cells"
    assert why["bytes.ipynb"] == "cannot be read: it is not UTF-8"
    assert why["dangling.py"] == "cannot be read: No such file or directory"
    assert all("\n" not in text for text in why.values())


def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.py"
    path.write_text(WRONG)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert unread(tmp_path) == ({"secret.py": "cannot be read: Permission denied"}, [])


def test_encodings(tmp_path):
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbf" + WRONG.encode())
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n" + WRONG.encode())
    (tmp_path / "dos.py").write_bytes(WRONG.replace("\n", "\r\n").encode())
    (tmp_path / "mac.py").write_bytes(WRONG.replace("\n", "\r").encode())
    found = check_paths(tmp_path)
    assert not found.unchecked
    assert {(os.path.basename(f.file), f.line) for f in found} == {
        ("bom.py", 7),
        ("latin.py", 9),
        ("dos.py", 7),
        ("mac.py", 7),
    }
    assert all(f.source == "        return F.dropout(x, 0.5)" for f in found)


def test_a_loop_of_links_ends_and_a_file_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net.py").write_text(WRONG)
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again.py").symlink_to(tmp_path / "a" / "net.py")
    (tmp_path / "itself.py").symlink_to(tmp_path / "itself.py")
    found, read = checked([tmp_path, tmp_path / "a" / "net.py", tmp_path / "a" / ".." / "a"])
    assert (len(found), read) == (1, 1)
    assert [os.path.basename(what) for what, _ in found.unchecked] == ["itself.py"]


def test_folders_leave_out_what_is_not_the_users(tmp_path):
    for folder in ("src", ".git", "build", "node_modules", "lib/site-packages", "my-env"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "net.py").write_text(WRONG)
    (tmp_path / "my-env" / "pyvenv.cfg").write_text("")
    (tmp_path / "src" / "test_net.py").write_text("import pytest\n" + WRONG)
    (tmp_path / "src" / "notes.txt").write_text(WRONG)
    assert [os.path.relpath(f.file, tmp_path) for f in check_paths(tmp_path)] == [
        os.path.join("src", "net.py")
    ]
    named = [tmp_path / ".git" / "net.py", tmp_path / "src" / "test_net.py", tmp_path / "build"]
    assert len(check_paths(named)) == 3


def test_a_missing_path_is_reported():
    found, read = checked(["nowhere.py"])
    assert (list(found), found.unchecked, read) == (
        [],
        (("nowhere.py", "there is no such file or folder"),),
        0,
    )


def test_the_users_code_is_not_run(tmp_path):
    """Checking also imports no framework: it needs the standard library alone."""
    (tmp_path / "net.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + WRONG
    )
    (tmp_path / "torch.py").write_text("raise SystemExit('imported')")
    heavy = ["torch", "numpy", "tensorflow", "keras", "jax", "pandas", "sklearn"]
    code = "import sys\nfrom thinned.checks import check_paths\n"
    code += f"found = check_paths({str(tmp_path)!r})\n"
    code += f"print(len(found), [m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1 []\n", done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


FIXABLE = [p for p in PROGRAMS if any(f.changes for f in check_source(p.text, p.name))]


@pytest.mark.parametrize("program", FIXABLE, ids=lambda p: p.name)
def test_fixed_program(program):
    """A second fix changes nothing, the text compiles, and only lines of findings differ."""
    found = [f for f in check_source(program.text, program.name) if f.changes]
    text, count = fixed_source(program.text, program.name)
    assert count == len(found)
    assert not [f for f in check_source(text, program.name) if f.changes]
    assert fixed_source(text, program.name) == (text, 0)
    if program.path.suffix == ".py":
        compile(text, program.name, "exec")
        touched = {n for f in found for c in f.changes for n in range(c.line, c.end_line + 1)}
        old, new = program.text.splitlines(), text.splitlines()
        if len(old) == len(new):
            assert {
                i for i, (a, b) in enumerate(zip(old, new, strict=True), 1) if a != b
            } <= touched
    else:
        old, new = json.loads(program.text), json.loads(text)
        assert [c for c in old["cells"] if c["cell_type"] != "code"] == [
            c for c in new["cells"] if c["cell_type"] != "code"
        ]
        lines = zip(program.text.split("\n"), text.split("\n"), strict=True)
        assert sum(a != b for a, b in lines) == len(found)


@pytest.mark.parametrize(
    ("body", "fixed"),
    [
        ("F.dropout(x)", "F.dropout(x, training=self.training)"),
        ("F.dropout(x, p=0.5,)", "F.dropout(x, p=0.5, training=self.training,)"),
        (
            "F.dropout(F.dropout(x))",
            "F.dropout(F.dropout(x, training=self.training), training=self.training)",
        ),
        ("'ü' and F.dropout(x)", "'ü' and F.dropout(x, training=self.training)"),
        (
            "F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)",
            "F.scaled_dot_product_attention(x, x, x, dropout_p=0.1 if self.training else 0.0)",
        ),
        (
            "F.dropout(\n            x,\n            0.5,\n        )",
            "F.dropout(\n            x,\n            0.5, training=self.training,\n        )",
        ),
    ],
)
def test_changes(body, fixed):
    before = WRONG.replace("F.dropout(x, 0.5)", body)
    assert fixed_source(before)[0] == WRONG.replace("F.dropout(x, 0.5)", fixed)


@pytest.mark.parametrize(
    "text",
    [
        WRONG.replace("0.5)", "0.5, True)"),
        WRONG.replace("0.5)", "0.5, training=True)"),
        "import keras\nx = keras.layers.Dropout(0.5)(x, training=True)\n",
        "import flax.linen as nn\n\n\nclass Net(nn.Module):\n"
        "    @nn.compact\n    def __call__(self, x, deterministic):\n"
        "        return nn.Dropout(0.5, deterministic=False)(x)\n",
    ],
)
def test_a_literal_is_a_warning_that_no_fix_touches(text):
    """It may be Monte Carlo dropout, which a fix would switch off without a word."""
    (one,) = check_source(text)
    assert (one.code, one.severity, one.changes) == ("L7", "warning", ())
    assert fixed_source(text) == (text, 0)


@pytest.mark.parametrize(
    ("default", "fixed"), [("=0.8", True), ("=0.5", False), ("=0.2", False), ("", False)]
)
def test_a_keep_probability_is_inverted_only_where_a_value_shows_that_it_is_one(default, fixed):
    text = f"from torch import nn\n\n\ndef block(keep_prob{default}):\n"
    text += "    return nn.Dropout(keep_prob)\n"
    (one,) = check_source(text)
    assert (one.code, bool(one.changes)) == ("L4", fixed)
    assert fixed_source(text)[0].endswith("nn.Dropout(1 - keep_prob)\n") is fixed


def test_what_is_not_safe_is_left(tmp_path):
    """A static method has no self; a function outside classes has no mode."""
    static = WRONG.replace("    def forward(self, x)", "    @staticmethod\n    def forward(x)")
    outside = "import torch.nn.functional as F\ndef net(x):\n    return F.dropout(x, 0.5)\n"
    ignored = WRONG.replace("0.5)", "0.5)  # thinned: ignore")
    for text in (static, outside, ignored):
        assert fixed_source(text) == (text, 0)
    assert (
        [f.code for f in check_source(static)] == [f.code for f in check_source(outside)] == ["L1"]
    )


def test_files_keep_encoding_line_ends_and_permissions(tmp_path):
    path = tmp_path / "net.py"
    raw = b"# -*- coding: latin-1 -*-\r\n# \xe9\r\n" + WRONG.replace("\n", "\r\n").encode()
    path.write_bytes(raw)
    path.chmod(0o755)
    link = tmp_path / "link.py"
    link.symlink_to(path)
    (shown,) = fixed_paths([link], write=False)
    assert path.read_bytes() == raw
    (done,) = fixed_paths([link])
    assert done == shown
    assert path.read_bytes() == raw.replace(b"0.5)", b"0.5, training=self.training)")
    assert path.stat().st_mode & 0o777 == 0o755
    assert link.is_symlink()
    assert fixed_paths([link]) == []
    assert {p.name for p in tmp_path.iterdir()} == {"net.py", "link.py"}
    bom = tmp_path / "bom.py"
    bom.write_bytes(b"\xef\xbb\xbf" + WRONG.encode())
    fixed_paths(bom)
    assert (
        bom.read_bytes()
        == b"\xef\xbb\xbf" + WRONG.replace("0.5)", "0.5, training=self.training)").encode()
    )
