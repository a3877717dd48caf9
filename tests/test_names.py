"""One name and one set of arguments for a method in torch, Keras, scikit-learn and strings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import thinned
import thinned.nn as tnn
from thinned.presets import CATALOG

keras = pytest.importorskip("keras", reason="keras is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
import thinned.keras as tk  # noqa: E402
from thinned.sklearn import DropoutClassifier  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "names.md"
ROWS = re.findall(r"^\| `(\w+)` \| `(.+?)` \| `(.+?)` \| (?:`(.+?)`|-) \|$", PAGE.read_text(), re.M)


def test_the_page_shows_ten_methods_of_the_catalog():
    assert len(ROWS) == 10
    assert {name for name, *_ in ROWS} <= set(CATALOG)


@pytest.mark.parametrize(("name", "torch_line", "keras_line", "entry"), ROWS, ids=lambda r: r[:20])
def test_the_lines_of_the_page_build_what_they_name(name, torch_line, keras_line, entry):
    layer = eval(torch_line, {"tnn": tnn, "torch": torch})  # noqa: S307
    other = eval(keras_line, {"layers": tk.layers, "keras": keras})  # noqa: S307
    assert snake(type(layer).__name__) == name
    assert snake(type(other).__name__) == name
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
    if entry:
        DropoutClassifier((5,), dropout=[eval(entry)]).partial_fit(x, y, [0, 1])  # noqa: S307
    else:
        with pytest.raises(thinned.InputError, match="those for rows are"):
            DropoutClassifier((5,), dropout=[name], max_iter=1).fit(x, y)


def snake(name: str) -> str:
    name = re.sub(r"[123][dD]$", "", name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def arguments(layer) -> set[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {p.name for p in inspect.signature(layer).parameters.values() if p.kind not in kinds}
    return {re.sub(r"(^|_)rate$", r"\1p", name) for name in names}


# what only one of the frameworks has: its own habits
HABITS = {"inplace", "layout", "shard", "impl", "seed", "noise_shape", "data_format"}
# what a layer wraps is a module in torch and a layer, or a cell, in Keras
WRAPPED = {"module", "linear", "embedding", "layer", "layers", "cell", "features"}
# arguments that only one of the frameworks can offer, with the reason
ONLY_ONE = {
    "unbiased": "the straight-through estimate needs torch's autograd functions",
    "activation": "takes part in the inference of torch's DropConnect",
    "inference": "takes part in the inference of torch's DropConnect",
    "sampling": "the Gaussian limit of pre-activations needs the product itself",
    "names": "torch modules have parameters of many names; a Keras layer has its kernel",
    "per": "torch's DropConnect takes it in its spec",
    "scale": "torch's DropConnect takes it in its spec",
    "indices": "Keras layers return tensors of one fixed structure",
    "axis": "Keras has heads last but one, torch's layouts have them second",
    "between": "a Keras cell is one layer",
    "outputs": "a Keras cell is one layer",
    "inputs": "Keras has it where the cell is wrapped for its inputs too",
    "tied": "Keras cells draw one mask for all gates",
    "keep_id": "Keras masks padding by an id",
    "beta": "the weight of the KL term, which a Keras layer adds to the loss itself",
    "examples": "the KL term, which a Keras layer adds to the loss itself",
    "length": "the KL term, which a Keras layer adds to the loss itself",
}
BOTH = sorted(
    (row.constructor.split(".")[1], name)
    for name, row in CATALOG.items()
    if row.constructor.startswith("nn.") and hasattr(tk.layers, row.constructor.split(".")[1])
)


@pytest.mark.parametrize(("layer", "name"), BOTH)
def test_arguments_have_one_name_in_torch_and_keras(layer, name):
    first = arguments(getattr(tnn, layer)) - HABITS - WRAPPED
    second = arguments(getattr(tk.layers, layer)) - HABITS - WRAPPED
    assert first ^ second <= set(ONLY_ONE), (sorted(first - second), sorted(second - first))
