"""Networks and masks for reinforcement learning: DroQ and consistent dropout."""

from __future__ import annotations

import torch

import thinned
from thinned import nn


def test_droq_is_dropout_before_layer_norm_and_draws_in_target_networks():
    net = nn.droq(3, 2, hidden=(8, 4), p=0.2)
    assert [type(m).__name__ for m in net] == ["Linear", "Dropout", "LayerNorm", "ReLU"] * 2 + [
        "Linear"
    ]
    target, x = nn.droq(3, 2, hidden=(64,), p=0.5).eval(), torch.randn(5, 3)
    assert torch.equal(target(x), target(x))
    with thinned.sampling(target):
        assert not torch.equal(target(x), target(x))


def test_consistent_dropout_keeps_the_ratio_at_one():
    """Log-probabilities of an update under the masks of the rollout: the importance ratio is 1
    before the first step.
    """
    policy = torch.nn.Sequential(torch.nn.Linear(4, 32), nn.Dropout(0.3), torch.nn.Linear(32, 3))
    x, actions = torch.randn(64, 4), torch.randint(3, (64,))
    with thinned.recording(policy) as tape:
        before = policy(x).log_softmax(1)[torch.arange(64), actions]
    other = policy(x).log_softmax(1)[torch.arange(64), actions]
    with thinned.replaying(policy, tape):
        after = policy(x).log_softmax(1)[torch.arange(64), actions]
    assert torch.equal((after - before).exp(), torch.ones(64))
    assert (other - before).abs().max() > 0.01
