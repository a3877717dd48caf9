"""``thinned check`` from the outside: exit status, formats, --fix and --diff, the table of rules,
the pre-commit hook.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import thinned
from thinned.checks import RULES, Findings, check_source
from thinned.checks.finding import Finding
from thinned.checks.outputs import FORMATS, as_json, github, sarif, text
from thinned.checks.static import STATIC
from thinned.cli.app import app

from ..checks.static.programs import programs

ROOT = Path(__file__).parent.parent.parent
WRONG = """\
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""
FIXED = WRONG.replace("0.5)", "0.5, training=self.training)")
NOTE = """\
from torch import nn
net = nn.Sequential(nn.Linear(9, 9), nn.Dropout(0.5), nn.Linear(9, 9), nn.BatchNorm1d(9))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, piped=None):
    """(exit status, standard output, standard error)."""
    done = CliRunner().invoke(app, ["check", *arguments], input=piped)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_nothing_found_is_zero(folder):
    Path("net.py").write_text(FIXED)
    code, out, err = run(".")
    assert (code, out) == (0, "no known mistake found\n")
    assert re.fullmatch(r"1 file read in \d+\.\d s: no known mistake\n", err)


def test_something_found_is_one(folder):
    Path("net.py").write_text(WRONG)
    code, out, err = run("net.py")
    assert code == 1
    assert out.splitlines()[:3] == [
        "net.py:7:16: error L1 dropout-without-training: F.dropout is called without training=, "
        "so it drops in evaluation too",
        "    | return F.dropout(x, 0.5)",
        "    |        ^",
    ]
    assert RULES["L1"].url in out
    assert "\x1b[" not in out
    assert re.fullmatch(r"1 file read in .*: 1 error \(1 fixable with --fix\)\n", err)


@pytest.mark.parametrize(
    ("program", "severity", "status"),
    [
        (NOTE, "note", 1),
        (NOTE, "warning", 0),
        (NOTE, "error", 0),
        (WRONG, "error", 1),
        (WRONG, "note", 1),
    ],
)
def test_severity_decides_the_status(folder, program, severity, status):
    Path("net.py").write_text(program)
    assert run("net.py", "--severity", severity)[0] == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no paths to check; name files or folders, for example: thinned check src"),
        (["nowhere"], "there is no file or folder 'nowhere'"),
        (["."], "no file could be read"),
        ([".", "--select", "L99"], "unknown rule 'L99'"),
        ([".", "--select", "dropout-without-trainin"], "did you mean 'dropout-without-training'"),
        ([".", "--ignore", ""], "expected rules separated by commas, such as L1,L2, but got ''"),
        ([".", "--format", "sariff"], "unknown format 'sariff'; did you mean 'sarif'"),
        ([".", "--severity", "fatal"], "unknown severity 'fatal'"),
        (["-", "--fix"], "--fix cannot write to standard input"),
        ([".", "--fix", "--diff"], "--fix and --diff exclude each other"),
        (["net.txt", "--output", "no/such/folder.txt"], "No such file"),
        (["--explain", "L99"], "unknown rule 'L99'"),
    ],
)
def test_bad_input_is_two_and_one_sentence(folder, arguments, message):
    Path("net.txt").write_text("x = 1\n")
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("error: ") or "\nerror: " in err
    assert message in err
    assert "Traceback" not in err


def test_files_that_cannot_be_read_are_listed_with_the_findings(folder):
    Path("bad.py").write_text("def f(:\n")
    code, out, err = run(".")
    assert code == 2
    assert "not checked: bad.py: is not Python: invalid syntax (line 1)" in out
    assert "no known mistake" not in out
    Path("net.py").write_text(WRONG)
    code, out, err = run(".")
    assert code == 1
    assert "not checked: bad.py" in out
    assert err.startswith("1 file read")


def test_standard_input(folder):
    code, out, _ = run("-", piped=WRONG)
    assert code == 1
    assert out.startswith("<stdin>:7:16: error L1")
    assert run("-", piped=FIXED)[0] == 0
    assert run("-", piped=b"x = '\xff'")[0] == 2


def test_select_and_ignore(folder):
    Path("net.py").write_text(WRONG)
    assert run("net.py", "--select", "L2,L3")[0] == 0
    assert run("net.py", "--ignore", "dropout-without-training")[0] == 0
    assert run("net.py", "--select", "l1")[0] == 1


def test_fix(folder):
    Path("net.py").write_text(WRONG)
    code, _, err = run("net.py", "--fix")
    assert code == 0
    assert err.endswith(": no known mistake; 1 fixed\n")
    assert Path("net.py").read_text() == FIXED
    assert run("net.py", "--fix")[0] == 0
    assert Path("net.py").read_text() == FIXED


def test_diff_writes_nothing_and_can_be_applied(folder):
    Path("net.py").write_text(WRONG.rstrip("\n"))
    code, out, _ = run("net.py", "--diff")
    assert code == 1
    assert Path("net.py").read_text() == WRONG.rstrip("\n")
    assert "-        return F.dropout(x, 0.5)\n\\ No newline at end of file\n" in out
    subprocess.run(["patch", "-p0", "-s"], input=out, text=True, check=True)
    assert Path("net.py").read_text() == FIXED.rstrip("\n")
    assert run("net.py", "--diff")[:2] == (0, "")
    assert run("-", "--diff", piped=WRONG)[0] == 1


FOUND = Findings(
    (finding for p in programs() for finding in check_source(p.text, f"a b/{p.name}")),
    [("x.py", "is not Python: 50% {line}")],
)
LIVE = Findings(
    [Finding("L12", "net.0 changes its weight", site="net.0", evidence=(("moved", 0.25),))]
)


def test_json():
    made = json.loads(as_json(FOUND))
    assert made["version"] == 1
    assert made["unchecked"] == [{"what": "x.py", "why": "is not Python: 50% {line}"}]
    assert len(made["findings"]) == len(FOUND)
    for row, one in zip(made["findings"], FOUND, strict=True):
        assert (row["code"], row["file"], row["line"], row["column"]) == (
            one.code,
            one.file,
            one.line,
            one.column + 1,
        )
        assert (row["cell"] is not None) == row["file"].endswith(".ipynb")
        assert row["url"].startswith("https://")
        assert row["severity"] in ("error", "warning", "note")
    assert json.loads(as_json(LIVE))["findings"][0]["evidence"] == {"moved": 0.25}
    assert json.loads(as_json(LIVE))["findings"][0]["line"] is None


# SARIF 2.1.0: object -> (required properties, optional properties that are used here)
SCHEMA = {
    "log": ({"version", "runs"}, {"$schema"}),
    "run": ({"tool"}, {"results", "invocations", "columnKind"}),
    "driver": ({"name"}, {"version", "semanticVersion", "rules", "informationUri"}),
    "rule": (
        {"id"},
        {"name", "shortDescription", "fullDescription", "help", "helpUri", "defaultConfiguration"},
    ),
    "invocation": ({"executionSuccessful"}, {"toolExecutionNotifications"}),
    "notification": ({"message"}, {"level"}),
    "result": ({"message"}, {"ruleId", "ruleIndex", "level", "locations", "partialFingerprints"}),
    "location": (set(), {"physicalLocation", "logicalLocations"}),
    "physical": ({"artifactLocation"}, {"region"}),
    "region": ({"startLine"}, {"startColumn", "snippet"}),
}


def valid(kind, value):
    required, optional = SCHEMA[kind]
    assert required <= set(value) <= required | optional, (kind, set(value))
    return value


@pytest.mark.parametrize("found", [FOUND, LIVE, Findings()], ids=["files", "live", "nothing"])
def test_sarif(found):
    log = valid("log", json.loads(sarif(found)))
    assert log["version"] == "2.1.0"
    (run_,) = log["runs"]
    valid("run", run_)
    assert run_["columnKind"] in ("unicodeCodePoints", "utf16CodeUnits")
    rules = valid("driver", run_["tool"]["driver"])["rules"]
    assert len({valid("rule", r)["id"] for r in rules}) == len(rules) == len(found.codes)
    for rule in rules:
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert re.match(r"https?://", rule["helpUri"])
        assert rule["name"].isalnum()
    (invocation,) = run_["invocations"]
    assert [
        valid("notification", n)["message"]["text"]
        for n in valid("invocation", invocation)["toolExecutionNotifications"]
    ] == [f"not checked: {what}: {why}" for what, why in found.unchecked]
    assert len(run_["results"]) == len(found)
    for result, one in zip(run_["results"], found, strict=True):
        valid("result", result)
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == one.code
        assert result["message"]["text"]
        assert all(isinstance(v, str) for v in result["partialFingerprints"].values())
        for place in result["locations"]:
            valid("location", place)
            if one.file:
                physical = valid("physical", place["physicalLocation"])
                assert " " not in physical["artifactLocation"]["uri"]
                region = valid("region", physical["region"])
                assert region["startLine"] >= 1
                assert region.get("startColumn", 1) >= 1
            else:
                assert place["logicalLocations"][0]["fullyQualifiedName"] == one.site


def test_sarif_fingerprints_are_one_each_and_outlive_edits_above():
    def prints(found):
        return [
            r["partialFingerprints"]["thinned/v1"]
            for r in json.loads(sarif(found))["runs"][0]["results"]
        ]

    twice = WRONG + "\n" + WRONG.partition("\n\n\n")[2].replace("Net", "Other")
    first, below = (
        prints(check_source(twice, "a.py")),
        prints(check_source("# new\n\n" + twice, "a.py")),
    )
    assert len(set(first)) == 2
    assert first == below
    assert prints(check_source(WRONG, "b.py")) != prints(check_source(WRONG, "a.py"))


def test_github_annotations():
    lines = github(FOUND).split("\n")
    assert len(lines) == len(FOUND) + 1
    for line, one in zip(lines, FOUND, strict=False):
        kind, properties, _ = re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.+)", line).groups()
        assert kind == {"error": "error", "warning": "warning", "note": "notice"}[one.severity]
        given = dict(pair.split("=", 1) for pair in properties.split(","))
        assert given["file"] == one.file
        assert given["title"] == f"{one.code} {one.rule.name}"
        assert int(given["line"]) == (one.line if one.cell is None else one.raw_line)
    assert lines[-1] == "::notice title=not checked::x.py: is not Python: 50%25 {line}"


def test_github_escapes():
    odd = Finding("L1", "50% of\r\nit: a, b", file="a,b:c%.py", line=3, column=0)
    (line,) = github(Findings([odd])).split("\n")
    assert line.startswith(
        "::error file=a%2Cb%3Ac%25.py,line=3,col=1,title=L1 dropout-without-training::"
        "50%25 of%0D%0Ait: a, b. "
    )


@pytest.mark.parametrize("form", list(FORMATS))
def test_every_format_from_the_command(folder, form):
    Path("net.py").write_text(WRONG)
    code, out, _ = run("net.py", "--format", form)
    assert code == 1
    assert "L1" in out
    status, shown, err = run("net.py", "--format", form, "--output", "found.txt")
    assert (status, shown) == (1, "")
    assert "1 error" in err
    assert Path("found.txt").read_text(encoding="utf-8") == out


def test_text_points_at_the_place():
    for one in FOUND:
        shown = text(Findings([one])).splitlines()
        line, caret = shown[1].removeprefix("    | "), shown[2].removeprefix("    | ")
        assert line == one.source.strip()
        assert one.source[one.column :].startswith(line[caret.index("^") :])
    assert "\x1b[31merror L" in text(FOUND, color=True)
    assert text(LIVE).startswith(
        "net.0: error L12 weights-lost: net.0 changes its weight\n    measured: moved 0.25\n"
    )


def test_list_and_explain(folder):
    code, out, _ = run("--list")
    assert code == 0
    assert all(re.search(rf"^{c} .*{r.name}", out, re.M) for c, r in RULES.items())
    for code in STATIC:
        status, out, _ = run("--explain", code.lower())
        assert status == 0
        assert RULES[code].why in out
        assert "Signal:" in out
        assert f"# thinned: ignore[{code}]" in out


def test_the_document_has_the_table_of_rules(folder):
    table = run("--list", "--markdown")[1].strip()
    assert table.count("\n") == len(RULES) + 1
    document = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert table in document, (
        "run python -m tests.checks.test_docs to write the table into docs/checks.md"
    )
    for code in thinned.checks.LEFT_OUT:
        assert f"| {code} |" in document
    Path("net.py").write_text(WRONG)
    shown = re.search(r"^\$ thinned check net.py\n(.*?)^```", document, re.S | re.M)[1]
    _, out, err = run("net.py")
    assert shown.splitlines() == [*out.splitlines(), re.sub(r"in .* s:", "in 0.0 s:", err.strip())]


def test_the_hook_runs_with_what_it_installs(folder):
    """The environment of pre-commit has NumPy, typer and rich; no torch, pandas or matplotlib."""
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text()
    assert "entry: thinned check\n" in hook
    assert set(re.findall(r'"(\w+)>=', hook)) == {"typer", "rich"}
    Path("net.py").write_text(WRONG)
    hidden = [
        "torch",
        "sklearn",
        "pandas",
        "pyarrow",
        "scipy",
        "matplotlib",
        "jinja2",
        "markupsafe",
    ]
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); "
    code += "sys.argv = ['thinned', 'check', 'net.py']; from thinned.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 1, done.stderr
    assert "net.py:7:16: error L1" in done.stdout
