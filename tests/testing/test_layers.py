"""Every layer of the catalog through the whole contract of layers, in several configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import thinned
from thinned import CATALOG, algebra, functional, nn, presets
from thinned.nn.layer_of import layer_of
from thinned.testing import LAYER_CHECKS, LayerCase


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


X = tensor(6, 12)  # [examples, features]
MAPS = tensor(5, 4, 8, 8)
TOKENS = tensor(5, 9, 12)  # [examples, tokens, features]
IDS = torch.arange(20).reshape(5, 4)


def moved(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer after its parameters went away from where they were."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5).add_(0.1)
    return layer


def noisy(layer: nn.SparseVariationalDropout) -> torch.nn.Module:
    """With weights of every rate, so that some are left out."""
    torch.nn.init.uniform_(layer.log_variance, -8.0, 2.0)
    return layer


EDGES = torch.tensor(
    [[0, 1, 1, 2, 2, 3, 3, 0, 4, 5, 5, 0], [1, 0, 2, 1, 3, 2, 0, 3, 5, 4, 0, 5]]
)  # both directions
QKV = (
    tensor(5, 4, 6, 8),
    tensor(5, 4, 7, 8).flip(0),
    tensor(5, 4, 7, 3),
)  # [examples, heads, tokens, features]
MASK = tensor(5, 1, 6, 7) > -0.5  # [examples, 1, queries, keys], True where a key takes part


def linked(*layers: torch.nn.Module) -> torch.nn.Module:
    """A chain of linked layers, which compute only the kept units."""
    chain = torch.nn.Sequential(*layers)
    thinned.thin(chain)
    return chain


class Softmaxed(torch.nn.Module):
    """Scores through a layer to attention, since -inf has no distance and no slope."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return self.layer(scores).softmax(-1)


IDS = torch.arange(45).reshape(5, 9) % 11
STEPS = tensor(4, 5, 6)  # [steps, examples, features]


def recurrent(
    kind: type[torch.nn.RNNBase] = torch.nn.LSTM, layers: int = 1, both: bool = False, **rates
) -> LayerCase:
    """A recurrent network with dropout at ``rates``, time first."""
    build = lambda: nn.DropState(kind(6, 3, num_layers=layers, bidirectional=both), **rates)  # noqa: E731
    return LayerCase(build, (STEPS,), examples=1)


LAYERS = {
    "standout": LayerCase(lambda: nn.Standout(torch.nn.Linear(12, 7)), (X,), rated=False),
    "jumpout": LayerCase(lambda: nn.Jumpout(0.3), (X.relu() + 0.01,)),
    "fast_dropout": LayerCase(
        lambda: nn.FastDropout(torch.nn.Linear(12, 7), 0.5, "relu"), (X,), draws=False
    ),
    "thinned": LayerCase(lambda: nn.Thinned(0.5), (X,), examples=None),
    "thinned-maps": LayerCase(lambda: nn.Thinned(0.5, groups=2, dims=2), (MAPS,), examples=None),
    "thinned-linked": LayerCase(
        lambda: linked(
            torch.nn.Linear(12, 9), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(9, 4)
        ),
        (X,),
        examples=None,
    ),
    "thinned-linked-maps": LayerCase(
        lambda: linked(torch.nn.Conv2d(4, 6, 3), torch.nn.Dropout2d(0.5), torch.nn.Conv2d(6, 3, 3)),
        (MAPS,),
        examples=None,
    ),
    "disout": LayerCase(
        lambda: nn.Disout(0.3, 3), (MAPS,), exact_gradient=False
    ),  # the noise's size is held constant
    "disout-even": LayerCase(
        lambda: nn.Disout(0.3, (4, 2), 2.0, 0.1), (MAPS,), exact_gradient=False
    ),
    "cutout": LayerCase(lambda: nn.Cutout(4, holes=2), (MAPS,), rated=False),
    "max_pool_dropout": LayerCase(lambda: nn.MaxPoolDropout2d(2), (MAPS.abs() + 0.1,)),
    "max_pool_dropout-1d": LayerCase(lambda: nn.MaxPoolDropout1d(3, 2), (TOKENS.abs() + 0.1,)),
    "max_pool_dropout-3d": LayerCase(
        lambda: nn.MaxPoolDropout3d(2), (MAPS.abs().reshape(5, 4, 4, 4, 4) + 0.1,)
    ),
    "weighted_channel_dropout": LayerCase(  # the scale is held constant
        lambda: nn.WeightedChannelDropout(0.5, extra=0.2), (MAPS.abs() + 0.1,), exact_gradient=False
    ),
    "drop_connect": LayerCase(lambda: nn.DropConnect(torch.nn.Linear(12, 7)), (X,)),
    "drop_connect-moments": LayerCase(
        lambda: nn.DropConnect(torch.nn.Linear(12, 7), sampling="moments"), (X,)
    ),
    "drop_connect-shared": LayerCase(
        lambda: nn.DropConnect(torch.nn.Linear(12, 7), presets.drop_connect(per="batch")),
        (X,),
        None,
    ),
    "drop_connect-conv": LayerCase(lambda: nn.DropConnect(torch.nn.Conv2d(4, 3, 3)), (MAPS,), None),
    "drop_connect-transposed": LayerCase(
        lambda: nn.DropConnect(torch.nn.ConvTranspose2d(4, 3, 3)), (MAPS,), None
    ),
    "drop_connect-attention": LayerCase(
        lambda: nn.DropConnect(torch.nn.MultiheadAttention(12, 3, batch_first=True)),
        (TOKENS,) * 3,
        None,
    ),
    "drop_connect-lstm": LayerCase(
        lambda: nn.DropConnect(torch.nn.LSTM(12, 7, 2, batch_first=True)),
        (TOKENS,),
        None,
        compiles=False,
    ),
    "drop_connect-embedding": LayerCase(
        lambda: nn.DropConnect(torch.nn.Embedding(20, 6)), (IDS,), None
    ),
    "mixout": LayerCase(lambda: moved(nn.Mixout(torch.nn.Linear(12, 7), 0.6)), (X,), None),
    "mixout-unit": LayerCase(
        lambda: moved(nn.Mixout(torch.nn.Conv2d(4, 3, 3), 0.6, per="unit")), (MAPS,), None
    ),
    "shakeout": LayerCase(lambda: nn.Shakeout(torch.nn.Linear(12, 7), 0.4, 0.3), (X,)),
    "targeted_dropout": LayerCase(
        lambda: nn.TargetedDropout(torch.nn.Linear(12, 7), 0.6, 0.5), (X,), None
    ),
    "targeted_unit_dropout": LayerCase(
        lambda: nn.TargetedUnitDropout(torch.nn.Conv2d(4, 8, 3), 0.6, 0.5), (MAPS,), None
    ),
    "lora_dropout": LayerCase(
        lambda: moved(nn.LoraDropout(torch.nn.Linear(12, 7), 3, 6.0, 0.4)), (X,)
    ),
    "concrete_dropout": LayerCase(lambda: nn.ConcreteDropout(12, 0.3), (X,), rated=False),
    "concrete_dropout-maps": LayerCase(
        lambda: nn.ConcreteDropout(4, 0.3, 2 / 3, per="channel", unbiased=True),
        (MAPS,),
        rated=False,
    ),
    "variational_dropout": LayerCase(lambda: nn.VariationalDropout(12), (X,), rated=False),
    "variational_dropout-layer": LayerCase(
        lambda: nn.VariationalDropout(12, 0.4, per="layer"), (TOKENS,), rated=False
    ),
    "sparse_variational_dropout": LayerCase(
        lambda: noisy(nn.SparseVariationalDropout(torch.nn.Linear(12, 7))), (X,), rated=False
    ),
    "sparse_variational_dropout-maps": LayerCase(
        lambda: noisy(nn.SparseVariationalDropout(torch.nn.Conv2d(4, 3, 3, bias=False))),
        (MAPS,),
        rated=False,
    ),
    "information_dropout": LayerCase(
        lambda: nn.InformationDropout(
            torch.nn.Sequential(torch.nn.Linear(12, 7), torch.nn.ReLU()), torch.nn.Linear(12, 7)
        ),
        (X,),
        rated=False,
    ),
    "layer_drop": LayerCase(
        lambda: nn.LayerDrop([torch.nn.Linear(12, 12) for _ in range(4)], 0.5), (X,), examples=None
    ),
    "shake_drop": LayerCase(lambda: nn.ShakeDrop(0.95), (X,), exact_gradient=False),
    "shake_shake": LayerCase(nn.ShakeShake, (X, X.flip(0)), exact_gradient=False, rated=False),
    "shake-keep": LayerCase(lambda: nn.ShakeShake("keep"), (X, X.flip(0)), rated=False),
    "swapout": LayerCase(nn.Swapout, (X, X.flip(0))),
    "swapout-skip": LayerCase(lambda: nn.Swapout(0.3, skip_p=0.5), (X, X.flip(0)), rated=False),
    "jumpout-least": LayerCase(
        lambda: nn.Jumpout(0.1, min_rate=0.3), (X.relu() + 0.01,), rated=False
    ),
    "embedding_dropout": LayerCase(
        lambda: nn.EmbeddingDropout(torch.nn.Embedding(12, 4, padding_idx=11), 0.5),
        (IDS,),
        examples=None,
    ),
    "word_dropout": LayerCase(
        lambda: nn.WordDropout(0.5, unknown_id=12), (IDS,), differentiable=False
    ),
    "variational_rnn_dropout": recurrent(states=0.5),
    "variational_dropout-gru-untied": recurrent(torch.nn.GRU, layers=2, states=0.5, tied=False),
    "locked_dropout-rnn": recurrent(layers=2, both=True, inputs=0.4, between=0.5, outputs=0.3),
    "weight_drop": LayerCase(
        lambda: nn.DropState(torch.nn.LSTM(6, 3), weights=0.5), (STEPS,), examples=None
    ),
    "recurrent_dropout": recurrent(states=0.5, method="recurrent"),
    "recurrent_dropout-gru": recurrent(
        torch.nn.GRU, both=True, states=0.5, method="recurrent", per="sequence"
    ),
    "rnn_drop": recurrent(states=0.5, method="rnndrop"),
    "zoneout": recurrent(layers=2, both=True, states=0.3, cells=0.5, method="zoneout"),
    "zoneout-gru": recurrent(torch.nn.GRU, states=0.5, method="zoneout"),
    "zoneout-rnn": recurrent(torch.nn.RNN, states=0.5, method="zoneout"),
    "patch_dropout": LayerCase(lambda: nn.PatchDropout(0.5), (TOKENS,)),
    "patch_dropout-indices": LayerCase(
        lambda: nn.PatchDropout(0.3, prefix=0, indices=True), (TOKENS,)
    ),
    "hidden_cut": LayerCase(lambda: nn.HiddenCut(0.3), (TOKENS,)),
    "attention_dropout": LayerCase(lambda: nn.AttentionDropout(0.3), QKV),
    "attention_dropout-causal": LayerCase(lambda: nn.AttentionDropout(0.3), (*QKV, None, True)),
    "attention_dropout-masked": LayerCase(
        lambda: nn.AttentionDropout(0.3, scale=0.2), (*QKV, MASK)
    ),
    "attention_dropout-keys": LayerCase(lambda: nn.AttentionDropout(0.6, "keys"), (*QKV, MASK)),
    "attention_dropout-heads": LayerCase(lambda: nn.AttentionDropout(0.5, "heads"), QKV),
    "drop_key": LayerCase(lambda: Softmaxed(nn.DropKey(0.5)), (tensor(5, 4, 6, 7),)),
    "drop_head": LayerCase(lambda: nn.DropHead(0.5), (tensor(5, 4, 6, 7),)),
    "droq": LayerCase(lambda: nn.droq(12, hidden=(8, 8), p=0.5), (X,)),
    "drop_edge": LayerCase(
        lambda: nn.DropEdge(0.5), (EDGES, X.flatten()[:12]), examples=None, compiles=False
    ),
    "drop_edge-pairs": LayerCase(
        lambda: nn.DropEdge(0.5, exact=True, undirected=True),
        (EDGES, X.flatten()[:12]),
        examples=None,
        compiles=False,
    ),
    "drop_node": LayerCase(lambda: nn.DropNode(0.5), (X,), examples=None),
    "drop_message": LayerCase(lambda: nn.DropMessage(0.5), (X,), examples=None),
}


SHAPES = {
    "spatial_dropout": MAPS,
    "drop_block": MAPS,
    "feature_alpha_dropout": MAPS,
    "locked_dropout": TOKENS,
    "token_dropout": TOKENS,
}
RATES = {
    "alpha_dropout": 0.5,
    "feature_alpha_dropout": 0.5,
    "uniform_dropout": 0.5,
    "drop_block": 0.4,
}
LAYERS |= {
    name: LayerCase(
        lambda name=name, row=row: layer_of(row.make(RATES.get(name, 0.5))),
        (SHAPES.get(name, X),),
        examples=None if name == "drop_block" else 0,  # its scale looks at the whole batch
    )
    for name, row in CATALOG.items()
    if row.make is not None and name not in LAYERS
}
# Rows of the catalog that are no layers, and the file with the oracle of each.
ELSEWHERE = {
    "annealed": "algebra/test_schedule.py",
    "curriculum": "algebra/test_schedule.py",
    "early": "algebra/test_schedule.py",
    "late": "algebra/test_schedule.py",
    "scheduled_drop_path": "algebra/test_schedule.py",
    "r_drop": "nn/test_loss.py",
    "fraternal": "nn/test_loss.py",
    "multi_sample": "nn/test_loss.py",
    "consistent_dropout": "functional/test_activations.py",
    "monte_carlo": "nn/test_keys.py",
    "dare": "nn/test_weight_methods.py",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name):
    try:
        check(LAYERS[name])
    except RuntimeError as error:
        if "descriptor for the LSTM" not in str(error) or bfloat16_lstm():
            raise
        pytest.skip("torch's own LSTM has no bfloat16 kernel on this processor")


def bfloat16_lstm():
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(4, 6)(torch.ones(5, 2, 4))
    except RuntimeError:
        return False
    return True


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("part", range(6))
def test_onnx_in_evaluation(part, capsys):
    """ONNX computes the evaluation of the layers. Each file costs a second, so it holds many."""
    onnx = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    cases = {name: case for name, case in LAYERS.items() if case.exports}
    cases = dict(list(cases.items())[part::6])

    class Together(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleDict({name: case.model() for name, case in cases.items()})

        def forward(self, *inputs):
            return {
                name: layer(*x)
                for (name, layer), x in zip(self.layers.items(), inputs, strict=True)
            }

    model = Together().eval()
    inputs = tuple(case.copy_inputs() for case in cases.values())

    def leaves(tree):
        return [t for t in torch.utils._pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]

    program = torch.onnx.export(model, inputs, dynamo=True, verbose=False).model_proto
    feeds = {
        slot.name: x.numpy() for slot, x in zip(program.graph.input, leaves(inputs), strict=True)
    }
    results = iter(onnx.ReferenceEvaluator(program).run(None, feeds))
    for name, expected in model(*inputs).items():
        for t in leaves(expected):
            computed = torch.tensor(next(results))
            torch.testing.assert_close(
                computed, t.detach(), rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert next(results, None) is None


def test_every_method_is_here():
    """Each row of the catalog is under the contract of layers or has its oracle elsewhere, and
    its line of code runs.
    """
    assert set(CATALOG) - set(LAYERS) == set(ELSEWHERE)
    for file in set(ELSEWHERE.values()):
        assert (Path(__file__).parents[1] / file).is_file()
    names = vars(torch.nn) | {"functional": functional, "algebra": algebra, "presets": presets}
    names |= {"nn": nn, "torch": torch, "thinned": thinned}
    for name, row in CATALOG.items():
        assert eval(row.example, names) is not None, name  # noqa: S307
        if row.make is None:
            found = thinned
            for part in row.constructor.split("."):
                found = getattr(found, part)
            assert found.__doc__, name
        assert row.url.startswith("https://")
        assert 1960 < row.year < 2030
