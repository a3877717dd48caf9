"""The layers that are no points, each through the whole contract of layers; and the layers of points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import thinned
from thinned import CATALOG, algebra, functional, nn, presets
from thinned.testing import LAYER_CHECKS, LayerCase


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


X = tensor(6, 12)  # [examples, features]
MAPS = tensor(5, 4, 8, 8)
TOKENS = tensor(5, 9, 12)  # [examples, tokens, features]

LAYERS = {
    # activations
    "standout": LayerCase(lambda: nn.StandoutDropout(torch.nn.Linear(12, 7)), (X,), rated=False),
    "jumpout": LayerCase(lambda: nn.Jumpout(0.3), (X.relu() + 0.01,)),
    "fast": LayerCase(lambda: nn.FastDropout(torch.nn.Linear(12, 7), 0.5, "relu"), (X,), draws=False),
    # end of activations
    # maps
    # end of maps
    # weights
    "dropconnect": LayerCase(lambda: nn.DropWeight(torch.nn.Linear(12, 7)), (X,)),
    # end of weights
    # learned
    # end of learned
    # branches
    "layer": LayerCase(lambda: nn.LayerDrop([torch.nn.Linear(12, 12) for _ in range(4)], 0.5), (X,), examples=None),
    "shake-drop": LayerCase(lambda: nn.ShakeDrop(0.95), (X,), exact_gradient=False),
    "shake-shake": LayerCase(nn.ShakeShake, (X, X.flip(0)), exact_gradient=False, rated=False),
    "shake-keep": LayerCase(lambda: nn.ShakeShake("keep"), (X, X.flip(0)), rated=False),
    "swapout": LayerCase(nn.Swapout, (X, X.flip(0))),
    # end of branches
    # sequences
    # end of sequences
    # attention and tokens
    # end of attention and tokens
    # graphs and agents
    "droq": LayerCase(lambda: nn.droq(12, hidden=(8, 8), p=0.5), (X,)),
    # end of graphs and agents
}


SHAPES = {"spatial": MAPS, "dropblock": MAPS, "feature-alpha": MAPS, "locked": TOKENS}
RATES = {"alpha": 0.5, "feature-alpha": 0.5, "uout": 0.5, "dropblock": 0.4}
LAYERS |= {
    name: LayerCase(
        lambda name=name, row=row: nn.Dropout(name, **{row.strength: RATES.get(name, 0.5)}),
        (SHAPES.get(name, X),),
        examples=None if name == "dropblock" else 0,  # its scale looks at the whole batch
    )
    for name, row in CATALOG.items()
    if not isinstance(row.fn, str) and name not in LAYERS
}
# Rows that are no layers, each beside where its own oracle is.
ELSEWHERE = {
    "annealed": "presets/test_depth.py", "curriculum": "presets/test_depth.py", "early": "presets/test_depth.py",
    "late": "presets/test_depth.py", "scheduled-drop-path": "presets/test_depth.py", "r-drop": "presets/test_depth.py",
    "fraternal": "presets/test_depth.py", "multi-sample": "presets/test_depth.py", "consistent": "presets/test_activations.py",
    "monte-carlo": "nn/test_keys.py",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name):
    check(LAYERS[name])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", [n for n, case in LAYERS.items() if case.exports])
def test_onnx_in_evaluation(name, capsys):
    """What ONNX computes is what the layer evaluates to."""
    onnx = pytest.importorskip("onnx.reference")
    pytest.importorskip("onnxscript")
    case = LAYERS[name]
    model = case.held().eval()
    program = torch.onnx.export(model, case.given(), dynamo=True, verbose=False).model_proto
    tensors = [x for x in case.given() if isinstance(x, torch.Tensor)]
    feeds = {slot.name: x.numpy() for slot, x in zip(program.graph.input, tensors, strict=False)}
    results = onnx.ReferenceEvaluator(program).run(None, feeds)
    expected = [t for t in torch.utils._pytree.tree_leaves(model(*case.given())) if isinstance(t, torch.Tensor)]
    for seen, right in zip(results, expected, strict=True):
        torch.testing.assert_close(torch.tensor(seen), right.detach(), rtol=1e-4, atol=1e-5)


def test_every_method_is_here():
    """Each row of the catalogue is under the contract of layers or has its oracle elsewhere, and its line of code runs."""
    assert set(CATALOG) - set(LAYERS) == set(ELSEWHERE)
    for file in set(ELSEWHERE.values()):
        assert (Path(__file__).parent / file).is_file()
    names = {"nn": nn, "functional": functional, "algebra": algebra, "presets": presets} | vars(torch.nn)
    for name, row in CATALOG.items():
        assert eval(row.example, names | {"nn": nn, "torch": torch}) is not None, name  # noqa: S307
        if isinstance(row.fn, str):
            found = thinned
            for part in row.fn.split("."):
                found = getattr(found, part)
            assert found.__doc__, name
        assert row.url.startswith("https://")
        assert 1960 < row.year < 2030
