"""Rules for branches that have dropout already."""

from __future__ import annotations

import torch

import thinned
from thinned import At, PolicyRule
from thinned.surgery.flow import branches
from thinned.surgery.rule_makers import branch_rule
from thinned.surgery.trace import trace_model

from .models import T


class Ending(T.Module):
    """A branch with a module that ends with dropout itself, as attention in GPT-2 does."""

    def __init__(self, rate):
        super().__init__()
        self.branch = T.Sequential(T.Linear(8, 16), T.ReLU(), T.Linear(16, 8), T.Dropout(rate))

    def forward(self, x):
        return x + self.branch(x)


def test_a_branch_that_ends_with_dropout_has_its_rate_set():
    """One layer at the end, and no second layer behind it; drop path, another method, is added."""

    def net():
        torch.manual_seed(0)
        return T.Sequential(T.Linear(8, 8), Ending(0.3), Ending(0.0))

    def rules(model):
        seen = trace_model(model, (x,), {})
        return [branch_rule(seen, branch, 0.1, None) for branch in branches(seen)]

    x = torch.randn(4, 8)
    assert rules(net()) == [
        PolicyRule("set rate", At("name", f"{i}.branch.3"), 0.1) for i in (1, 2)
    ]
    model = net()
    edits = thinned.apply(model, "depth", x, rate=0.2)
    assert [line.split(":")[0] for line in str(edits).splitlines()[:2]] == [
        "after 1.branch",
        "after 2.branch",
    ]
    assert model[1].branch[3].p == 0.3
    model = net()
    model[1].branch[3] = model[2].branch[3] = T.Dropout(0.3)  # one layer that ends both
    assert [rule.do for rule in rules(model)] == ["set rate"] * 2
    model.append(
        model[1].branch[3]
    )  # and stands elsewhere too, so its rate is not the branches' own
    assert [rule.do for rule in rules(model)] == ["insert after"] * 2
