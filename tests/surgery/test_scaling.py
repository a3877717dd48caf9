"""``rescale``: a rescaled model trains and evaluates as before, and undo is exact."""

from __future__ import annotations

import copy

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned.algebra import Linear


def mlp(scale="classic"):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        nn.Dropout(p=0.2, scale=scale),
        torch.nn.Linear(6, 16),
        torch.nn.ReLU(),
        nn.Dropout(p=0.5, scale=scale),
        torch.nn.Linear(16, 3),
        torch.nn.Softmax(1),
    ).double()


def cnn(scale="classic"):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        nn.SpatialDropout(p=0.4, scale=scale),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 4, 2),
        nn.StochasticDepth(p=0.3),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    ).double()


class Residual(torch.nn.Module):
    """Two branches after one dropout are added; a size is read."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.drop = nn.Dropout(p=0.5, scale="classic")
        self.a, self.b = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

    def forward(self, x):
        h = self.drop(x)
        h = torch.relu(h) + h.view(h.size(0), -1)
        return self.b(self.a(h))


CASES = [
    (mlp, (40, 6), "inverted"),
    (lambda: mlp("inverted"), (40, 6), "classic"),
    (cnn, (5, 2, 8, 8), "inverted"),
]
CASES += [(lambda: Residual().double(), (40, 6), "inverted")]


@pytest.mark.parametrize(("build", "shape", "to"), CASES)
def test_the_function_is_the_same_in_training_and_evaluation(build, shape, to):
    model, x = build(), torch.randn(shape, dtype=torch.float64)
    key = thinned.key(model, seed=1)
    key.at(0)
    trained, evaluated, state = model(x), model.eval()(x), copy.deepcopy(model.state_dict())
    model.train()
    edits = thinned.rescale(model, to)
    key.at(0)
    torch.testing.assert_close(model(x), trained)
    torch.testing.assert_close(model.eval()(x), evaluated)
    assert len(thinned.rescale(model, to)) == 0
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, state[n])]
    assert changed
    assert all(n.endswith("weight") for n in changed)
    edits.undo()
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    torch.testing.assert_close(model(x), evaluated)


def test_weights_times_q_at_test_is_what_inverted_means():
    """Srivastava's rule by hand: a classic network's weights times 1 - p, and no dropout, is the
    rescaled model in eval.
    """
    model, x = mlp(), torch.randn(9, 6, dtype=torch.float64)
    first, second = model[1].weight.detach().clone(), model[4].weight.detach().clone()
    thinned.rescale(model)
    torch.testing.assert_close(model[1].weight, 0.8 * first)
    torch.testing.assert_close(model[4].weight, 0.5 * second)
    assert "dropout: classic -> inverted" not in repr(model)
    hidden = torch.relu(x @ (0.8 * first).T + model[1].bias)
    torch.testing.assert_close(
        model.eval()(x), (hidden @ (0.5 * second).T + model[4].bias).softmax(1)
    )


def test_trajectories_agree_at_the_rates_that_the_scaling_asks_for():
    """SGD with momentum on classic at eta is SGD on inverted at q^2 eta on the weights after the
    dropout, step by step.
    """
    q = 0.5
    torch.manual_seed(0)
    classic = torch.nn.Sequential(
        nn.Dropout(p=1 - q, scale="classic"), torch.nn.Linear(6, 2)
    ).double()
    inverted = copy.deepcopy(classic)
    thinned.rescale(inverted)
    x, y = torch.randn(20, 6).double(), torch.randn(20, 2).double()
    runs = []
    for model, rate in ((classic, 0.1), (inverted, 0.1 * q * q)):
        linear = model[1]
        groups = [{"params": [linear.weight], "lr": rate}, {"params": [linear.bias], "lr": 0.1}]
        optimizer, key = torch.optim.SGD(groups, momentum=0.9), thinned.key(model)
        for step in range(30):
            key.at(step)
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
        runs.append(linear.weight.detach())
    torch.testing.assert_close(runs[1], q * runs[0])


def test_a_model_that_cannot_be_traced_names_what_follows():
    class Loops(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.out = (
                nn.Dropout(p=0.5, scale="classic"),
                torch.nn.Linear(4, 2),
            )

        def forward(self, x):
            return self.out(self.drop(x)) if x.sum() > 0 else self.out(self.drop(-x))

    model, x = Loops().eval(), torch.randn(3, 4)
    with pytest.raises(InputError, match=r"cannot be read.*pass following="):
        thinned.rescale(model)
    before = model(x)
    thinned.rescale(model, following={"drop": "out"})
    torch.testing.assert_close(model(x), before)


def sequence(*modules):
    return torch.nn.Sequential(*modules)


CLASSIC = {"p": 0.5, "scale": "classic"}


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (
            lambda: sequence(torch.nn.Linear(2, 2), nn.Dropout(**CLASSIC)),
            {},
            "reaches the end of the model",
        ),
        (
            lambda: sequence(nn.Dropout(**CLASSIC), torch.nn.Sigmoid(), torch.nn.Linear(2, 2)),
            {},
            "does not scale",
        ),
        (
            lambda: sequence(nn.Dropout(p=1.0, scale="classic"), torch.nn.Linear(2, 2)),
            {},
            r"drops everything",
        ),
        (
            lambda: sequence(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2)),
            {"to": "classic"},
            "call thinned.replace",
        ),
        (
            lambda: sequence(nn.Dropout(Linear(0.1, 0.5, 9)), torch.nn.Linear(2, 2)),
            {"to": "classic"},
            "has a schedule",
        ),
        (mlp, {"to": "test"}, "unknown scaling 'test'"),
        (mlp, {"following": {"0": "1"}}, "lacks '3'"),
        (mlp, {"following": {"0": "2", "3": "4"}}, "names '2' after '0', which is not a linear"),
        (mlp, {"following": {"9": "1"}}, "unknown dropout layer to rescale '9'"),
    ],
)
def test_refused_before_anything_is_changed(model, settings, message):
    model = model()
    state, specs = (
        copy.deepcopy(model.state_dict()),
        [m.spec for m in model if isinstance(m, nn.Dropout)],
    )
    with pytest.raises(InputError, match=message):
        thinned.rescale(model, **settings)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    assert specs == [m.spec for m in model if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h + 1,
        lambda h: torch.add(input=h, other=1.0),
        lambda h: h * h,
        lambda h: 1 / h,
        torch.tanh,
        lambda h: h.exp(),
    ],
)
def test_operations_that_do_not_scale_are_found(between):
    class Between(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.out = (
                nn.Dropout(p=0.5, scale="classic"),
                torch.nn.Linear(4, 2),
            )

        def forward(self, x):
            return self.out(between(self.drop(x)))

    with pytest.raises(InputError, match="does not scale with its input"):
        thinned.rescale(Between())


def test_noise_without_a_mean_to_correct_is_left():
    model = sequence(
        nn.SpecDropout(presets.gaussian_dropout(0.5)), torch.nn.Linear(2, 2), nn.DropBlock2d(0.1, 3)
    )
    assert repr(thinned.rescale(model, "classic")) == "nothing changed"
