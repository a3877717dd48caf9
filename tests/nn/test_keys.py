"""The mask contract on models: ranks, order, micro-batches, recomputation, compilation, copies,
resuming, shards.
"""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from pathlib import Path

import numpy
import pytest
import torch
import torch._dynamo.testing
from torch.utils.checkpoint import checkpoint

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key
from thinned.algebra.key import CONTRACT

from ..processes import ranks
from .ranks import BATCH, batch, net

CHECKPOINTS = [
    {"use_reentrant": reentrant, "preserve_rng_state": preserve}
    for reentrant in (False, True)
    for preserve in (False, True)
]
# what Dynamo says of cached functions and of the code after a graph break
ignore_dynamo = pytest.mark.filterwarnings("ignore:Dynamo d:UserWarning")
ignore_jit = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Cell(torch.nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.linear, self.drop = torch.nn.Linear(width, width), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(torch.tanh(self.linear(x)))


class Stack(torch.nn.Module):
    """Layers in checkpointed segments of two cells each; with ``shared``, one cell unrolled."""

    def __init__(self, how=None, shared=False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = torch.nn.ModuleList([Cell()] * 6 if shared else [Cell() for _ in range(6)])
        self.how = how

    def forward(self, x):
        for i in range(0, 6, 2):
            segment = torch.nn.Sequential(*self.cells[i : i + 2])
            x = segment(x) if self.how is None else checkpoint(segment, x, **self.how)
        return x


def gradients(model, run, rows=8, between=True):
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    key = thinned.key(model, seed=1)
    key.at(7, samples=torch.arange(rows) + 3)
    y = run(x)
    if between:
        key.at(
            8, samples=torch.arange(rows)
        )  # the next micro-batch's, before this one's backward pass
    y.square().sum().backward()
    return [x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("rows", [8, 2000])
@pytest.mark.parametrize("how", CHECKPOINTS, ids=str)
def test_checkpointing_draws_the_same_masks(how, rows):
    """Gradients equal to the bit, with and without the generator's state, for small and large
    tensors.
    """
    plain, checkpointed = Stack(), Stack(how)
    for a, b in zip(
        gradients(plain, plain, rows), gradients(checkpointed, checkpointed, rows), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("how", CHECKPOINTS, ids=str)
def test_an_unrolled_cell_is_recomputed_with_its_own_calls(how):
    """Segments are recomputed in reverse order; each call keeps its number. Only the order of sums
    may differ.
    """
    plain, checkpointed = Stack(shared=True), Stack(how, shared=True)
    for a, b in zip(gradients(plain, plain), gradients(checkpointed, checkpointed), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_nested_checkpoints_and_a_second_backward():
    plain, nested = Stack(), Stack()
    inner = lambda x: checkpoint(nested.cells[1], nested.cells[0](x), use_reentrant=False)  # noqa: E731

    def middle(x):
        return checkpoint(
            nested.cells[3],
            checkpoint(nested.cells[2], inner(x), use_reentrant=False),
            use_reentrant=False,
        )

    outer = lambda x: checkpoint(middle, x, use_reentrant=False)  # noqa: E731
    run = lambda x: nested.cells[5](nested.cells[4](outer(x)))  # noqa: E731
    for a, b in zip(gradients(plain, plain), gradients(nested, run), strict=True):
        assert torch.equal(a, b)
    again = Stack({"use_reentrant": False})
    key = thinned.key(again, 1)
    x = torch.randn(8, 24, requires_grad=True)
    key.at(0)
    y = again(x).square().sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    (second,) = torch.autograd.grad(y, x)
    assert torch.equal(first, second)


def test_recomputation_by_other_code_is_recognized_or_refused():
    """Without torch's checkpointing a layer that is called once is recomputed right, and twice is
    an error.
    """

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, cell, times):
            ctx.save_for_backward(x)
            ctx.cell, ctx.times = cell, times
            with torch.no_grad():
                for _ in range(times):
                    x = cell(x)
            return x

        @staticmethod
        def backward(ctx, grad):
            with torch.enable_grad():
                x = leaf = ctx.saved_tensors[0].detach().requires_grad_()
                for _ in range(ctx.times):
                    x = ctx.cell(x)
            return torch.autograd.grad(x, leaf, grad)[0], None, None

    for times in (1, 2):
        torch.manual_seed(0)
        cell = Cell()
        x = torch.randn(4, 24, requires_grad=True)
        key = thinned.key(cell)
        key.at(0)
        y = Again.apply(x, cell, times)
        if times == 2:
            with pytest.raises(InputError, match="which of its calls is being recomputed"):
                y.sum().backward()
            continue
        y.sum().backward()
        key.at(0)
        leaf = x.detach().requires_grad_()
        cell(leaf).sum().backward()
        assert torch.equal(x.grad, leaf.grad)


@ignore_jit
@pytest.mark.parametrize("how", [None, {"use_reentrant": False}], ids=str)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_equals_eager(backend, shared, how):
    torch._dynamo.reset()
    eager, compiled = Stack(shared=shared), Stack(how, shared=shared)
    run = torch.compile(compiled, backend=backend, fullgraph=True)
    for a, b in zip(gradients(eager, eager), gradients(compiled, run), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert torch.equal(a == 0, b == 0)


@ignore_jit
def test_nothing_recompiles():
    """Steps, ids and rates are tensors: one graph for all of them."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    model = net()
    key = thinned.key(model, 3)
    run = torch.compile(model, backend=counter, fullgraph=True)
    x, ids = batch()
    for step in range(6):
        model[2].p = 0.1 * (step + 1)
        key.at(step, samples=ids + step)
        ours = run(x)
        key.at(step, samples=ids + step)
        torch.testing.assert_close(ours, model(x), rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1


@ignore_jit
def test_unkeyed_compiled_masks_follow_the_generator():
    torch._dynamo.reset()
    run = torch.compile(net(), fullgraph=True)
    x, _ = batch()
    torch.manual_seed(1)
    first, second = run(x), run(x)
    torch.manual_seed(1)
    assert torch.equal(first, run(x))
    assert not torch.equal(first, second)


@ignore_jit
def test_export():
    """An exported training graph holds the operator; in evaluation nothing of dropout is left."""
    model = net()
    x, ids = batch()
    key = thinned.key(model, 3)
    key.at(4, samples=ids)
    exported = torch.export.export(model, (x,))
    assert sum("thinned.apply" in str(n.target) for n in exported.graph.nodes) == 2
    key.at(4, samples=ids)
    torch.testing.assert_close(exported.module()(x), model(x))
    quiet = torch.export.export(model.eval(), (x,))
    assert not any("thinned" in str(n.target) for n in quiet.graph.nodes)


def test_autocast_keeps_the_mask():
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    masks = []
    for enabled in (False, True):
        key.at(0, samples=ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = model(x)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        masks.append(y == 0)
    assert torch.equal(*masks)


def test_ranks_share_one_mask(tmp_path):
    """DDP and FSDP on gloo: each rank draws its examples' part of the mask of the whole batch."""
    arguments = ["2", str(tmp_path / "store"), str(tmp_path / "seen.pt")]
    ranks(
        Path(__file__).with_name("ranks.py"), [[str(rank), *arguments] for rank in (0, 1)], tmp_path
    )
    seen = torch.load(tmp_path / "seen.pt", weights_only=True)
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    key.at(7, samples=ids)
    y = model(x)
    y.square().sum().backward()
    for wrap, (together, grad) in seen.items():
        torch.testing.assert_close(together, y.detach(), msg=wrap)
        assert torch.equal(together == 0, y == 0)
        torch.testing.assert_close(
            grad * 2, model[0].weight.grad, msg=wrap
        )  # both average over ranks


def test_order_and_micro_batches():
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    key.at(5, samples=ids)
    whole = model(x)
    order = torch.randperm(BATCH)
    key.at(5, samples=ids[order])
    torch.testing.assert_close(model(x[order]), whole[order])
    for size in (1, 3, 8):
        parts = []
        for start in range(0, BATCH, size):
            key.at(5, samples=ids[start : start + size])
            parts.append(model(x[start : start + size]))
        torch.testing.assert_close(torch.cat(parts), whole)
        assert torch.equal(torch.cat(parts) == 0, whole == 0)


def test_copies_and_reloaded_models_draw_the_same():
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    key.at(5, samples=ids)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twins = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301
        torch.load(file, weights_only=False),
    ]
    fresh = net()
    assert model.state_dict().keys() == fresh.state_dict().keys()  # keys stay out of checkpoints
    fresh.load_state_dict(model.state_dict())
    thinned.key(fresh, 3).at(5, samples=ids)
    y = model(x)
    for twin in [*twins, fresh]:
        assert torch.equal(twin(x), y)
    assert torch.equal(twins[0](x) == 0, twins[1](x) == 0)  # their second calls, too


def test_a_step_repeated_after_resuming_in_mid_epoch():
    """State, optimizer and key from a checkpoint: the rest of the epoch is unchanged."""

    def train(model, key, optimizer, first, last):
        x, ids = batch()
        for step in range(first, last):
            key.at(step, samples=ids)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    def fresh():
        model = net()
        return model, thinned.key(model, 3), torch.optim.Adam(model.parameters(), 1e-2)

    whole, key, optimizer = fresh()
    train(whole, key, optimizer, 0, 8)
    half, key, optimizer = fresh()
    train(half, key, optimizer, 0, 4)
    state = copy.deepcopy((half.state_dict(), optimizer.state_dict(), key.state_dict()))
    resumed, key, optimizer = fresh()
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    key.load_state_dict(state[2])
    assert (key.seed, key.step) == (3, 3)
    torch.manual_seed(99)
    train(resumed, key, optimizer, key.step + 1, 8)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_names_are_those_of_the_model_whatever_wraps_it():
    plain = thinned.key(net()).layers
    wrapped = torch.compile(torch.nn.Sequential(net()), backend="eager")
    assert plain == ("2", "4")
    assert thinned.key(wrapped).layers == ("0.2", "0.4")


def test_layers_renamed_after_keying_are_refused():
    model = net()
    key = thinned.key(model, 3)
    key.at(0)
    model.append(torch.nn.ReLU())
    key.at(0)  # a layer without masks may be added
    model.insert(0, torch.nn.Identity())
    with pytest.raises(InputError, match=r"gone: 2, 4; new: 3, 5\); call key.remove"):
        key.at(0)
    key.remove()
    thinned.key(model, 3).at(0)
    model[3] = nn.Dropout(0.5)
    with pytest.raises(InputError, match="other layers have these names now"):
        thinned.key_of(model).at(0)


def test_per_example_steps_replay_a_rollout():
    """A batch of (example, step) pairs draws what those examples drew at their steps."""
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    seen = []
    for step in range(3):
        key.at(step, samples=ids)
        seen.append(model(x))
    steps = torch.tensor([2, 0, 1, 2])
    rows = torch.tensor([1, 5, 5, 9])
    key.at(steps, samples=ids[rows])
    torch.testing.assert_close(
        model(x[rows]),
        torch.stack([seen[s][r] for s, r in zip(steps.tolist(), rows.tolist(), strict=True)]),
    )
    with pytest.raises(InputError, match="of one length, but got 4 and 3"):
        key.at(steps, samples=ids[:3])


@pytest.mark.parametrize("keyed", [False, True])
def test_frozen_recording_and_replaying(keyed):
    model, (x, ids) = net(), batch()
    if keyed:
        thinned.key(model, 3).at(2, samples=ids)
    with thinned.frozen(model):
        assert torch.equal(model(x), model(x))
    with thinned.recording(model) as tape:
        first, second = model(x), model(x)
    assert not torch.equal(first, second)
    assert {name: len(calls) for name, calls in tape.drawn.items()} == {"2": 2, "4": 2}
    file = io.BytesIO()
    torch.save(tape.state_dict(), file)
    file.seek(0)
    loaded = thinned.Tape.from_state_dict(torch.load(file, weights_only=True))
    for held in (tape, loaded):
        with thinned.replaying(model, held):
            assert torch.equal(model(x), first)
            assert torch.equal(model(x), second)
            with pytest.raises(
                InputError, match="layer '2' is called 3 times, but the tape holds 2"
            ):
                model(x)
    if not keyed:
        assert not torch.equal(model(x), first)


def test_named_layouts():
    """Time first, or examples and tokens in one axis: the same masks as [b, t, d]."""
    b, t, d = 4, 5, 6
    x = torch.randn(b, t, d)
    ids = torch.arange(b) + 10
    key = Key(2, samples=ids)
    expected = F.drop(x, presets.dropout(0.5), key=key)

    def run(layout, given):
        model = nn.Dropout(0.5, layout=layout)
        made = thinned.key(model, 2)
        made.at(0, samples=ids)
        model.stream = 0
        return model(given)

    assert torch.equal(run("t b d", x.transpose(0, 1)), expected.transpose(0, 1))
    assert torch.equal(run("(b t) d", x.reshape(b * t, d)), expected.reshape(b * t, d))
    time_first = run("(t b) d", x.transpose(0, 1).reshape(b * t, d))
    assert torch.equal(time_first.reshape(t, b, d), run("t b d", x.transpose(0, 1)))
    assert nn.Dropout(0.5, layout="(b t) d")(x.reshape(b * t, d)).shape == (
        b * t,
        d,
    )  # unkeyed: each row by itself
    spatial = nn.SpecDropout(presets.spatial_dropout(0.5), layout="b t c")(torch.ones(3, 50, 8))
    assert torch.equal(spatial, spatial[:, :1].expand(3, 50, 8))
    model = nn.Dropout(0.5, layout="(b t) d")
    thinned.key(model).at(0, samples=[1, 2, 3])
    with pytest.raises(InputError, match="20 rows, which is not a multiple of the 3 samples"):
        model(x.reshape(b * t, d))
    model = nn.Dropout(0.5)
    thinned.key(model).at(0, samples=ids)
    with pytest.raises(
        InputError, match=r'name the layout .* such as layout="t b d" or "\(b t\) d"'
    ):
        model(x.transpose(0, 1))
    for layout, message in (
        ("t d", "the axis of the examples, b"),
        ("(b t d) e", "flatten the examples"),
        ("(t d) b", "flatten"),
    ):
        with pytest.raises(InputError, match=message):
            nn.Dropout(0.5, layout=layout)
    with pytest.raises(InputError, match="has no axis 'c'"):
        nn.SpecDropout(presets.spatial_dropout(0.5), layout="b t d")


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_shards_are_parts_of_the_whole_mask(impl):
    """Tensor parallelism: ranks that hold parts of an axis draw their parts."""
    x = torch.randn(4, 3, 12)
    for axis, at in (("d", 2), ("t", 1)):

        def run(given, shard=None, axis=axis):
            model = nn.Dropout(0.5, layout="b t d", shard=shard, impl=impl)
            thinned.key(model, 2).at(1)
            return model(given)

        whole = run(x)
        parts = [run(part, (axis, i, 3)) for i, part in enumerate(x.chunk(3, at))]
        assert torch.equal(torch.cat(parts, at), whole)
    for shard, message in (((("b"), 0, 2), "neither b"), (("d", 2, 2), "0 <= index < count")):
        with pytest.raises(InputError, match=message):
            nn.Dropout(0.5, layout="b t d", shard=shard)


def test_capturable_keys_stay_where_they_are():
    """As a captured CUDA graph needs: the same memory at every step."""
    model, (_, ids) = net(), batch()
    key = thinned.key(model, 3, capturable=True)
    key.at(0, samples=ids)
    before = [t.data_ptr() for t in key.tensor_key()[:2]]
    key.at(9, samples=ids + 1)
    assert [t.data_ptr() for t in key.tensor_key()[:2]] == before
    assert key.tensor_key().seed_step.tolist() == [3, 9]
    assert torch.equal(key.tensor_key().sample_ids, ids + 1)


def test_removed_and_unused_keys():
    model, (x, _) = net(), batch()
    key = thinned.key(model)
    with pytest.raises(InputError, match=r"call key.at\(step\)"):
        model(x)
    key.remove()
    model(x)
    with pytest.raises(InputError, match="removed from its model"):
        key.at(0)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("preserve", [False, True])
def test_tapes_and_frozen_noise_under_checkpointing(keyed, preserve):
    """A recomputation draws what its first pass drew, replayed, recorded or frozen; the tape grows
    by the calls alone.
    """
    drop = nn.Dropout(0.5)
    if keyed:
        thinned.key(drop, 1).at(3)

    def check(forward_in, backward_in):
        x = torch.ones(3000, requires_grad=True)
        with forward_in:
            y = checkpoint(
                lambda t: drop(drop(t) * t) * t, x, use_reentrant=False, preserve_rng_state=preserve
            )
        with backward_in:
            y.sum().backward()
        torch.testing.assert_close(x.grad, 3 * y.detach())  # y = a a' x^3 at x = 1

    with thinned.recording(drop) as tape:
        drop(torch.ones(3000)), drop(torch.ones(3000))
    none = contextlib.nullcontext
    check(thinned.replaying(drop, tape), none())
    with thinned.replaying(drop, tape):
        check(none(), none())
    check(thinned.frozen(drop), none())
    with thinned.recording(drop) as tape:
        check(none(), none())
    assert [len(calls) for calls in tape.drawn.values()] == [2]


class Rows(torch.nn.Module):
    """A linear layer, a dropout layer of any kind and another linear layer."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.last = torch.nn.Linear(8, 12), layer, torch.nn.Linear(12, 1)

    def forward(self, x):
        return self.last(self.drop(self.first(x)))


MAPPED = {
    "dropout": lambda: nn.Dropout(0.5),
    "gaussian": lambda: nn.GaussianDropout(0.5),
    "alpha": lambda: nn.AlphaDropout(0.5),
    "reference": lambda: nn.Dropout(0.5, impl="reference"),
    "block": lambda: nn.SpecDropout(presets.drop_block(0.3, 3)),
    "drop path": lambda: nn.DropPath(0.5),
}


@ignore_jit
@pytest.mark.parametrize("randomness", ["error", "different", "same"])
@pytest.mark.parametrize("kind", MAPPED)
def test_ids_mapped_by_vmap_give_each_example_its_mask(kind, randomness):
    """Per-example losses and gradients equal those of a loop; grad within vmap, and without."""
    model = Rows(MAPPED[kind]())
    key = thinned.key(model, 7)
    parameters = dict(model.named_parameters())
    shape = (1, 2, 5, 8) if kind == "block" else (1, 8)
    x, ids = torch.randn(4, *shape), torch.tensor([7, 3, 11, 2])

    def loss(parameters, x, i):
        key.at(2, samples=i[None])
        return torch.func.functional_call(model, parameters, (x,)).sum()

    each = torch.func.vmap(torch.func.grad_and_value(loss), (None, 0, 0), randomness=randomness)(
        parameters, x, ids
    )
    alone = torch.func.vmap(loss, (None, 0, 0), randomness=randomness)(parameters, x, ids)
    for i in range(4):
        expected = loss(parameters, x[i], ids[i].clone())
        grads = torch.autograd.grad(expected, list(parameters.values()))
        torch.testing.assert_close(alone[i], expected)
        torch.testing.assert_close(each[1][i], expected)
        for name, grad in zip(parameters, grads, strict=True):
            torch.testing.assert_close(each[0][name][i], grad)


@ignore_jit
def test_fixed_ids_within_vmap_are_refused_unless_shared_on_purpose():
    model = Rows(nn.Dropout(0.5))
    key = thinned.key(model, 7)
    x = torch.randn(4, 1, 8)
    key.at(0)
    for randomness in ("error", "different"):
        with pytest.raises(InputError, match="would share one mask; map the ids too"):
            torch.func.vmap(model, randomness=randomness)(x)
    key.at(0)
    shared = torch.func.vmap(model, randomness="same")(x)
    key.at(0)
    torch.testing.assert_close(shared[2], model.last(model.drop(model.first(x[2]))))
    key.at(0)
    torch.func.hessian(lambda row: model(row).sum())(x[0])  # maps tangents, not examples


@ignore_jit
@ignore_dynamo
@pytest.mark.parametrize("randomness", ["error", "different", "same"])
@pytest.mark.parametrize("kind", MAPPED)
def test_a_compiled_graph_refuses_fixed_ids_within_vmap_as_well(kind, randomness):
    model = Rows(MAPPED[kind]())
    key = thinned.key(model, 7)
    x = torch.randn(4, *((1, 2, 5, 8) if kind == "block" else (1, 8)))
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: torch.func.vmap(model, randomness=randomness)(x), backend="aot_eager"
    )
    key.at(0, samples=[3])
    if randomness != "same":
        with pytest.raises(Exception, match="would share one mask; map the ids too"):
            compiled(x)
        return
    outputs = compiled(x)
    for row, output in zip(x, outputs, strict=True):
        key.at(0, samples=[3])
        torch.testing.assert_close(output, model(row))


@ignore_jit
@ignore_dynamo
def test_compiled_transforms_that_map_no_examples_take_fixed_ids():
    model = Rows(nn.Dropout(0.5))
    key = thinned.key(model, 7)
    x, ids = torch.randn(4, 1, 8), torch.tensor([7, 3, 11, 2])

    def loss(row):
        return model(row).square().sum()

    def loss_of_example(row, i):
        key.at(0, samples=i[None])
        return loss(row)

    for transform in (torch.func.grad, torch.func.hessian):
        torch._dynamo.reset()
        results = []
        for function in (
            torch.compile(lambda row, of=transform: of(loss)(row), backend="aot_eager"),
            transform(loss),
        ):
            key.at(0, samples=[3])
            results.append(function(x[0]))
        torch.testing.assert_close(*results)
    torch._dynamo.reset()
    each = torch.compile(
        lambda x, ids: torch.func.vmap(torch.func.grad(loss_of_example))(x, ids),
        backend="aot_eager",
    )(x, ids)
    for i in range(4):
        key.at(0, samples=ids[i : i + 1])
        torch.testing.assert_close(each[i], torch.func.grad(loss)(x[i]))


@ignore_jit
@pytest.mark.parametrize("randomness", ["error", "different", "same"])
def test_an_ensemble_under_vmap_equals_its_members_alone(randomness):
    """Outputs and gradients; the number of the member is the copy number of its examples."""
    torch.manual_seed(0)
    models = [Rows(nn.Dropout(0.5)) for _ in range(3)]
    base = Rows(nn.Dropout(0.5))
    key = thinned.key(base, 7)
    x, ids = torch.randn(4, 8), torch.tensor([7, 3, 11, 2])
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters, buffers, member):
        key.at(2, samples=ids, copies=member.expand(len(ids)))
        y = torch.func.functional_call(base, (parameters, buffers), (x,))
        return y.square().sum(), y

    grads, outputs = torch.func.vmap(torch.func.grad(loss, has_aux=True), randomness=randomness)(
        parameters, buffers, torch.arange(3)
    )
    kept = []
    for i, model in enumerate(models):
        thinned.key(model, 7).at(2, samples=ids, copies=[i] * 4)
        y = model(x)
        torch.testing.assert_close(outputs[i], y)
        y.square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(grads[name][i], parameter.grad)
        thinned.key_of(model).at(2, samples=ids, copies=[i] * 4)
        kept.append(model.drop(torch.ones(4, 8)) != 0)
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[1], kept[2])
    key.at(2, samples=ids)
    if randomness != "same":  # without the copy numbers all members would share masks
        with pytest.raises(InputError, match="would share one mask"):
            torch.func.vmap(
                lambda *state: torch.func.functional_call(base, state, (x,)), randomness=randomness
            )(parameters, buffers)


def test_mapped_ids_that_cannot_be_used_are_refused():
    model = Rows(nn.Dropout(0.5))
    key = thinned.key(model, 7)
    x, ids = torch.randn(4, 1, 8), torch.arange(4)

    def run(at):
        def loss(row, i):
            at(i)
            return model(row).sum()

        return lambda: torch.func.vmap(torch.func.grad(loss))(x, ids)

    for at, message in (
        (lambda i: key.at(i), "step has to be one number"),
        (lambda i: key.at(i[None]), "step has to be one number"),
        (lambda i: key.at([0], samples=i[None]), "step has to be one number"),
        (lambda i: key.at(0, samples=[i]), "samples has to be a 1-d"),
        (lambda i: key.at(0, samples=i), "samples has to be a 1-d"),
        (lambda i: key.at(0, samples=i[None] * 0.5), "samples has to be a 1-d"),
    ):
        with pytest.raises(InputError, match=message):
            run(at)()
    run(lambda i: key.at(0, samples=i[None]))()
    with pytest.raises(InputError, match="mapped by a vmap that has ended"):
        model(x[0])
    copy.deepcopy(model)
    with thinned.recording(model), pytest.raises(InputError, match="tape cannot hold keys"):
        run(lambda i: key.at(0, samples=i[None]))()
    capturable = thinned.key(copy.deepcopy(net()), capturable=True)
    with pytest.raises(InputError, match="capturable"):
        torch.func.vmap(lambda i: capturable.at(0, samples=i[None]))(ids)


BAD_VECTORS = [
    "abc",
    ["a", "b"],
    [],
    (),
    range(0),
    iter([1, 2]),
    (i for i in (1, 2)),
    [1, 2.5],
    [1.0, 2.0],
    [True, False],
    [[1], [2]],
    [None, 1],
    {1, 2},
    {1: 2},
    [1, 2**63],
    [1, -1],
    [2**70, 1],
    numpy.array([1, None], dtype=object),
    numpy.array([1, 2], dtype=object),
    numpy.array([2**63, 1], dtype=numpy.uint64),
    numpy.array([1.5, 2.0]),
    numpy.array(["a", "b"]),
    numpy.ones((2, 2), dtype=int),
    torch.tensor([0.5, 1.0]),
    torch.tensor([True, False]),
    torch.tensor([1, -2]),
    torch.tensor([[1, 2]]),
    torch.tensor([1j, 2]),
    torch.tensor([1, 2]).to_sparse(),
]


@pytest.mark.parametrize("bad", BAD_VECTORS, ids=lambda v: f"{type(v).__name__} {v}"[:40])
def test_bad_ids_steps_and_copies(bad):
    model = net()
    key = thinned.key(model, 3)
    x = torch.ones(2, 4)
    for at in (
        lambda: key.at(0, samples=bad),
        lambda: key.at(bad),
        lambda: key.at(0, samples=[1, 2], copies=bad),
        lambda: F.drop(x, presets.dropout(0.5), key=Key(1, samples=bad)),
        lambda: F.drop(x, presets.dropout(0.5), key=Key(1, step=bad)),
    ):
        with pytest.raises(InputError, match="has to"):
            at()
    assert key.step is None


@pytest.mark.parametrize("bad", [1.7, True, "1", None, 2**32, -1, torch.tensor(1.5), object()])
def test_bad_steps(bad):
    key = thinned.key(net(), 3)
    for make in (lambda: key.at(bad), lambda: Key(1, step=bad), lambda: Key(1, call=bad)):
        with pytest.raises(InputError, match="has to be"):
            make()


@pytest.mark.parametrize(
    "bad", [1.7, True, "1", None, 2**64, -(2**63) - 1, torch.tensor([1, 2]), numpy.bool_(True)]
)
def test_bad_seeds(bad):
    model = net()
    with pytest.raises(InputError, match="seed has to be"):
        thinned.key(model, bad)
    with pytest.raises(InputError, match="seed has to be"):
        Key(bad)
    key = thinned.key(model, numpy.uint64(2**64 - 1))
    with pytest.raises(InputError, match="seed has to be"):
        key.load_state_dict({"seed": bad, "step": 0})
    with pytest.raises(InputError, match="step has to be"):
        key.load_state_dict({"seed": 1, "step": "x"})
    with pytest.raises(InputError, match="none for step"):
        key.load_state_dict({"seed": 1})
    assert key.seed == 2**64 - 1


def test_copies_of_an_example_draw_masks_of_their_own():
    """Repeated ids are reported; copy 0 is the mask of today, whatever else is in the batch."""
    model = nn.Dropout(0.5)
    key = thinned.key(model, 3)
    x, ids = torch.ones(4, 64), torch.tensor([5, 6, 5, 6])
    with pytest.warns(UserWarning, match=r"more than once.*copies="):
        key.at(1, samples=ids)
    same = model(x)
    assert torch.equal(same[:2], same[2:])
    key.at(1, samples=ids, copies=[0, 0, 1, 2])
    distinct = model(x)
    assert torch.equal(distinct[:2], same[:2])
    assert len(distinct.unique(dim=0)) == 4
    key.at(1, samples=[6], copies=[2])
    assert torch.equal(model(x[:1]), distinct[3:])
    assert key.tensor_key().sample_ids.tolist() == [6 + 2 * 2**47]
    key.at(torch.tensor([1, 1, 2, 2]), samples=ids)  # replay
    with pytest.warns(UserWarning, match="more than once"):
        key.at(1, samples=ids, copies=[1, 0, 1, 0])
    for samples, copies, message in (
        (None, [0, 1], "got no samples"),
        ([1, 2], [0], "of one length, but got 2 and 1"),
        ([2**47], [0], "below 2\\^47"),
        ([1], [2**16], "below 2\\^16"),
    ):
        with pytest.raises(InputError, match=message):
            key.at(0, samples=samples, copies=copies)


def test_copied_models_name_their_own_key():
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    key.at(5, samples=ids)
    y = model(x)
    for twin in (averaged, copy.deepcopy(averaged)):
        with pytest.raises(InputError, match=r"copy of a keyed model .*thinned.key_of\(copy\).at"):
            twin(x)
        thinned.key_of(twin).at(5, samples=ids)
        assert torch.equal(twin(x), y)


def test_replicas_of_data_parallel_are_refused():
    model = nn.Dropout(0.5)
    thinned.key(model).at(0)
    with pytest.raises(InputError, match=r"DataParallel.*DistributedDataParallel"):
        model._replicate_for_data_parallel()(torch.ones(2, 3))


def test_the_number_of_the_mask_contract_is_stored_and_checked():
    model, (x, ids) = net(), batch()
    key = thinned.key(model, 3)
    key.at(0, samples=ids)
    with thinned.recording(model) as tape:
        model(x)
    state, keys = tape.state_dict(), key.state_dict()
    assert state["contract"] == keys["contract"] == CONTRACT == 1
    with pytest.raises(InputError, match="tape was stored under mask contract 2"):
        thinned.Tape.from_state_dict({**state, "contract": 2})
    with pytest.raises(InputError, match="key was stored under mask contract 2"):
        key.load_state_dict({**keys, "contract": 2})
    old = thinned.Tape.from_state_dict(state["drawn"])  # before the contract had a number
    assert old.drawn.keys() == tape.drawn.keys()
    key.load_state_dict({"seed": 3, "step": 0})


def test_repr_names_what_the_key_covers():
    model = torch.nn.ModuleDict(
        {"a": nn.Dropout(0.25), "b": nn.Dropout(0.5), "out": torch.nn.Linear(2, 2)}
    )
    key = thinned.key(model, seed=7, shared={"both": ["a", "b"]})
    head, *rest = repr(key).splitlines()
    assert head == "ModelKey(seed=7, step=not set, layers=2)"
    assert [line.split(":")[0].strip() for line in rest] == ["a", "b"]
    assert "0.25" in rest[0]
    assert "0.5" in rest[1]
    assert all(line.endswith("stream 'both'") for line in rest)
    key.at(step=3, samples=[10])
    assert repr(key).startswith("ModelKey(seed=7, step=3, ")
    key.at(step=torch.tensor([3, 4]), samples=[10, 11])
    assert "step=one for each example" in repr(key)
