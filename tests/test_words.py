"""The field's words: retired words stay out of docstrings, comments, messages, pages and names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests" / "checks" / "static" / "corpus"  # programs in other people's words

# retired word -> what to write. docs/glossary.md defines the words that are used.
RETIRED = {
    r"falls?|fell|fallen|falling": "is dropped, the dropped units",
    r"thrown": "is dropped",
    r"stays": "is kept, remains",
    r"coins?": "Bernoulli draw, mask entry",
    r"laws?": "noise distribution",
    r"points?": "spec, Drop",
    r"hosts?": "dropout module, layer",
    r"whose|whom": "key, sample ids; or another sentence",
    r"belong(?:s|ed|ing)? to": "is a function of, is keyed by",
    r"houses?": "framework",
    r"faces?": "framework, API",
    r"reali[sz](?:ed|es|e)": "measured, actual",
    r"pric(?:e|es|ed)": "KL term, cost",
    r"told|said": "reported, printed",
    r"mend(?:s|ed|ing)?": "fix",
    r"beside": "next to, compared with",
    r"gravest": "most severe",
    r"arms?": "method",
    r"further draws?": "independent draws",
    r"plain(?:ly)?": "ordinary, unwrapped",
    r"the (?:batch|row|example|layer|model)'s": "of the batch, of each example",
    r"rooms?": "file",
    r"\w*isations?|\w*(?:normal|regular|initial|optim|recogn|summar|organ|general|random|minim|maxim|"
    r"character|visual|parametr|standard|local|vector|special|serial|synchron|emphas|penal|author|"
    r"real|util|final|quant|material)is(?:e|es|ed|ing|er|ers)": "American spelling",
    r"\w*(?:colou|behaviou|favou|neighbou|flavou|labou|hono(?=ur)|rigou|vapou)rs?(?:ed|ing|ite|al)?"
    r"|centred?|catalogues?|licences?|analysed?|grey|programmes?|modell(?:ed|ing)|labell(?:ed|ing)"
    r"|parametris\w*|artefacts?": "American spelling",
}
# where a retired word means something else
ALLOWED = re.compile(
    r"""fall(?:s|ing|en)?[ ]back|fell[ ]back|falls?[ ]through
    |(?:floating|fixed|offset|decimal|data|entry|end|starting|percentage|change)[- ]points?
    |(?:code|check)[- ]points?
    |checkpoints?|endpoints?|point[ ](?:to|out|of[ ]view)|points[ ](?:to|out|at)
    |Hugging[ ]Face|HuggingFace|Inter[ ]face
    |plain[ ](?:text|English|Python|C\+\+)|localhost|hosting
    """,
    re.X,
)
PATTERNS = {
    re.compile(rf"(?<![\w.])(?:{word})(?![\w(=])", re.I): use for word, use in RETIRED.items()
}
# parts of identifiers, split at underscores and capitals
NAMES = re.compile(
    r"^(?:fell|falls|falling|fallen|coins?|whose|whom|hosts?|told|mended|realised|house|gravest|beside)$"
)
CODE = re.compile(r"``[^`]*``|`[^`]*`|https?://\S+|:\w+:`[^`]*`")


def found(text: str) -> list[str]:
    text = ALLOWED.sub(lambda m: " " * len(m.group(0)), CODE.sub(" ", text))
    return [f"{m.group(0)!r} ({use})" for p, use in PATTERNS.items() for m in p.finditer(text)]


def prose(path: Path, strings: bool):
    """(line, text) of each comment, docstring and, with ``strings``, each message of a file."""
    source = path.read_text()
    tree = ast.parse(source)
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            docs.add(node.body[0].lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING:
            doc = token.start[0] in docs
            if doc:
                lines = token.string.split("\n")
                code = re.compile(r"\s*(>>>|\.\.\.) ")
                for i, line in enumerate(lines):
                    expected = i and code.match(lines[i - 1]) and not code.match(line)
                    if not code.match(line) and not expected:
                        yield token.start[0] + i, re.sub(r"^ +\w+: ", "", line)  # in Args
            elif strings and " " in token.string.strip():
                yield token.start[0], re.sub(r"\{[^{}]*\}", "", token.string)


def names(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def files() -> list[Path]:
    roots = [ROOT / name for name in ("src", "tests", "benchmarks", "examples")]
    python = [p for root in roots for p in root.rglob("*.py") if CORPUS not in p.parents]
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    return sorted(p for p in (*python, *pages) if p.name != "test_words.py")


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_retired_words_are_not_used(path):
    problems = []
    if path.suffix == ".md":
        if path.name == "glossary.md":  # it names them
            return
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
        text = re.sub(r"^    .*$", "", text, flags=re.M)
        problems = found(text)
    else:
        for line, text in prose(path, strings="tests" not in path.parts):
            problems += [f"{path.name}:{line}: {problem}" for problem in found(text)]
        for line, name in names(path):
            parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
            problems += [f"{path.name}:{line}: {name}" for p in parts if NAMES.match(p.lower())]
    assert not problems, "\n".join(problems)


def test_the_words_are_recognized():
    """The check sees what it is for, and leaves what means something else."""
    for text in ("a coin falls for each row", "Whose noise it is", "normalisation"):
        assert found(text), text
    for text in ("the batch's mask", "its behaviour"):
        assert found(text), text
    clean = "Hugging Face falls back to floating-point numbers at a checkpoint; see ``law``."
    assert not found(clean)
