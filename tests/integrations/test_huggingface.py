"""Real small trainings under the Trainer of Hugging Face: a BERT of two narrow layers with random
weights.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

import transformers

import thinned
from thinned.integrations.data import Indexed
from thinned.integrations.huggingface import ThinnedCallback, WatchCallback, mc_predict

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(autouse=True)
def _nondeterministic():
    torch.use_deterministic_algorithms(False)


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=2,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.1,
    )
    return transformers.BertForSequenceClassification(config)


def data():
    made = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (32, 8), generator=made)
    return [{"input_ids": row, "labels": int(row[0] > 25)} for row in ids]


def keyed_bert():
    """Every site is a layer of thinned; the attention functions are chosen at run time."""
    model = bert()
    thinned.replace(model)
    with pytest.raises(thinned.InputError, match="attention_interface"):
        thinned.key(model)
    thinned.expose(model, input_ids=data()[0]["input_ids"][None])
    return model


def gpt():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.2,
    )
    return transformers.GPT2LMHeadModel(config)


def train(model, folder, callbacks=(), attach=None, rows=None, **options):
    usual = {
        "output_dir": str(folder),
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "report_to": [],
        "save_strategy": "no",
        "seed": 1,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments = transformers.TrainingArguments(**usual | options)
    rows = data() if rows is None else rows
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, eval_dataset=data(), callbacks=list(callbacks)
    )
    if attach is not None:
        attach.attach(trainer)
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_watched_is_the_same_and_is_logged(tmp_path, accumulate):
    plain, watched = bert(), bert()
    train(plain, tmp_path, gradient_accumulation_steps=accumulate)
    callback = WatchCallback(every=2)
    trainer = train(watched, tmp_path, attach=callback, gradient_accumulation_steps=accumulate)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    samples = [r for r in callback.watch.history if r["what"] == "sample"]
    assert len(samples) == 4
    assert [r["step"] for r in callback.watch.history if r["what"] == "validation"] == [4, 8]
    assert not callback.watch.findings.of("L25")
    assert {r["nominal"] for r in samples[0]["rates"].values()} >= {0.2}
    assert 0.3 < samples[0]["eval"] < 1.5
    assert samples[0]["gradients"]
    assert sum("watch/loss/eval_mode" in one for one in trainer.state.log_history) == 4
    assert not watched._forward_pre_hooks


def test_through_report_to(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    callback = WatchCallback(every=4)
    train(bert(), tmp_path, attach=callback, report_to=["tensorboard"])
    read = EventAccumulator(str(tmp_path / "board")).Reload()
    samples = [r for r in callback.watch.history if r["what"] == "sample"]
    assert [e.value for e in read.Scalars("train/watch/loss/eval_mode")] == pytest.approx(
        [r["eval"] for r in samples]
    )
    assert "train/watch/rate/bert.embeddings.dropout" in read.Tags()["scalars"]


def test_keys_and_schedules(tmp_path):
    ends = []
    for seed in (1, 2):
        model = keyed_bert()
        torch.manual_seed(seed)
        train(model, tmp_path, [ThinnedCallback(key=3)], data_seed=1)
        ends.append(model.classifier.weight.detach().clone())
    assert torch.equal(*ends)
    model = keyed_bert()
    model.dropout = thinned.nn.Dropout(thinned.algebra.schedule.Linear(0.0, 0.8, 8))
    train(model, tmp_path, [ThinnedCallback()])
    assert model.dropout.p == pytest.approx(0.7)  # at step 7, the last


class Leaky(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.2)


def test_checked_at_the_start(tmp_path):
    ends = []
    for wrong in (True, False):
        model, callback = bert(), ThinnedCallback(check=True)
        if wrong:
            model.dropout = Leaky()
            with pytest.warns(UserWarning, match="L1 dropout-without-training"):
                train(model, tmp_path, [callback])
            assert [(f.code, f.site) for f in callback.findings] == [("L1", "dropout")]
        else:
            train(model, tmp_path, [callback])
            assert callback.findings is not None
            assert not callback.findings
        ends.append(model)
    plain = bert()
    train(plain, tmp_path)
    same = zip(plain.state_dict().values(), ends[1].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_masks_are_functions_of_the_sample_ids(tmp_path):
    """Ids through the Trainer: a batch of 8 has the masks of two micro-batches of 4, and no id
    reaches the model.
    """
    ends, all_masks = [], []
    for size in (8, 4):
        model = keyed_bert()
        masks = []
        model.dropout.register_forward_hook(
            lambda m, a, y, to=masks: to.append(y.detach() == 0) if m.training else None
        )
        options = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 8 // size,
            "max_steps": 4,
        }
        callbacks = [ThinnedCallback(key=3, samples="sample", check=True), WatchCallback(every=1)]
        callbacks = (
            callbacks if size == 8 else callbacks[::-1]
        )  # the order of the callbacks makes no difference
        train(
            model,
            tmp_path,
            callbacks,
            rows=Indexed(data(), name="sample"),
            remove_unused_columns=False,
            **options,
        )
        own = [m for m in masks if len(m) == size]
        ends.append(model.classifier.weight.detach().clone())
        all_masks.append(own)
        assert not model._forward_pre_hooks
        with pytest.raises(thinned.InputError, match="no key"):
            thinned.key_of(model)
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0], bert().classifier.weight)
    together = {tuple(row.tolist()) for m in all_masks[0] for row in m}
    assert {tuple(row.tolist()) for m in all_masks[1] for row in m} <= together
    again = [ThinnedCallback(key=3, samples="sample", check=True), WatchCallback(every=1)]
    plain = keyed_bert()
    with pytest.raises(thinned.InputError, match="samples='sample' has to be among the inputs"):
        train(plain, tmp_path, again)
    options = {"per_device_train_batch_size": 8, "max_steps": 4, "remove_unused_columns": False}
    train(
        plain, tmp_path, again, rows=Indexed(data(), name="sample"), **options
    )  # an error before leaves nothing behind
    assert torch.equal(plain.classifier.weight, ends[0])
    assert not plain._forward_pre_hooks
    with pytest.raises(thinned.InputError, match="samples needs a key"):
        ThinnedCallback(samples="sample")


def test_sampling_in_prediction(tmp_path):
    model = bert()
    trainer = train(model, tmp_path, max_steps=1)
    with pytest.raises(thinned.InputError, match="samples"):
        mc_predict(trainer, data(), 0)
    passes = np.stack([p.predictions for p in mc_predict(trainer, data(), 16)])
    assert passes.shape == (16, 32, 2)
    assert passes.std(0).min() > 0
    quiet = [trainer.predict(data()).predictions for _ in range(2)]
    assert np.array_equal(*quiet)  # and as it was
    assert (
        np.abs(passes.mean(0) - quiet[0]).max() < 6 * passes.std(0).max() / 4
    )  # 64 means, each of 16
    with thinned.sampling(model):
        losses = {trainer.evaluate()["eval_loss"] for _ in range(2)}
    assert len(losses) == 2


@pytest.mark.parametrize("make", [bert, gpt])
def test_recipes(tmp_path, make):
    """find, expose, the policies "paper" and "depth", rates, and training, with random weights."""
    model = make()
    ids = torch.stack([row["input_ids"] for row in data()[:4]])
    batch = {"input_ids": ids, "labels": ids if make is gpt else torch.tensor([0, 1, 0, 1])}
    attention = [site for site in thinned.find(model, **batch) if site.kind == "attention"]
    assert len(attention) == 2  # inside a fused function, without a layer
    assert len(thinned.expose(model, **batch)) == 2
    thinned.replace(model)
    sites = thinned.find(model, **batch)
    assert all(
        type(model.get_submodule(site.name)).__module__.startswith("thinned") for site in sites
    )
    assert len(sites) == (8 if make is bert else 7)
    thinned.apply(model, "paper", **batch)
    after = thinned.find(model, **batch)
    assert [site.name for site in after] == [
        site.name for site in sites
    ]  # no second dropout at an end
    assert {site.rate for site in after if site.name != "dropout"} == {
        0.1
    }  # that of the classifier is not in that paper
    rates = "attention.output.dropout" if make is bert else "resid_dropout"
    thinned.set_rate(model, 0.3, where=rates)
    assert sum(site.rate == 0.3 for site in thinned.find(model, **batch)) == 2
    assert len(thinned.apply(model, "depth", rate=0.2, **batch)) == 4
    before = {name: p.clone() for name, p in model.named_parameters()}
    watching = WatchCallback(every=4)
    rows = [row | {"labels": row["input_ids"]} for row in data()] if make is gpt else data()
    evals = {"eval_strategy": "no"} if make is gpt else {}
    train(model, tmp_path, [ThinnedCallback(key=0), watching], rows=rows, **evals)
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert {r["nominal"] for r in watching.watch.history[0]["rates"].values()} >= {0.1, 0.3}


def test_no_callback_ends_a_training(tmp_path):
    def broken(values):
        raise ValueError("the user's own")

    for callback, text in (
        (WatchCallback(log=broken), "watching ends here"),
        (WatchCallback(forward=lambda model, **batch: broken(batch)), "watching ends here"),
    ):
        with pytest.warns(UserWarning, match=text):
            assert train(bert(), tmp_path, [callback]).state.global_step == 8

    class Late(Indexed):
        """Without ids after the first batches."""

        def __getitems__(self, indices):
            Late.batches += 1
            items = super().__getitems__(indices)
            if Late.batches > 3:
                items = [{k: v for k, v in item.items() if k != "sample"} for item in items]
            return items

    Late.batches = 0
    with pytest.warns(UserWarning, match="keying by samples ends here, and the training goes on"):
        trainer = train(
            keyed_bert(),
            tmp_path,
            [ThinnedCallback(key=3, samples="sample")],
            rows=Late(data(), name="sample"),
            remove_unused_columns=False,
            eval_strategy="no",
        )
    assert trainer.state.global_step == 8
