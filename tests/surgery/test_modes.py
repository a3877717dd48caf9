"""The context managers over whole models: they reach everybody's dropout, or refuse."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import thinned
import thinned.nn as tnn

X = torch.ones(5, 7, 8)  # [examples, steps, features]


class Functional(nn.Module):
    """Functional dropout by position, by name and by default."""

    def forward(self, x):
        x = F.dropout(x, 0.5, self.training)
        return F.dropout1d(x, 0.5, training=self.training)


class Always(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class Product(nn.Module):
    """Attention as transformer libraries write it: the rate is 0 in evaluation."""

    def forward(self, x):
        rate = 0.5 if self.training else 0.0
        return F.scaled_dot_product_attention(x, x, x, dropout_p=rate)


class ByHand(nn.Module):
    def forward(self, x):
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


class DropPath(nn.Module):
    """As timm writes it."""

    def __init__(self, drop_prob=0.5):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob)


class First(nn.Module):
    """The first result of a module that returns several."""

    def __init__(self, module, *, repeat=1):
        super().__init__()
        self.module, self.repeat = module, repeat

    def forward(self, x):
        return self.module(*(x,) * self.repeat)[0]


REACHED = {
    "module": lambda: nn.Dropout(0.5),
    "maps": lambda: nn.Dropout1d(0.5),
    "functional": Functional,
    "path": DropPath,
    "attention": lambda: First(
        nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), repeat=3
    ),
    "lstm": lambda: First(nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
    "ours": lambda: tnn.Dropout(0.5),
}


def draws(model):
    with torch.no_grad():
        return not torch.equal(model(X), model(X))


@pytest.mark.parametrize("name", REACHED)
def test_sampling_reaches_the_whole_model(name):
    """In evaluation the model is deterministic before and after, and draws in between; batch
    normalization remains in evaluation.
    """
    torch.manual_seed(0)
    model = nn.Sequential(REACHED[name](), nn.BatchNorm1d(7)).eval()
    before = {n: m.training for n, m in model.named_modules()}
    mean = model[1].running_mean.clone()
    assert not draws(model)
    with thinned.sampling(model):
        assert draws(model)
        assert not model[1].training
    assert not draws(model)
    assert torch.equal(mean, model[1].running_mean)
    assert before == {n: m.training for n, m in model.named_modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", [*REACHED, "always", "product"])
def test_off_reaches_the_whole_model(name):
    torch.manual_seed(0)
    made = {"always": Always, "product": Product, **REACHED}[name]
    model = nn.Sequential(made()).train()
    assert draws(model)
    with thinned.off(model):
        assert not draws(model)
    assert draws(model)


def test_a_part_of_the_model_is_reached_too():
    model = nn.ModuleDict({"body": Functional(), "head": nn.Linear(8, 2)}).eval()
    with thinned.sampling(model):
        assert draws(model["body"])
    assert not draws(model["body"])


def test_an_exception_in_forward_leaves_nothing_behind():
    class Fails(nn.Module):
        def forward(self, x):
            F.dropout(x, 0.5, self.training)
            raise RuntimeError("as asked")

    model = Fails().eval()
    with thinned.sampling(model), pytest.raises(RuntimeError, match="as asked"):
        model(X)
    assert torch.equal(F.dropout(X, 0.5, False), X)


class Mixed(nn.Module):
    """Its mode decides about more than dropout, and skips the dropout in evaluation."""

    def forward(self, x):
        if self.training:
            self.batches = getattr(self, "batches", 0) + 1
            x = F.dropout(x, 0.5)
        return x


class MaskInMixed(nn.Module):
    def forward(self, x):
        if self.training:
            x = x * torch.bernoulli(torch.full_like(x, 0.5))
            self.seen = True
        return x


class Zero(nn.Module):
    """Its rate is 0 in evaluation, and its mode decides about the result too."""

    def forward(self, x):
        rate = 0.5 if self.training else 0.0
        x = F.dropout(x, rate)
        return (x, x.sum()) if self.training else x


class Auxiliary(nn.Module):
    """Its mode decides about the result too; the dropout is switched by the argument."""

    def forward(self, x):
        x = F.dropout(x, 0.5, self.training)
        return (x, x.sum()) if self.training else x


class Guarded(nn.Module):
    def forward(self, x):
        if self.training and x.dim() > 1:
            keep = torch.empty(len(x), 1, 1).bernoulli_(0.5)
            x = x * keep.div(0.5)
        return x


class RuntimeAttention(nn.Module):
    """As Hugging Face writes it: the function is chosen at run time."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.functions = {"eager": eager_attention}

    def forward(self, x):
        attend = self.functions["eager"]
        return attend(self, x, dropout=0.0 if not self.training else self.dropout.p)


def eager_attention(module, x, dropout):
    weights = (x @ x.mT).softmax(-1)
    return F.dropout(weights, p=dropout, training=module.training) @ x


READ = {
    "product": Product,
    "by hand": ByHand,
    "auxiliary": Auxiliary,
    "guarded": Guarded,
    "run time": RuntimeAttention,
}


@pytest.mark.parametrize("name", READ)
def test_the_source_says_what_a_flag_decides(name):
    """In evaluation the results have no auxiliary part, within the context too."""
    torch.manual_seed(0)
    model = nn.Sequential(READ[name]()).eval()
    assert not draws(model)
    with thinned.sampling(model):
        assert draws(model)
        assert not model.training
    assert not draws(model)
    model.train()
    with thinned.off(model):
        first, second = model(X), model(X)
        parts = zip(first, second, strict=True) if name == "auxiliary" else [(first, second)]
        assert all(torch.equal(a, b) for a, b in parts)
    assert type(model[0]) is READ[name]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (Mixed, "switched by its mode at .*test_modes.py"),
        (MaskInMixed, "torch.bernoulli at .*"),
        (Zero, "switched by its mode at .*"),
    ],
)
def test_sampling_refuses_what_it_cannot_reach(build, text):
    model = nn.Sequential(nn.Dropout(0.5), build()).eval()
    with pytest.raises(thinned.InputError, match=rf"1 \({build.__name__}\): {text}:\d+"):
        thinned.sampling(model)
    with thinned.sampling(model, partial=True):
        assert draws(model)


STOCK = {name: build for name, build in {**REACHED, **READ}.items() if name != "ours"}


def train_and_seed(build):
    torch.manual_seed(0)
    return nn.Sequential(tnn.Dropout(0.5), build()).train()


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", STOCK)
def test_frozen_holds_the_noise_of_every_site(name):
    model = train_and_seed(STOCK[name])
    with thinned.frozen(model):
        assert torch.equal(first(model(X)), first(model(X)))
        state = torch.get_rng_state()
        model(X)
        assert torch.equal(state, torch.get_rng_state())
    with thinned.frozen(model):
        other = first(model(X))
    with thinned.frozen(model):
        assert not torch.equal(first(model(X)), other)
    assert not torch.equal(first(model(X)), first(model(X)))


@pytest.mark.parametrize("name", STOCK)
def test_a_tape_holds_the_noise_of_every_site(name):
    """The second call draws other noise than the first, and both come again, from a saved tape."""
    model = train_and_seed(STOCK[name])
    with thinned.recording(model) as tape:
        calls = [first(model(X)) for _ in range(2)]
    assert not torch.equal(*calls)
    saved = thinned.Tape.from_state_dict(tape.state_dict())
    torch.manual_seed(1)
    with thinned.replaying(model, saved):
        assert all(torch.equal(first(model(X)), call) for call in calls)
        with pytest.raises(thinned.InputError, match="3 times"):
            model(X)


def test_two_sites_of_one_module_are_frozen_apart():
    class Two(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, self.training), F.dropout(x, 0.5, self.training)

    torch.manual_seed(0)
    model = Two()
    with thinned.frozen(model):
        one, two = model(X)
        again = model(X)
    assert not torch.equal(one, two)
    assert torch.equal(one, again[0])
    assert torch.equal(two, again[1])


class Checkpointed(nn.Module):
    """A segment that is no module; the code around it reads the mode for something else."""

    def __init__(self, reentrant=False):
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x):
        training = self.training
        y = checkpoint(lambda y: F.dropout(y * y, 0.5, training), x, use_reentrant=self.reentrant)
        return y * 1.0 if self.training else y


def test_a_recorded_checkpoint_is_recomputed_with_its_noise():
    """Gradients of x are those of the masks of the first pass, which are read off the result."""

    torch.manual_seed(0)
    model = Checkpointed()
    x = torch.full((40,), 3.0, requires_grad=True)
    with thinned.recording(model) as tape:
        y = model(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, 2 * y.detach() / 3)
    assert len(tape.drawn[""]) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_sampled_checkpoint_is_recomputed_with_its_noise(reentrant):
    torch.manual_seed(0)
    model = Checkpointed(reentrant).eval()
    x = torch.full((40,), 3.0, requires_grad=True)
    with thinned.sampling(model):
        y = model(x)
        y.sum().backward()
    assert (y == 0).any()
    assert torch.equal(x.grad, 2 * y.detach() / 3)


class PythonDraw(nn.Module):
    def forward(self, x):
        if self.training and random.random() < 0.5:
            return torch.zeros_like(x)
        return F.dropout(x, 0.5, self.training)


def test_seeded_contexts_refuse_what_does_not_draw_from_torch():
    model = PythonDraw()
    for context in (thinned.frozen, thinned.recording):
        with pytest.raises(thinned.InputError, match=r"(?s)random\.random at .*partial=True"):
            context(model)
    generator = torch.Generator().manual_seed(1)

    class Own(nn.Module):
        def forward(self, x):
            return x * torch.bernoulli(torch.full_like(x, 0.5), generator=generator)

    own = Own()
    with thinned.frozen(own), pytest.raises(thinned.InputError, match="generator="):
        own(X)


def test_rates_of_0_are_no_sites():
    model = nn.Sequential(nn.Dropout(0.0), nn.LSTM(8, 8, 2), tnn.Dropout(0.5))
    with thinned.recording(model):
        pass


def test_a_rate_of_0_of_another_thing_hides_no_site():
    """An attribute that happens to be called p says nothing of the functions that are called."""
    model = Functional().eval()
    model.p = model.dropout = 0.0
    with thinned.sampling(model):
        assert draws(model)


def stock():
    return nn.Sequential(
        nn.Linear(8, 8), nn.Dropout(0.5), Functional(), DropPath(), tnn.Dropout(0.5)
    ).eval()


def test_threads_do_not_disturb_each_other():
    """One thread samples in a loop, another predicts; each gets what it asked for."""
    model, stop = stock(), threading.Event()
    want = model(X).detach()
    wrong, drawn = [], []

    def sample():
        for _ in range(30):
            with thinned.sampling(model), torch.no_grad():
                drawn.append(torch.equal(model(X), want))
        stop.set()

    def predict():
        with torch.no_grad():
            while not stop.is_set():
                wrong.append(not torch.equal(model(X), want))

    threads = [threading.Thread(target=f) for f in (predict, sample, predict)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong
    assert not any(wrong)
    assert not any(drawn)
    assert not draws(model)
    assert [type(m) for m in model] == [nn.Linear, nn.Dropout, Functional, DropPath, tnn.Dropout]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_are_switched_for_one_thread(backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), tnn.Dropout(0.5), Product()).eval()
    compiled = torch.compile(model, backend=backend)
    want, other = compiled(X).detach(), []

    def predict():
        with torch.no_grad():
            other.append(torch.equal(compiled(X), compiled(X)))

    with thinned.sampling(compiled), torch.no_grad():
        assert draws(compiled)
        thread = threading.Thread(target=predict)
        thread.start()
        thread.join(300)
    assert other == [True]
    assert torch.allclose(compiled(X), want)
    assert not draws(compiled)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_coroutines_do_not_disturb_each_other(compile):
    """Two overlapping contexts and one ordinary prediction between each of their steps."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), tnn.Dropout(0.5)).eval()
    run = torch.compile(model, backend="eager") if compile else model
    wrong = []

    async def sample(steps):
        with thinned.sampling(run):
            for _ in range(steps):
                await asyncio.sleep(0)
                wrong.append(not draws(run))

    async def predict():
        for _ in range(8):
            await asyncio.sleep(0)
            wrong.append(draws(run))

    async def main():
        await asyncio.gather(sample(2), predict(), sample(5))

    asyncio.run(main())
    assert len(wrong) == 15
    assert not any(wrong)
    assert not draws(model)
    assert not torch._C._len_torch_function_stack()


def test_contexts_may_end_in_any_order():
    model = stock()

    def sampler():
        with thinned.sampling(model):
            yield

    first, second = sampler(), sampler()
    next(first)
    next(second)
    first.close()
    assert draws(model)
    second.close()
    assert not draws(model)
    third = sampler()
    next(third)
    thread = threading.Thread(target=third.close)
    thread.start()
    thread.join(60)
    assert not draws(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_modes_that_were_entered_within_remain_on_the_stack():
    """A function mode of the user, entered in between, is on until the user leaves it."""
    model = nn.Sequential(Auxiliary()).eval()

    def sampler():
        with thinned.sampling(model):
            yield

    running = sampler()
    next(running)
    with torch.device("meta"):
        running.close()
        assert torch.ones(1).device.type == "meta"
    assert torch.ones(1).device.type == "cpu"
    assert not torch._C._len_torch_function_stack()


HOW = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),  # noqa: S301  # of this process
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("context", [thinned.sampling, thinned.frozen])
def test_copies_are_in_their_own_mode(how, context):
    model = stock()
    with context(model):
        copied = HOW[how](model)
        assert not draws(copied)
    assert not draws(copied)
    assert [type(m) for m in copied] == [type(m) for m in model]
    assert type(model[1]) is nn.Dropout


def test_train_and_eval_within_a_context_hold_after_it():
    model = stock()
    with thinned.sampling(model):
        model.train()
    assert all(m.training for m in model.modules())
    with thinned.off(model):
        assert not draws(model)
        model.eval()
    assert not any(m.training for m in model.modules())


def test_inner_contexts_win():
    model = stock().train()
    with thinned.off(model):
        with thinned.sampling(model):
            assert draws(model)
        assert not draws(model)


def test_a_model_without_dropout_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(thinned.InputError, match="finds no dropout in this model"):
        thinned.sampling(model)
    with thinned.sampling(model, partial=True):
        pass
