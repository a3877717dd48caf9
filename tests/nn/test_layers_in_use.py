"""Layers as models use them: in torch's transformers, sliced, moved, copied within contexts, and
with weights that torch rewrites.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import prune

import thinned
from thinned import InputError, nn
from thinned import functional as F
from thinned.algebra import Late, Linear

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def encoder(layers=1):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.5)
    return (
        torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        if layers > 1
        else layer
    )


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_sampling_draws_where_torch_would_fuse_the_layer(without):
    model = encoder(2)
    thinned.replace(model)
    model.eval()
    with without():
        assert torch.equal(model(X), model(X))
        with thinned.sampling(model):
            assert not torch.equal(model(X), model(X))
        assert torch.equal(model(X), model(X))
    assert not any(m._forward_pre_hooks for m in model.modules())


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
WITHOUT = {
    "gradients": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def nested_encoder():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.5)
    return torch.nn.TransformerEncoder(layer, 2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("without", WITHOUT)
def test_sampling_draws_where_torch_would_make_a_nested_tensor(without, dtype, replaced):
    model = nested_encoder()
    if replaced:
        thinned.replace(model)
    model.eval()
    padding = PADDING
    if dtype is torch.float32:
        padding = torch.zeros(PADDING.shape).masked_fill(PADDING, float("-inf"))

    def run():
        return model(X, src_key_padding_mask=padding)

    with WITHOUT[without]():
        before = run()
        with thinned.sampling(model):
            first, second = run(), run()
            assert first.isfinite().all()
            assert not torch.equal(first, second)
            with thinned.off(model):
                torch.testing.assert_close(run()[~PADDING], before[~PADDING])
        assert torch.equal(run(), before)
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("change", ["lora", "weight", "attention", "targeted", "sparse", "classic"])
def test_evaluation_is_the_same_on_the_nested_path(change, index):
    model = nested_encoder()
    CHANGES[change](model.layers[index])
    model.eval()
    right = model(X, src_key_padding_mask=PADDING)
    with torch.no_grad():
        y = model(X, src_key_padding_mask=PADDING)
    torch.testing.assert_close(y[~PADDING], right[~PADDING])


def lora(model):
    model.linear1 = nn.LoraDropout(model.linear1, 4)
    torch.nn.init.normal_(model.linear1.up)


CHANGES = {
    "lora": lora,
    "weight": lambda m: setattr(m, "linear1", nn.DropConnect(m.linear1)),
    "attention": lambda m: setattr(m, "self_attn", nn.DropConnect(m.self_attn, 0.3)),
    "targeted": lambda m: setattr(m, "linear2", nn.TargetedDropout(m.linear2)),
    "sparse": lambda m: setattr(m, "linear1", nn.SparseVariationalDropout(m.linear1, threshold=-5)),
    "classic": lambda m: setattr(m, "dropout", nn.Dropout(p=0.5, scale="classic")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_evaluation_is_the_same_with_and_without_gradients(change):
    """torch's fused transformer layer reads weights past the modules that hold them."""
    model = encoder()
    CHANGES[change](model)
    for twin in (model, copy.deepcopy(model)):
        twin(X)
        twin.eval()
        right = twin(X)
        with torch.no_grad():
            torch.testing.assert_close(twin(X), right)


def test_rate_0_and_off_hold_for_layers_with_noise_besides_their_rate():
    ones = torch.ones(50, 20)
    swap, jump = nn.Swapout(0.0, skip_p=0.5), nn.Jumpout(0.0, min_rate=0.3)
    for layer, inputs, quiet in ((swap, (ones, ones), 2 * ones), (jump, (ones,), ones)):
        with thinned.off(layer):
            assert torch.equal(layer(*inputs), quiet)
        assert not torch.equal(layer(*inputs), quiet)
        with thinned.frozen(layer):
            assert torch.equal(layer(*inputs), layer(*inputs))
    with thinned.off(swap.eval()):
        assert torch.equal(swap(ones, ones), 2 * ones)


def test_slices_of_layer_drop_keep_rate_and_schedule():
    stack = nn.LayerDrop([torch.nn.Linear(8, 8) for _ in range(4)], 0.0).eval()
    assert stack[:3].p == 0.0
    assert not stack[:3].training
    assert stack[1] is list(stack)[1]
    part = nn.LayerDrop(stack, Linear(0.0, 0.5, 10)).prune(2)
    thinned.step(part, 10)
    assert part.p == 0.5


def test_lora_of_a_layer_in_evaluation_is_quiet():
    layer = nn.LoraDropout(torch.nn.Linear(8, 8).eval(), 4, p=0.5)
    torch.nn.init.normal_(layer.up)
    assert torch.equal(layer(X), layer(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.DropBlock2d, nn.AlphaDropout, nn.GaussianDropout],
)
def test_schedules_stand_in_torchs_names_and_move_compiled_layers(build):
    layer = (
        build(Linear(0.0, 0.5, 10), 2) if build is nn.DropBlock2d else build(Linear(0.0, 0.5, 10))
    )
    shape = {nn.Dropout1d: (4, 3, 8), nn.Dropout3d: (4, 3, 4, 4, 4)}.get(build, (4, 3, 8, 8))
    x, model = torch.rand(shape) + 1, torch.nn.Sequential(layer)
    key, run = thinned.key(model), torch.compile(model, backend="aot_eager", fullgraph=True)
    for step in (1, 5, 10):
        key.at(step)
        y = run(x)
        key.at(step)
        torch.testing.assert_close(y, model(x))
        assert layer.p == pytest.approx(0.05 * step)


def test_variances_far_from_zero_do_not_cancel():
    mean = torch.tensor([10.0, 100.0, 1000.0])
    torch.testing.assert_close(
        F.rectified_moments(mean, torch.full((3,), 0.01))[1], torch.full((3,), 0.01)
    )


def test_names_that_look_alike_keep_their_own_anchors():
    net = torch.nn.Module()
    net.a, net.a_b = torch.nn.Module(), torch.nn.Module()
    net.a.b_c, net.a_b.c = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    net.forward = lambda x: net.a_b.c(net.a.b_c(x))
    assert len(list(nn.Mixout(net, 1.0).buffers())) == 2


def test_half_precision_squares_do_not_overflow():
    layer = nn.SparseVariationalDropout(torch.nn.Linear(4, 3)).half()
    assert layer(torch.full((2, 4), 300.0).half()).isfinite().all()


def test_a_padding_row_counted_from_the_end_is_never_dropped():
    y = F.embedding_dropout(torch.tensor([3] * 3), torch.ones(4, 2), 0.9, padding_idx=-1)
    assert torch.equal(y, torch.ones(3, 2))


def test_frozen_noise_next_to_a_layer_that_draws_nothing():
    model = torch.nn.Sequential(
        nn.Dropout(0.5), nn.FastDropout(torch.nn.Linear(8, 3), Linear(0.1, 0.5, 10))
    )
    with thinned.frozen(model):
        assert torch.equal(model(X)[0], model(X)[0])
    thinned.step(model, 10)
    assert model[1].p == 0.5


def test_a_copy_made_within_sampling_goes_its_own_way():
    model = torch.nn.Sequential(nn.Dropout(0.5)).eval()
    with thinned.sampling(model):
        twin = copy.deepcopy(model)
        assert not torch.equal(model(X), X)
    assert torch.equal(twin(X), X)


def test_patch_dropout_is_the_identity_in_evaluation_however_short():
    short = torch.rand(2, 5, 3)
    assert nn.PatchDropout(0.9).eval()(short) is short


def pruned():
    layer = torch.nn.Linear(3, 3)
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def keyed_by_example():
    model = torch.nn.Sequential(nn.Dropout(Late(0.5, 5)))
    thinned.key(model).at(torch.tensor([9, 8]), samples=[0, 1])


def tied():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4),
        nn.Dropout(p=0.5, scale="classic"),
        torch.nn.ReLU(),
        torch.nn.Linear(4, 4),
    )
    model[3].weight = model[0].weight
    thinned.rescale(model)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.DropConnect(pruned()), "something rewrites the weight of this layer"),
        (keyed_by_example, "a schedule needs one step for the whole batch"),
        (tied, r"3.weight is also 0.weight"),
        (
            lambda: nn.Standout(torch.nn.Linear(2, 2), "relu"),
            "activation has to be a function, such as torch.relu",
        ),
        (
            lambda: nn.Standout(torch.nn.Linear(2, 2), alpha=Linear(0, 1, 2)),
            "alpha has to be a number",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
