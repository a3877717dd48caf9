"""The live checks on a corpus of right and wrong models, each one newly built."""

from __future__ import annotations

import warnings

import pytest
import torch

import thinned

from . import corpus


@pytest.mark.parametrize("case", corpus.CASES, ids=lambda case: case.name)
def test_exactly_the_mistakes_are_found(case):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some mistakes itself
        model, inputs = case.build()
        assert set(thinned.check(model, *inputs, **case.options).codes) == case.expect


def test_half_of_the_corpus_is_wrong_each_with_its_report():
    wrong = [case for case in corpus.CASES if case.expect]
    assert len(wrong) >= 40
    assert len(corpus.CASES) - len(wrong) >= 40
    assert all(case.link.startswith("https://") and len(case.expect) == 1 for case in wrong)
    assert len({case.name for case in corpus.CASES}) == len(corpus.CASES)
