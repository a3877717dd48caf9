"""Dropout that is recorded by torch.onnx.export and torch.jit.trace.

The graphs run in onnxruntime and in TorchScript, which are the oracles: they know nothing of this
package.
"""

from __future__ import annotations

import io
import math

import pytest
import torch

import thinned
import thinned.functional as TF
import thinned.nn as tnn
from thinned import InputError

from ...testing.test_layers import LAYERS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::UserWarning"),
]
EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
P = 0.3
ALPHA = -1.7580993408473766  # minus the limit of SELU
DROPPED = ALPHA * (1 - P)
A = ((1 - P) * (1 + P * ALPHA**2)) ** -0.5
# (layer, shape, shape of the mask, gain, shift, value of dropped elements)
SHARED = {
    "Dropout1d": (tnn.Dropout1d(P), (60, 16, 3), (60, 16, 1), 1 / (1 - P), 0, 0),
    "Dropout2d": (tnn.Dropout2d(P), (60, 16, 3, 2), (60, 16, 1, 1), 1 / (1 - P), 0, 0),
    "Dropout3d": (tnn.Dropout3d(P), (60, 16, 3, 2, 2), (60, 16, 1, 1, 1), 1 / (1 - P), 0, 0),
    "SpatialDropout": (tnn.SpatialDropout(P), (60, 16, 5), (60, 16, 1), 1 / (1 - P), 0, 0),
    "DropPath": (tnn.DropPath(P), (900, 4, 2), (900, 1, 1), 1 / (1 - P), 0, 0),
    "LockedDropout": (tnn.LockedDropout(P), (60, 5, 16), (60, 1, 16), 1 / (1 - P), 0, 0),
    "AlphaDropout": (tnn.AlphaDropout(P), (60, 16), (60, 16), A, -A * P * ALPHA, A * DROPPED),
    "FeatureAlphaDropout": (
        tnn.FeatureAlphaDropout(P),
        (60, 16, 3),
        (60, 16, 1),
        A,
        -A * P * ALPHA,
        A * DROPPED,
    ),
    "classic": (tnn.Dropout(P, scale="classic"), (60, 16), (60, 16), 1, 0, 0),
    "flattened": (tnn.Dropout(P, layout="(b t) d"), (60, 16), (60, 16), 1 / (1 - P), 0, 0),
    "functional": (torch.nn.Identity(), (60, 16), (60, 16), 1 / (1 - P), 0, 0),
}


class Functional(torch.nn.Module):
    def forward(self, x):
        return TF.dropout(x, P, self.training)


SHARED["functional"] = (Functional(), *SHARED["functional"][1:])


def exported(model, x, dynamo, **settings):
    onnx = pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
        return torch.onnx.export(model, (x,), dynamo=True, verbose=False, **settings).model_proto
    preserve = torch.onnx.TrainingMode.PRESERVE
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False, training=preserve, **settings)
    return onnx.load_from_string(file.getvalue())


def run(program, x):
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_seed(5)
    # by default onnxruntime takes each Dropout out of a graph, also in training mode
    session = runtime.InferenceSession(
        program.SerializeToString(), disabled_optimizers=["EliminateDropout"]
    )
    feeds = {slot.name: x.numpy() for slot in session.get_inputs()}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])


def constants(program):
    """The values that a graph holds, by name."""
    onnx = pytest.importorskip("onnx")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type == "Constant":
            stored[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    return stored


def check_draws(draw, x, mask_shape, gain, shift, dropped):
    """Two draws of ``draw`` have the values, the layout and the rate of their method."""
    first, second = draw(), draw()
    for y in (first, second):
        kept = torch.isclose(y, gain * x + shift, rtol=1e-5)
        whole = kept & ~torch.isclose(y, torch.tensor(float(dropped)))
        mask = whole.amax([i for i, n in enumerate(mask_shape) if n == 1] or [-1], keepdim=True)
        mask = mask if 1 in mask_shape else whole
        assert torch.equal(mask.expand(x.shape), whole)
        torch.testing.assert_close(y, torch.where(whole, gain * x + shift, float(dropped)))
        n = math.prod(mask_shape)
        # alpha 1e-6, two-sided, normal limit
        assert abs(mask.sum().item() - (1 - P) * n) < 4.9 * math.sqrt(P * (1 - P) * n) + 1
    assert not torch.equal(first, second)


def inputs(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) + 1


@EXPORTERS
@pytest.mark.parametrize("how", ["training", "sampling"])
def test_onnx_has_dropout_nodes(dynamo, how):
    x = inputs((60, 16))
    model = torch.nn.Sequential(torch.nn.ReLU(), tnn.Dropout(P))
    if how == "training":
        program = exported(model.train(), x, dynamo)
    else:
        with thinned.sampling(model.eval()):
            program = exported(model, x, dynamo)
    nodes = [node for node in program.graph.node if node.op_type == "Dropout"]
    assert len(nodes) == 1
    values = constants(program)
    _, ratio, training_mode = (values.get(name) for name in nodes[0].input)
    assert float(ratio) == pytest.approx(P)
    assert bool(training_mode)
    check_draws(run(program, x), x, (60, 16), 1 / (1 - P), 0, 0)


@EXPORTERS
@pytest.mark.parametrize("name", SHARED)
def test_onnx_draws_in_onnxruntime(name, dynamo):
    layer, shape, *rest = SHARED[name]
    x = inputs(shape)
    check_draws(run(exported(layer.train(), x, dynamo), x), x, *rest)


@EXPORTERS
def test_onnx_takes_other_batches_than_the_example(dynamo):
    x = inputs((60, 16, 3))
    layer, few = tnn.Dropout1d(P).train(), x[:4]
    if dynamo:
        program = exported(layer, few, True, dynamic_shapes=({0: "batch"},))
    else:
        names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
        program = exported(layer, few, False, **names)
    check_draws(run(program, x), x, (60, 16, 1), 1 / (1 - P), 0, 0)


@EXPORTERS
def test_onnx_at_the_ends_of_the_rate(dynamo):
    x = inputs((6, 4))
    assert not run(exported(tnn.Dropout(1.0), x, dynamo), x)().any()
    model = torch.nn.Sequential(torch.nn.ReLU(), tnn.Dropout(0.0))
    assert torch.equal(run(exported(model, x, dynamo), x)(), x)


@pytest.mark.parametrize("name", SHARED)
def test_traces_draw_anew_and_load_without_this_package(name):
    layer, shape, *rest = SHARED[name]
    x = inputs(shape)
    traced = torch.jit.trace(layer.train(), x, check_trace=False)
    assert "thinned::" not in str(traced.inlined_graph)
    check_draws(lambda: traced(x), x, *rest)
    assert torch.equal(torch.jit.trace(layer.eval(), x)(x), layer(x))


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__


def record(model, x, recorder):
    if recorder == "trace":
        torch.jit.trace(model, x, check_trace=False)
    else:
        exported(model, x, recorder == "dynamo")


def refuse(model, x, recorder, pattern):
    """The error of thinned is raised, or is the cause of torch's and shown in its message."""
    error = Exception if recorder == "dynamo" else InputError
    with pytest.raises(error, match=pattern) as raised:
        record(model, x, recorder)
    assert any(isinstance(cause, InputError) for cause in causes(raised.value))


RECORDERS = pytest.mark.parametrize("recorder", ["dynamo", "torchscript", "trace"])


@RECORDERS
@pytest.mark.parametrize(
    "layer",
    [
        tnn.GaussianDropout(P),
        tnn.DropBlock(P, 3),
        tnn.DropConnect(torch.nn.Linear(6, 6)),
        tnn.ConcreteDropout(6),
        tnn.Thinned(P),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_distributions_name_the_way_out(layer, recorder):
    x = inputs((4, 6, 6, 6))
    pattern = r"cannot record the draws of \w+; export model.eval\(\), or .*edits.undo\(\)"
    refuse(torch.nn.Sequential(layer.train()), x, recorder, pattern)


@RECORDERS
@pytest.mark.parametrize("how", ["key", "frozen", "recording"])
def test_keyed_layers_name_the_way_out(how, recorder):
    x, model = inputs((4, 6)), torch.nn.Sequential(tnn.Dropout(P))
    pattern = r"would store the masks of one key in its graph; call key.remove\(\) first"
    if how == "key":
        key = thinned.key(model, seed=1)
        key.at(0)
        refuse(model, x, recorder, pattern)
        key.remove()
    else:
        with getattr(thinned, how)(model):
            refuse(model, x, recorder, pattern)
    record(model, x, recorder)


@EXPORTERS
def test_functional_draws_that_onnx_lacks(dynamo):
    class Draws(torch.nn.Module):
        def forward(self, x):
            return x * TF.normal(tuple(x.shape), None, x)

    refuse(Draws(), inputs((4, 3)), "dynamo" if dynamo else "torchscript", "these draws")


def same(results, expected):
    flat = torch.utils._pytree.tree_leaves(expected)
    for ours, right in zip(torch.utils._pytree.tree_leaves(results), flat, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


def traceable(case):
    leaves = torch.utils._pytree.tree_leaves(case.copy_inputs())
    tensors = all(isinstance(leaf, torch.Tensor) for leaf in leaves)  # torch.jit takes no others
    return case.exports and tensors


@pytest.mark.parametrize("name", [n for n, case in LAYERS.items() if traceable(case)])
def test_traces_of_evaluation_compute_the_same(name):
    case = LAYERS[name]
    model = case.model().eval()
    traced = torch.jit.trace(model, case.copy_inputs(), check_trace=False)
    same(traced(*case.copy_inputs()), model(*case.copy_inputs()))


@pytest.mark.parametrize("name", ["drop_connect-shared", "sparse_variational_dropout"])
def test_onnx_of_torchscript_in_evaluation_of_layers_on_weights(name):
    model = LAYERS[name].model().eval()
    (x,) = LAYERS[name].copy_inputs()
    torch.testing.assert_close(run(exported(model, x, False), x)(), model(x), rtol=1e-4, atol=1e-5)
