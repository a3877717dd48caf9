"""Policies as records: what they refuse, and the files that hold them."""

from __future__ import annotations

import pytest

import thinned
from thinned import At, InputError, Policy, PolicyRule

from .models import mlp


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolicyRule("drop", "x", 0.5), "unknown action 'drop'"),
        (lambda: PolicyRule("insert after", None, 0.5), "needs a where"),
        (
            lambda: PolicyRule("insert after", 3, 0.5),
            "where has to be a name, a class or a function",
        ),
        (
            lambda: PolicyRule("insert after", "x", 2.0),
            "the rate to insert after has to be between 0 and 1",
        ),
        (lambda: PolicyRule("insert after", "x", 0.5, "dropuot"), "dropout"),
        (lambda: PolicyRule("insert after", "x", 0.5, 7), "a preset's name or a Drop"),
        (lambda: PolicyRule("set rate", "x"), "needs a rate"),
        (lambda: PolicyRule("set rate", "x", 0.5, "gaussian_dropout"), "takes no spec"),
        (lambda: At("names", "x"), "unknown kind of where 'names'"),
        (lambda: At("name", 3), "has to be a string"),
        (lambda: At("call", "x"), "has a function"),
        (lambda: At("name", "x", "relu"), "has a function"),
        (lambda: Policy(("hidden",)), "a policy holds rules"),
        (lambda: Policy.from_json([]), "a policy has to be an object"),
        (lambda: Policy.from_json({"format": 2, "rules": []}), "format 2"),
        (lambda: Policy.from_json({"rules": []}), "a policy lacks 'format'"),
        (lambda: Policy.from_json({"format": 1, "rules": {}}), "have to be lists"),
        (
            lambda: Policy.from_json({"format": 1, "rules": [], "rate": 1}),
            "unknown part of a policy 'rate'",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace"}]}),
            "rule 1: a rule lacks 'where'",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace", "where": 3}]}),
            "rule 1: where has to be",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace", "where": {}}]}),
            "rule 1: where has to be one of",
        ),
        (
            lambda: Policy.from_json(
                {
                    "format": 1,
                    "rules": [
                        {
                            "do": "insert after",
                            "where": {"call": "relu", "module": "", "number": -1},
                        }
                    ],
                }
            ),
            "rule 1: number and operand",
        ),
        (
            lambda: Policy.from_json({"sites": [{"where": "input"}]}),
            "a site of a study's policy lacks 'spec'",
        ),
    ],
)
def test_invalid_records_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_files_without_a_policy_are_refused(tmp_path):
    for text in ("{", "[]", '"hidden"', "\ufeff"):
        (tmp_path / "policy.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            thinned.apply(mlp(), tmp_path / "policy.json")
