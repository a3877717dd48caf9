"""The layers under torch's names stand where torch's do: classes, tracers, quantization."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from functorch.compile import aot_function, make_boxed_func
from torch.fx.experimental.proxy_tensor import make_fx

import thinned
import thinned.nn as tnn
from thinned import InputError

NAMES = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]
SHAPES = {"Dropout1d": (4, 16, 3), "Dropout3d": (4, 16, 2, 2, 2)}


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_instances_of_torchs_class_of_the_same_name(name):
    layer = getattr(tnn, name)(0.5)
    assert [n for n in NAMES if isinstance(layer, getattr(torch.nn, n))] == [name]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert type(twin) is type(layer)
        assert twin.__module__ == layer.__module__


@pytest.mark.parametrize("layer", [tnn.UniformDropout(0.5), tnn.DropPath(0.5), tnn.Thinned(0.5)])
def test_layers_of_other_distributions_are_of_no_class_of_torch(layer):
    assert isinstance(layer, torch.nn.modules.dropout._DropoutNd)
    assert not any(isinstance(layer, getattr(torch.nn, name)) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_setting_p_and_the_mode_has_torchs_effect(name):
    x = torch.rand(SHAPES.get(name, (4, 16, 3, 3))) + 1
    ours = torch.nn.Sequential(getattr(tnn, name)(0.5)).eval()
    for module in ours.modules():
        if isinstance(module, getattr(torch.nn, name)):
            module.train()
    assert not torch.equal(ours(x), x)
    for module in ours.modules():
        if isinstance(module, getattr(torch.nn, name)):
            module.p = 0
    assert torch.equal(ours(x), x)
    ours[0].p = 0.5
    assert torch.equal(ours.eval()(x), x)


def models():
    torch.manual_seed(0)
    return {
        **{name: getattr(tnn, name)(0.5) for name in NAMES},
        "other": tnn.UniformDropout(0.5),
        "wrapped": tnn.DropConnect(torch.nn.Linear(3, 3)),
        "thinned": tnn.Thinned(0.5),
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", models())
def test_fx_keeps_the_layers_as_modules(name, training):
    model = torch.nn.Sequential(torch.nn.ReLU(), models()[name]).train(training)
    x = torch.rand(SHAPES.get(name, (4, 16, 3, 3))) + 1
    traced = torch.fx.symbolic_trace(model)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["0", "1"]
    assert traced.get_submodule("1") is model[1]
    if not training:
        torch.testing.assert_close(traced(x), model(x))
        return
    key = thinned.key(model, seed=1)
    key.at(0)
    first = model(x)
    key.at(0)
    assert torch.equal(traced(x), first)
    assert not torch.equal(traced(x), first)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("name", NAMES)
def test_graphs_of_make_fx_draw_anew_at_each_call(name, mode):
    x = torch.rand(SHAPES.get(name, (4, 16, 3, 3))) + 1
    layer = getattr(tnn, name)(0.5)
    graph = make_fx(layer, tracing_mode=mode)(x)
    assert not torch.equal(graph(x), graph(x))
    if mode == "symbolic":
        more = torch.cat([x, x])
        assert graph(more).shape == more.shape
    assert torch.equal(make_fx(layer.eval(), tracing_mode=mode)(x)(x), x)


@pytest.mark.parametrize("name", NAMES)
def test_functions_of_aot_autograd_drop_in_the_gradient_what_they_dropped(name):
    x = torch.ones(SHAPES.get(name, (64, 16, 3, 3)), requires_grad=True)
    run = aot_function(
        getattr(tnn, name)(0.5), fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward)
    )
    y, z = run(x), run(x)
    assert not torch.equal(y, z)
    y.sum().backward()
    kept = y == y.max()
    assert torch.equal(x.grad != 0, kept)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes, which the trace fixes
@pytest.mark.parametrize("training", [True, False])
def test_scripting_names_the_way_out_and_the_way_works(training):
    x = torch.rand(4, 3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)).train(training)
    edits = thinned.replace(model)
    with pytest.raises(InputError, match=r"torch.jit.script .*'s Dropout; .*edits.undo\(\)"):
        torch.jit.script(model)
    assert isinstance(model[1], tnn.Dropout)
    traced = torch.jit.trace(model.eval(), x)
    with torch.no_grad():
        model[0].weight.mul_(2)
        assert torch.equal(traced(x), model(x))
        right = model(x)
    edits.undo()
    assert type(model[1]) is torch.nn.Dropout
    assert torch.equal(torch.jit.script(model)(x), right)


OTHERS = {
    "connect": (lambda: tnn.DropConnect(torch.nn.Linear(6, 6)), (64, 6)),
    "connect-shared": (
        lambda: tnn.DropConnect(
            torch.nn.Linear(6, 6), thinned.presets.drop_connect(0.5, per="batch")
        ),
        (64, 6),
    ),
    "concrete": (lambda: tnn.ConcreteDropout(6), (64, 6)),
    "blocks": (lambda: tnn.DropBlock(0.3, 3), (8, 3, 6, 6)),
}


def call(model, inputs):
    parameters, x = inputs
    return torch.func.functional_call(model, parameters, (x,))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic", "aot"])
@pytest.mark.parametrize("name", OTHERS)
def test_graphs_of_layers_with_parameters_and_blocks(name, mode, training):
    make, shape = OTHERS[name]
    model, x = make().train(training), torch.rand(shape) + 0.5
    inputs = dict(model.named_parameters()), x
    if mode == "aot":
        run = aot_function(
            lambda inputs: call(model, inputs),
            fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward),
        )
    else:
        run = make_fx(lambda inputs: call(model, inputs), tracing_mode=mode)(inputs)
    first, second = run(inputs), run(inputs)
    assert torch.equal(first, second) != training
    if not training:
        torch.testing.assert_close(first, model(x))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic", "aot"])
def test_graphs_under_a_key_name_the_way_out(mode):
    model, x = torch.nn.Sequential(tnn.Dropout(0.5)), torch.rand(4, 3)
    thinned.key(model, 1).at(0)
    aot = aot_function(model, fw_compiler=lambda graph, inputs: graph)
    trace = aot if mode == "aot" else make_fx(model, tracing_mode=mode)
    with pytest.raises(InputError, match=r"one key in its graph; call key.remove\(\) first"):
        trace(x)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_exported_programs_draw_in_training_and_not_in_evaluation(name, strict):
    make, shape = OTHERS.get(name, (lambda: getattr(tnn, name)(0.5), SHAPES.get(name)))
    model, x = torch.nn.Sequential(make()), torch.rand(shape or (4, 16, 3, 3)) + 0.5
    program = torch.export.export(model, (x,), strict=strict).module()
    assert not torch.equal(program(x), program(x))
    program = torch.export.export(model.eval(), (x,), strict=strict).module()
    torch.testing.assert_close(program(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("training", [True, False])
def test_graph_mode_quantization_computes_what_it_does_with_torchs_layer(training):
    torch.use_deterministic_algorithms(False)  # quantized operators have no such algorithms
    quantize = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao import quantization

    results = []
    for library in (torch.nn, tnn):
        torch.manual_seed(0)
        linear = torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)
        model = torch.nn.Sequential(linear[0], torch.nn.ReLU(), library.Dropout(0.5), linear[1])
        x = torch.rand(64, 6)
        if training:
            mapping = quantization.get_default_qat_qconfig_mapping("onednn")
            model = quantize.prepare_qat_fx(model.train(), mapping, (x,))
            assert not torch.equal(model(x), model(x))  # it drops
        else:
            mapping = quantization.get_default_qconfig_mapping("onednn")
            model = quantize.prepare_fx(model.eval(), mapping, (x,))
        with torch.no_grad():
            model.eval()(x)
            results.append(quantize.convert_fx(model.eval())(x))
    # observers of training saw other masks, so their ranges and scales differ
    torch.testing.assert_close(*results, **({"atol": 0.1, "rtol": 0.0} if training else {}))
