"""Losses of several passes, each against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from thinned import InputError, nn


def test_r_drop():
    """Against torch's own divergences; zero where the passes agree, and symmetric."""
    torch.manual_seed(0)
    a, b, target = torch.randn(7, 5), torch.randn(7, 5), torch.randint(5, (7,))
    ce = torch.nn.functional.cross_entropy

    def kl(p, q):
        return torch.nn.functional.kl_div(
            q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True
        )

    paper = ce(a, target) + ce(b, target) + 0.5 * 3.0 * (kl(a, b) + kl(b, a))
    torch.testing.assert_close(nn.r_drop(a, b, target, alpha=3.0), 0.5 * paper)
    torch.testing.assert_close(nn.r_drop(a, a, target, alpha=3.0), ce(a, target))
    torch.testing.assert_close(nn.r_drop(a, b, target), nn.r_drop(b, a, target))


def test_r_drop_of_classes_that_are_ruled_out():
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    a[:, 4] = b[:, 4] = -math.inf
    a.requires_grad_()
    target = torch.tensor([0, 1, 2, 3])
    loss = nn.r_drop(a, b, target)
    torch.testing.assert_close(loss, nn.r_drop(a[:, :4], b[:, :4], target))
    loss.backward()
    assert a.grad.isfinite().all()


def test_fraternal_and_multi_sample():
    torch.manual_seed(0)
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    loss = lambda y: y.abs().mean()  # noqa: E731
    torch.testing.assert_close(
        nn.fraternal(a, b, loss, 0.2), 0.5 * (loss(a) + loss(b)) + 0.2 * ((a - b) ** 2).mean()
    )
    head, drops = torch.nn.Linear(3, 2), [nn.Dropout(0.5) for _ in range(64)]
    y = nn.multi_sample(a, drops, head)
    assert y.shape == (64, 4, 2)
    assert not torch.equal(y[0], y[1])
    for drop in drops:
        drop.eval()
    assert torch.equal(nn.multi_sample(a, drops, head)[5], head(a))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.r_drop(torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2).long()), "one shape"),
        (lambda: nn.multi_sample(torch.ones(2), [], torch.nn.Identity()), "at least one dropout"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
