"""Every live rule holds for the layers of :mod:`thinned.nn` as it holds for those of torch."""

from __future__ import annotations

import inspect
import random
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
from thinned import nn as tnn
from thinned.algebra.schedule import Early
from thinned.checks.live.runner import CHECKS
from thinned.nn.module import DropoutModule

from . import corpus
from .corpus import Calls, images, mlp, rows, sequences

SHARED_NAMES = (
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
)
TORCH_LAYERS = re.compile(rf"(?<!\w)nn\.(?:{'|'.join(SHARED_NAMES)}|TransformerEncoderLayer)\(")
SWAPPED = [case for case in corpus.CASES if TORCH_LAYERS.search(inspect.getsource(case.build))]
UNREGISTERED = {"layer_kept_in_a_list", "layer_made_in_forward"}  # not submodules of the model

# Rules that rightly differ for our layers, or do not concern dropout layers, with the reason.
EXEMPT = {
    "L2": "the fused attention functions have no layer of ours; nn.AttentionDropout is an ordinary "
    "layer, which eval() switches off",
    "L4": "the rate is checked when it is set, and the contract tests measure what is dropped",
    "L6": "the rule is about batch normalization; test_swapped_layers covers it next to our layers",
    "L9": "test_masks_on_two_ranks covers keyed layers of ours",
    "L11": "the rule is about the dropout argument of torch's recurrent networks",
    "L12": "nn.DropConnect and nn.WeightDrop mask a copy; nothing of ours writes to a parameter",
    "L20": "the contract tests measure the rates of all our layers",
    "L30": "gradient tests compare the backward passes of all our layers with finite differences",
}


class OurLayers:
    """``torch.nn`` with our layers under torch's names."""

    def __getattr__(self, name):
        return getattr(tnn if name in SHARED_NAMES else nn, name)


def findings(build, options):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some mistakes itself
        model, inputs = build()
        return {(f.code, f.site) for f in thinned.check(model, *inputs, **options)}


@pytest.mark.parametrize("case", SWAPPED, ids=lambda case: case.name)
def test_swapped_layers(case, monkeypatch):
    """Built with our layers, and with torch's replaced by ours, a model has the same findings."""
    of_torch = findings(case.build, case.options)
    assert {code for code, _ in of_torch} == case.expect

    def replaced():
        model, inputs = case.build()
        thinned.replace(model)
        return model, inputs

    if case.name not in UNREGISTERED:
        assert any(isinstance(m, DropoutModule) for m in replaced()[0].modules())
        assert findings(replaced, case.options) == of_torch
    monkeypatch.setattr(corpus, "nn", OurLayers())
    assert findings(case.build, case.options) == of_torch


OWN = []


def own(code, **options):
    """A model of our layers that breaks exactly one rule, or none (``code`` "")."""

    def add(build):
        OWN.append(pytest.param(code, build, options, id=build.__name__))
        return build

    return add


@own("L1")
def kept_in_a_list():
    return Calls(lambda m, h: m.drops[0](h), drops=[tnn.GaussianDropout(0.5)]), (rows(),)


@own("L32")
def made_in_forward():
    return Calls(lambda m, h: tnn.Dropout(m.p)(h)), (rows(),)


@own("L3")
def rate_overwritten_in_evaluation():
    def drop(m, h):
        if not m.training:
            m.drop.p = 0.0
        return m.drop(h)

    return Calls(drop, drop=tnn.Dropout(0.3)), (rows(),)


@own("L5")
def noise_before_batch_normalization():
    norm = nn.BatchNorm1d(32)
    return nn.Sequential(nn.Linear(16, 32), tnn.GaussianDropout(0.5), norm, nn.Linear(32, 4)), (
        rows(64),
    )


@own("L8")
def checkpoint_without_the_generator():
    model = corpus.Segments(tnn.DropPath(0.5), use_reentrant=False, preserve_rng_state=False)
    return model, (rows(),)


@own("L10")
def channel_dropout_on_a_sequence():
    return mlp(tnn.Dropout2d(0.3)), (sequences(),)


@own("")
def channel_dropout_on_images():
    layers = nn.Conv2d(4, 8, 3), tnn.Dropout2d(0.3), nn.Flatten(), nn.Linear(800, 4)
    return nn.Sequential(*layers), (images(),)


@own("L13", purpose="policy")
def policy():
    return nn.Sequential(mlp(tnn.GaussianDropout(0.1)), nn.LogSoftmax(-1)), (rows(),)


@own("L14", purpose="classification")
def dropout_on_logits():
    return nn.Sequential(mlp(), tnn.DropPath(0.3)), (rows(),)


@own("L15", purpose="regression")
def rectifier_after_dropout_in_a_regression():
    torch.manual_seed(2)
    net = nn.Sequential(tnn.Dropout(0.5), nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 1))
    with torch.no_grad():
        net[3].weight.abs_()
    return net, (rows(256),)


@own("L17")
def scaled_again_in_evaluation():
    def drop(m, h):
        h = m.drop(h)
        return h if m.training else h * (1 - m.p)

    return Calls(drop, p=0.3, drop=tnn.SpatialDropout(0.3)), (rows(),)


@own("")
def classic_and_scaled_by_hand_in_neither():
    return mlp(tnn.Dropout(0.3, scale="classic")), (rows(),)


@own("")
def unscaled_in_training_and_scaled_by_hand():
    spec = thinned.Drop(thinned.algebra.Bernoulli(0.3), scale=thinned.algebra.Unscaled())

    def drop(m, h):
        h = m.drop(h)
        return h if m.training else h * (1 - m.p)

    return Calls(drop, p=0.3, drop=tnn.SpecDropout(spec)), (rows(),)


@own("L18")
def seeded_in_forward():
    def drop(m, h):
        torch.manual_seed(0)
        return m.drop(h)

    return Calls(drop, drop=tnn.Dropout(0.5)), (rows(),)


@own("L19")
def rate_one():
    return mlp(tnn.Dropout(1.0)), (rows(),)


@own("L21")
def output_not_used():
    def drop(m, h):
        m.drop(h)
        return h

    return Calls(drop, drop=tnn.DropPath(0.5)), (rows(),)


@own("L21")
def left_in_evaluation():
    model = nn.Sequential(mlp(tnn.Dropout(0.1)).eval(), nn.Linear(4, 2))
    model.training = True
    return model, (rows(),)


@own("L21")
def switched_off_in_forward():
    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop = nn.Linear(16, 4), tnn.Dropout(0.5)

        def forward(self, x):
            return self.drop.eval()(self.first(x))

    return Off().eval(), (rows(),)


@own("L22")
def ordinary_dropout_on_selu():
    net = nn.Sequential(nn.Linear(16, 32), nn.SELU(), tnn.GaussianDropout(0.1), nn.Linear(32, 4))
    return net, (rows(),)


@own("L22")
def alpha_dropout_on_relu():
    return mlp(tnn.AlphaDropout(0.1)), (rows(),)


@own("L28", ddp=True)
def layers_skipped_when_distributed():
    def skip(m, layer, x):
        return x if m.training and random.random() < 0.4 else x + m.drop(torch.tanh(layer(x)))

    model = corpus.Skipping(skip)
    model.drop = tnn.Dropout(0.1)
    return model, (rows(),)


@own("L29", purpose="monte carlo")
def nothing_to_draw():
    return mlp(tnn.Dropout(0.0)), (rows(),)


@own("L36")
def added_after_the_key():
    model = mlp(tnn.GaussianDropout(0.2))
    thinned.key(model, 0).at(0)
    model.insert(3, tnn.GaussianDropout(0.2))
    return model, (rows(),)


@own("L37")
def early_dropout_that_never_ends():
    model = mlp(tnn.Dropout(Early(0.2, until=5)))
    model(rows()).sum().backward()
    return model, (rows(),)


@own("")
def functional_dropout_next_to_ours():
    return Calls(lambda m, h: F.dropout(m.drop(h), m.p, m.training), drop=tnn.Dropout(0.2)), (
        rows(),
    )


@pytest.mark.parametrize(("code", "build", "options"), OWN)
def test_own_layers(code, build, options):
    assert {found for found, _ in findings(build, options)} == ({code} if code else set())


def test_every_rule_is_covered_or_exempt():
    covered = {param.values[0] for param in OWN} - {""}
    assert covered | EXEMPT.keys() == {*CHECKS, "L9"}
    assert not covered & EXEMPT.keys()
