"""Real small trainings under the Trainer of Hugging Face: a BERT of two narrow layers with random weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

import transformers

import thinned
from thinned.integrations.huggingface import ThinnedCallback, WatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(autouse=True)
def _nondeterministic():
    torch.use_deterministic_algorithms(False)


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, num_labels=2, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def data():
    made = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (32, 8), generator=made)
    return [{"input_ids": row, "labels": int(row[0] > 25)} for row in ids]


def train(model, folder, callbacks=(), attach=None, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=8, per_device_train_batch_size=4, report_to=[], save_strategy="no", seed=1,
        eval_strategy="steps", eval_steps=4, use_cpu=True, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=data(), eval_dataset=data(), callbacks=list(callbacks))
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
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True))
    samples = [r for r in callback.watch.history if r["what"] == "sample"]
    assert len(samples) == 4
    assert [r["step"] for r in callback.watch.history if r["what"] == "validation"] == [4, 8]
    assert {r["nominal"] for r in samples[0]["rates"].values()} >= {0.2}
    assert 0.3 < samples[0]["eval"] < 1.5
    assert samples[0]["gradients"]
    assert sum("watch/loss/eval_mode" in one for one in trainer.state.log_history) == 4
    assert not watched._forward_pre_hooks


def test_keys_and_schedules(tmp_path):
    def ours():
        model = bert()
        thinned.replace(model)
        return model

    ends = []
    for seed in (1, 2):
        model = ours()
        torch.manual_seed(seed)
        train(model, tmp_path, [ThinnedCallback(key=3)], data_seed=1)
        ends.append(model.classifier.weight.detach().clone())
    assert torch.equal(*ends)
    model = ours()
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
