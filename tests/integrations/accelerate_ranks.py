"""One rank of a training under accelerate: ``python accelerate_ranks.py RANK RANKS STORE OUT``."""

from __future__ import annotations

import importlib.util
import os
import sys

import torch
import torch.distributed as dist

import thinned
from thinned.integrations.data import Indexed

EXAMPLES, TOGETHER, EPOCHS, ACCUMULATED = 22, 8, 2, 2  # an epoch ends with an incomplete batch


def data() -> torch.utils.data.TensorDataset:
    made = torch.Generator().manual_seed(5)
    return torch.utils.data.TensorDataset(
        torch.randn(EXAMPLES, 12, generator=made) + 3
    )  # no input is 0


def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        thinned.nn.Dropout(0.5), torch.nn.Linear(12, 8), thinned.nn.Dropout(0.2)
    )


def train(
    ranks: int, drop_last: bool
) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(step, ids, masks of the input, gradient) of each micro-batch of one rank."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=ACCUMULATED,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=1),
    )
    model = net()
    key = thinned.key(model, seed=3)
    masks: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, args, result: masks.append(result.detach() == 0))
    loader = torch.utils.data.DataLoader(
        Indexed(data()), TOGETHER // ranks, shuffle=True, drop_last=drop_last
    )
    model, loader, opt = accelerator.prepare(
        model, loader, torch.optim.SGD(model.parameters(), 0.01)
    )
    step, records = 0, []
    for _ in range(EPOCHS):
        for ids, (x,) in loader:
            with accelerator.accumulate(model):
                key.at(step, samples=ids)
                accelerator.backward(model(x).square().mean())
                grad = accelerator.unwrap_model(model)[1].weight.grad
                records.append((step, ids.clone(), masks[-1], grad.clone()))
                opt.step()
                opt.zero_grad()
                step += accelerator.sync_gradients  # micro-batches of one optimizer step share it
    return records


def trained(ranks: int, folder: str) -> torch.Tensor:
    """The weights after a few steps of the Trainer of Hugging Face, from batches of 8 in all."""
    import transformers

    from thinned.integrations.huggingface import ThinnedCallback, WatchCallback

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
    }
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, hidden_dropout_prob=0.2)
    )
    made = torch.Generator().manual_seed(1)
    rows = [
        {"input_ids": row, "labels": int(row[0] > 25)}
        for row in torch.randint(0, 50, (32, 8), generator=made)
    ]
    thinned.expose(model, **transformers.default_data_collator(rows[:2]))
    thinned.replace(model)
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=4,
        per_device_train_batch_size=TOGETHER // ranks,
        report_to=[],
        save_strategy="no",
        seed=1,
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        learning_rate=0.1,
        optim="sgd",
        # True would multiply the gradient of a mean loss by the number of ranks
        average_tokens_across_devices=False,
    )
    callbacks = [ThinnedCallback(key=3, samples="sample"), WatchCallback(every=2)]
    transformers.Trainer(
        model, arguments, train_dataset=Indexed(rows, name="sample"), callbacks=callbacks
    ).train()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def main(rank: int, ranks: int, store: str, out: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    records = {"batches": [train(ranks, drop_last) for drop_last in (True, False)]}
    if importlib.util.find_spec("transformers"):
        records["weights"] = trained(ranks, out)
    torch.save(records, f"{out}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    os._exit(0)  # the threads of gloo do not always end with the interpreter
