"""``thin`` on residual branches: they run on the kept examples only, with the dense results."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from torch.nn import functional as TF

import thinned
from thinned import InputError, nn
from thinned.nn.thinned_branches import BranchStart

X = torch.randn(9, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Block(torch.nn.Module):
    """A transformer-like block; one drop path for both branches where ``shared``."""

    def __init__(self, make, shared=False, norm=torch.nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.norm1, self.norm2 = norm(8), norm(8)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix = torch.nn.Linear(8, 8)
        self.up, self.down = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)
        self.drop = nn.Dropout(0.3)
        self.path1 = make()
        self.path2 = self.path1 if shared else make()
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.double()

    def forward(self, x, mask=None):
        h = self.norm1(x)
        x = x + self.path1(self.mix(h).cumsum(1) * self.scale)
        h = self.down(self.drop(TF.gelu(self.up(self.norm2(x)))))
        return self.path2(h) + x


class Plain(Block):
    """A branch that begins with the linear layer before a thinned dropout."""

    def forward(self, x):
        return x + self.path1(self.down(self.drop(self.up(x))))


class DropPath(torch.nn.Module):
    """As other libraries write it."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training or not self.drop_prob:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / keep


def stack(make, shared=False, kind=Block):
    return torch.nn.Sequential(kind(make, shared), kind(make, shared))


def dense(model):
    """The same layers on the whole batch."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__dict__.pop("forward", None)
        if isinstance(module, nn.Thinned):
            module.linked = False
    return twin


def assert_same(model, twin, x, **at):
    results = []
    for net in (model, twin):
        thinned.key_of(net).at(**at)
        given = x.clone().requires_grad_()
        y = net(given)
        used = list(net.parameters())
        gradients = torch.autograd.grad(y.sin().sum(), [given, *used], allow_unused=True)
        results.append([y, *[g for g in gradients if g is not None]])
    assert len(results[0]) == len(results[1])
    for seen, right in zip(*results, strict=True):
        torch.testing.assert_close(seen, right, rtol=1e-11, atol=1e-12)
    return results[0][0]


MAKE = {
    "drop path": lambda: nn.DropPath(0.5),
    "unscaled": lambda: nn.DropPath(0.4, scale="unscaled"),
    "stochastic depth": lambda: nn.StochasticDepth(0.5),
    "rare": lambda: nn.DropPath(0.01),
    "nearly all": lambda: nn.DropPath(0.97),
    "all": lambda: nn.DropPath(1.0),
    "none": lambda: nn.DropPath(0.0),
}


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", MAKE)
def test_kept_examples_alone_give_the_dense_result(name, shared, always):
    """Results and gradients, with the masks of dropout inside the branch by sample id."""
    model = stack(MAKE[name], shared)
    thinned.thin(model, always=always)
    thinned.key(model, seed=4)
    twin = dense(model)
    ids = torch.tensor([7, 3, 2**40, 9, 1, 5, 11, 6, 0])
    y = assert_same(model, twin, X, step=3, samples=ids)
    assert_same(model, twin, X, step=4)
    assert_same(model, twin, X[:1], step=5, samples=ids[:1])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    seen = assert_same(model, twin, X[order], step=3, samples=ids[order])
    torch.testing.assert_close(seen, y[order], rtol=1e-11, atol=1e-12)


def test_branch_that_begins_with_a_thinned_layer():
    model = stack(MAKE["drop path"], kind=Plain)
    edits = thinned.thin(model, always=True)
    assert isinstance(model[0].up.forward, BranchStart)
    assert model[0].up.forward.inner.behind is model[0].drop
    thinned.key(model, seed=4)
    assert_same(model, dense(model), X, step=1)
    edits.undo()
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_mask_written_out_and_only_kept_examples_run():
    """The oracle that shares no code with the branch: the keyed mask, multiplied in."""
    model = Block(MAKE["drop path"])
    thinned.thin(model)
    thinned.key(model, seed=1)
    model.drop.p = 0.0
    seen = []
    model.mix.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    thinned.key_of(model).at(2)
    y = model(X)
    thinned.key_of(model).at(2)
    masks = [
        2.0 * thinned.functional.mask(path.spec, (9, 5, 8), path.call_key()).double()
        for path in (model.path1, model.path2)
    ]
    assert seen == [int(masks[0].count_nonzero())]
    m = dense(model)
    h = X + masks[0] * (m.mix(m.norm1(X)).cumsum(1) * m.scale)
    right = h + masks[1] * m.down(TF.gelu(m.up(m.norm2(h))))
    torch.testing.assert_close(y, right, rtol=1e-12, atol=1e-12)


def test_layers_of_other_libraries():
    model = stack(lambda: DropPath(0.5))
    evaluated = model.eval()(X)
    model.train()
    edits = thinned.thin(model)
    assert isinstance(model[0].path1, nn.DropPath | nn.SpecDropout)
    torch.testing.assert_close(model.eval()(X), evaluated, rtol=0, atol=0)
    thinned.key(model.train(), seed=1)
    assert_same(model, dense(model), X, step=1)
    again = thinned.thin(model)
    assert (len(again), again.notes) == (0, ())
    edits.undo()
    assert type(model[0].path1) is DropPath


def test_modes_copies_checkpointing_and_compilation():
    model = stack(MAKE["drop path"])
    thinned.thin(model)
    key = thinned.key(model, seed=2)
    key.at(1)
    right = model(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        thinned.key_of(twin).at(1)
        torch.testing.assert_close(twin(X), right, rtol=0, atol=0)
        assert twin[0].norm1.forward.branch.layer is twin[0].path1
    gradients = []
    for reentrant in (None, True, False):
        model.zero_grad()
        key.at(1)
        given = X.clone().requires_grad_()
        y = (
            model(given)
            if reentrant is None
            else torch.utils.checkpoint.checkpoint(model, given, use_reentrant=reentrant)
        )
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])
    quiet = dense(model).eval()(X)
    with thinned.off(model):
        torch.testing.assert_close(model(X), quiet, rtol=0, atol=0)
    model.eval()
    with thinned.sampling(model):
        key.at(1)
        torch.testing.assert_close(model(X), right, rtol=0, atol=0)
    model.train()
    torch._dynamo.reset()
    key.at(1)
    compiled = torch.compile(model, backend="eager")(X)
    torch.testing.assert_close(compiled, right, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on its first jvp
def test_transforms_run_on_all_examples():
    """Where shapes are fixed, the branch is dense, with the same masks."""
    model = stack(MAKE["drop path"])
    thinned.thin(model)
    key = thinned.key(model, seed=2)
    key.at(1)
    right = model(X)
    key.at(1)
    seen, _ = torch.func.jvp(model, (X,), (torch.ones_like(X),))
    torch.testing.assert_close(seen, right, rtol=1e-12, atol=1e-12)
    key.remove()
    for block in model:
        block.drop.p = 0.0
    mapped = torch.vmap(model, randomness="different")(X[None])
    assert mapped.shape == (1, *X.shape)


def test_measured_rate_of_a_branch():
    model = torch.nn.Sequential(Block(MAKE["drop path"]))
    thinned.thin(model)
    thinned.key(model, seed=2).at(1)
    found = {site.name: site.measured for site in thinned.find(model, X)}
    thinned.key_of(model).at(1)
    mask = thinned.functional.mask(model[0].path1.spec, (9, 5, 8), model[0].path1.call_key())
    assert found["0.path1"] == pytest.approx(1 - float(mask.double().mean()))


class Outside(Block):
    """The branch also reads what is not its input."""

    def forward(self, x):
        return x + self.path1(self.mix(self.norm1(x)) * x.mean())


class Escaping(Block):
    """A value from within the branch is used outside."""

    def forward(self, x):
        h = self.norm1(x)
        return h + self.path1(self.mix(h))


class Maps(torch.nn.Module):
    """A convolutional branch with BatchNorm at its start or at its end."""

    def __init__(self, first):
        super().__init__()
        torch.manual_seed(0)
        norm, convolution = torch.nn.BatchNorm1d(5), torch.nn.Conv1d(5, 5, 1)
        self.first, self.second = (norm, convolution) if first else (convolution, norm)
        self.path = nn.DropPath(0.5)
        self.double()

    def forward(self, x):
        return x + self.path(self.second(self.first(x)))


def test_batch_norm_runs_on_the_whole_batch():
    """Before the start of what is left out it changes nothing; behind it, the branch is left."""
    model = Maps(first=True)
    thinned.thin(model)
    assert "forward" not in model.first.__dict__
    thinned.key(model, seed=1)
    assert_same(model, dense(model), X, step=1)
    with pytest.raises(InputError, match=r"path: left as it is: .*statistics from the whole batch"):
        thinned.thin(Maps(first=False))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Block(lambda: nn.StochasticDepth(0.5, per="batch")), "does not drop the branch"),
        (lambda: Outside(MAKE["drop path"]), "reads all of its branch's input"),
    ],
)
def test_left_with_the_reason(build, reason):
    model = build()
    model.drop.p = 0.0
    model = torch.nn.Sequential(
        model, torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 8)
    )
    notes = thinned.thin(model).notes
    assert any(reason in note for note in notes if note.startswith("0.path1"))
    assert "forward" not in model[0].norm1.__dict__


class Attention(torch.nn.Module):
    """Returns a pair, as transformers do."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, mask=None, **kwargs):
        return self.inner(x, x, x, attn_mask=mask)


def decorated(forward):
    @functools.wraps(forward)
    def wrapper(self, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return wrapper


class Modern(Block):
    """With a decorated forward, further keyword arguments, a test for None and an unused result."""

    def __init__(self, make):
        super().__init__(make)
        self.attention = Attention().double()

    @decorated
    def forward(self, x, mask=None, **kwargs):
        h = self.norm1(x)
        h, _ = self.attention(h, mask=mask, **kwargs)
        x = self.path1(h) + x
        return self.path2(self.down(self.drop(TF.gelu(self.up(self.norm2(x)))))) + x


def test_forwards_with_decorators_keyword_arguments_and_pairs():
    model = Modern(MAKE["drop path"])
    thinned.thin(model, always=True)
    assert isinstance(model.norm1.forward, BranchStart)
    assert isinstance(model.norm2.forward, BranchStart)
    assert model.drop.linked
    thinned.key(model, seed=1)
    assert_same(model, dense(model), X, step=1)


@pytest.mark.parametrize(
    ("name", "count", "layers"), [("Dinov2", 6, 3), ("ConvNext", 2, 2), ("Beit", 4, 2)]
)
def test_models_of_transformers(name, count, layers):
    """Every branch with a drop path of a vision model; its results are those of the whole batch."""
    transformers = pytest.importorskip("transformers")
    settings = (
        {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "patch_size": 2}
        if name == "ConvNext"
        else {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
    )
    config = getattr(transformers, f"{name}Config")(
        image_size=16, drop_path_rate=0.6, attn_implementation="eager", **settings
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).double().train()
    edits = thinned.thin(model)
    starts = [m for m in model.modules() if isinstance(m.__dict__.get("forward"), BranchStart)]
    assert len(starts) == count
    assert len(edits) == count + 2 * layers
    thinned.key(model, seed=3)
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.p = 0.0
    x = torch.randn(7, 3, 16, 16, dtype=torch.float64)
    results = []
    for net in (model, dense(model)):
        thinned.key_of(net).at(2)
        y = net(x)[0]
        parameters = [p for p in net.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(y.sin().sum(), parameters, allow_unused=True)
        results.append([y, *[g for g in gradients if g is not None]])
    for seen, right in zip(*results, strict=True):
        torch.testing.assert_close(seen, right, rtol=1e-10, atol=1e-12)


def test_a_value_used_outside_moves_the_start_of_the_branch():
    model = Escaping(MAKE["drop path"])
    thinned.thin(model)
    assert "forward" not in model.norm1.__dict__
    assert isinstance(model.mix.forward, BranchStart)
    thinned.key(model, seed=1)
    assert_same(model, dense(model), X, step=1)


def test_groups_and_results_of_other_sizes():
    model = stack(MAKE["drop path"])
    assert any("groups are rows" in note for note in thinned.thin(model, groups=2).notes)
    model = torch.nn.Sequential(Block(MAKE["drop path"]))
    thinned.thin(model)
    model[0].mix = torch.nn.Flatten(0, 1)
    with pytest.raises(InputError, match="does not treat examples separately"):
        model(X)
