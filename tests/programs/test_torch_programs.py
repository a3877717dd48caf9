"""Programs of many kinds go through every tool without a silent failure."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch

import thinned
from thinned.surgery.foreign import foreign_sites

from .models import PROGRAMS

pytestmark = pytest.mark.parametrize("name", PROGRAMS)


def started(name):
    torch.manual_seed(0)
    program = PROGRAMS[name]
    return program, program.build(), program.batch(4)


def prepared(name):
    """The model with layers of thinned at every site, and its edits."""
    program, model, batch = started(name)
    edits = [thinned.replace(model, layout=program.layout)]
    edits.append(thinned.expose(model, *batch, layout=program.layout))
    return program, model, batch, edits


def permuted(batch, axis, order):
    return tuple(x.index_select(axis, order) for x in batch)


def test_find_sees_every_site_and_leaves_the_model(name):
    program, model, batch = started(name)
    state, before = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    measured = thinned.find(model, *batch)
    assert sum(site.in_train for site in measured) == program.sites
    assert not any(site.in_eval for site in measured)
    assert all(site.sampled for site in measured)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_check_has_nothing_to_say_of_evaluation(name):
    """No site draws in evaluation and no mode is stuck, so neither is reported."""
    _, model, batch = started(name)
    findings = thinned.check(model, *batch)
    assert not {"L1", "L2", "L3"} & set(findings.codes)


def test_sampling_and_off_reach_every_site(name):
    _, model, batch = started(name)
    model.eval()
    want = model(*batch)
    with thinned.sampling(model):
        assert not torch.equal(model(*batch), model(*batch))
    torch.testing.assert_close(model(*batch), want)
    model.train()
    with thinned.off(model):
        assert torch.equal(model(*batch), model(*batch))
    with thinned.recording(model) as tape:
        first = model(*batch)
    with thinned.replaying(model, tape):
        assert torch.equal(model(*batch), first)


def test_every_site_becomes_a_keyed_layer_and_goes_back(name):
    program, model, batch, edits = prepared(name)
    names, before = list(model.state_dict()), [type(m) for m in program.build().modules()]
    assert not foreign_sites(model).unkeyed
    key = thinned.key(model, seed=1)
    state = torch.get_rng_state()
    key.at(0)
    first = model(*batch)
    key.at(0)
    assert torch.equal(model(*batch), first)
    key.at(1)
    assert not torch.equal(model(*batch), first)
    assert torch.equal(state, torch.get_rng_state())
    key.remove()
    for edit in reversed(edits):
        edit.undo()
    assert [type(m) for m in model.modules()] == before
    assert list(model.state_dict()) == names
    buffer = io.BytesIO()
    torch.save(model, buffer)


def test_masks_follow_the_examples(name):
    """Permuting examples and ids permutes the results, and halves of a batch have its masks."""
    program, model, batch, _ = prepared(name)
    if program.axis is None:
        pytest.skip("the nodes of a graph are no independent examples")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # it makes the results of a batch depend on all examples
    key, ids, axis = thinned.key(model, seed=1), torch.tensor([9, 4, 7, 2]), program.axis
    key.at(3, samples=ids)
    want = model(*batch)
    order = torch.tensor([2, 0, 3, 1])
    key.at(3, samples=ids[order])
    torch.testing.assert_close(model(*permuted(batch, axis, order)), want.index_select(axis, order))
    for half in (torch.tensor([0, 1]), torch.tensor([2, 3])):
        key.at(3, samples=ids[half])
        torch.testing.assert_close(
            model(*permuted(batch, axis, half)), want.index_select(axis, half)
        )


def train(model, key, batch, steps, optimizer):
    for step in steps:
        key.at(step)
        optimizer.zero_grad()
        model(*batch).square().mean().backward()
        optimizer.step()


def test_a_resumed_training_is_the_same(name):
    _, model, batch, _ = prepared(name)
    twin = copy.deepcopy(model)
    key = thinned.key(model, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    train(model, key, batch, range(2), optimizer)
    buffer = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "key": key.state_dict(), "optimizer": optimizer.state_dict()},
        buffer,
    )
    train(model, key, batch, range(2, 4), optimizer)
    torch.manual_seed(99)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    twin.load_state_dict(saved["model"])
    again = thinned.key(twin, seed=0)
    again.load_state_dict(saved["key"])
    second = torch.optim.Adam(twin.parameters(), 1e-2)
    second.load_state_dict(saved["optimizer"])
    train(twin, again, batch, range(2, 4), second)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_watching_changes_nothing(name):
    trained = []
    for watched in (False, True):
        _, model, batch = started(name)
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), 1e-2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            watch = thinned.watch(model, every=1) if watched else None
            for _ in range(4):
                optimizer.zero_grad()
                loss = model(*batch).square().mean()
                loss.backward()
                optimizer.step()
                if watch is not None:
                    watch.step(*batch, loss=loss)
        if watch is not None:
            assert str(watch)
            watch.close()
        trained.append(model)
    for ours, theirs in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
