"""Surgery on architectures that the rules were not written for.

Does ``find`` see every draw, is every edit undone, and are there false alarms?
``python benchmarks/models.py timm`` takes the smallest architecture of each family of timm,
``python benchmarks/models.py hf`` small random models of transformers by Hugging Face; no weights
are downloaded. For each:

* draws: the calls that ``find`` saw in training, compared with the operators that torch tags as
  random, as the dispatcher runs them; a recurrent network draws once between two layers, so its
  calls are counted by layers.
* eval: does ``find`` report draws in evaluation, and do two passes differ?
* strip: with ``thinned.strip(model, *inputs)``, do two training passes with different seeds agree
  to the bit?
* undo: are parameters, names and the output in both modes the same to the bit after
  ``apply(model, "hidden", ...)`` and ``undo()``? Where a model has no hidden activation, ``insert``
  after all layers with weights takes the place of ``apply``.
* cost: the time of ``find`` relative to one forward pass in training, the best of up to five
  timings of each, in turns.

Images are the smallest that a model accepts, to save time; ``--cost`` measures the cost alone, with
images of the intended size. A model that cannot be built, or takes longer than ``--limit`` seconds,
is listed with the reason and not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import random
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import thinned
from common import write_result

# parts of the names of small architectures, the smallest first
SMALL = (
    *("test_", "atto", "femto", "pico", "nano", "xxs", "xxtiny", "xt_", "tiny", "_t", "xs"),
    *("_s0", "050", "s_", "small", "18", "26", "_b0", "_a0"),
)


class Counter(TorchDispatchMode):
    """Operators that torch tags as seeded, as they reach the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            names = [a.name for a in func._schema.arguments]
            values = (
                {"dropout_p": 0.0 if "dropout_p" in names else 1.0}
                | dict(zip(names, args, strict=False))
                | (kwargs or {})
            )
            self.count += values["dropout_p"] != 0  # attention has the tag without dropout too
        return func(*args, **(kwargs or {}))


class TooLong(Exception):
    pass


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong(f"took longer than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def timm_models(
    small: bool = True,
) -> Iterator[tuple[str, Callable[[], tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]]]]:
    import timm

    def smallest(names: list[str]) -> str:
        return min(
            names, key=lambda n: next((i for i, s in enumerate(SMALL) if s in n), len(SMALL))
        )

    for family in timm.list_modules():
        names = timm.list_models(module=family)
        if not names:
            continue

        def make(name: str = smallest(names)) -> Any:
            rates = ({"drop_rate": 0.1, "drop_path_rate": 0.2}, {"drop_rate": 0.1}, {})
            for settings in (*({"img_size": s, **rates[0]} for s in (96, 128) if small), *rates):
                try:
                    model = timm.create_model(name, num_classes=10, **settings)
                    break
                except (TypeError, AssertionError, RuntimeError, ValueError):
                    continue
            channels, *size = model.pretrained_cfg.get("input_size", (3, 224, 224))
            for sides in (*(((96, 96), (128, 128)) if small else ()), size):
                x = torch.randn(2, channels, *sides)
                with (
                    torch.no_grad(),
                    contextlib.suppress(
                        AssertionError, RuntimeError, ValueError, IndexError, TypeError
                    ),
                ):
                    model.eval()(x)
                    return model.train(), (x,), {}
            raise RuntimeError(f"takes no images of {size}")

        yield family, make


def huggingface_models() -> Iterator[
    tuple[str, Callable[[], tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]]]
]:
    import transformers as tr

    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
    }
    seq2seq = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "encoder_layerdrop": 0.3,
        "decoder_layerdrop": 0.3,
    }
    ids = torch.randint(3, 100, (2, 16), generator=torch.Generator().manual_seed(0))
    text, both = {"input_ids": ids}, {"input_ids": ids, "decoder_input_ids": ids}
    pixels = {"pixel_values": torch.randn(2, 3, 32, 32)}
    image = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    speech = {
        "conv_dim": (32, 32),
        "conv_stride": (5, 2),
        "conv_kernel": (10, 3),
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "layerdrop": 0.3,
    }
    language = small | {"num_key_value_heads": 2, "attention_dropout": 0.1}
    embedded = small | {
        "embedding_size": 16,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    neo = {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 100,
        "attention_types": [[["global", "local"], 1]],
        "embed_dropout": 0.1,
        "attention_dropout": 0.1,
        "resid_dropout": 0.1,
    }
    swin = {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
        "drop_path_rate": 0.2,
        "hidden_dropout_prob": 0.1,
    }
    convnext = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "drop_path_rate": 0.2}
    table: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "bert": ("Bert", small, text),
        "roberta": ("Roberta", small | {"max_position_embeddings": 64}, text),
        "albert": ("Albert", embedded, text),
        "electra": ("Electra", embedded, text),
        "distilbert": (
            "DistilBert",
            {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 100},
            text,
        ),
        "deberta-v2": (
            "DebertaV2",
            small | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
            text,
        ),
        "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100}, text),
        "gpt-neo": ("GPTNeo", neo, text),
        "gpt-neox": ("GPTNeoX", small | {"attention_dropout": 0.1, "hidden_dropout": 0.1}, text),
        "opt": (
            "OPT",
            small
            | {
                "ffn_dim": 64,
                "word_embed_proj_dim": 32,
                "layerdrop": 0.3,
                "attention_dropout": 0.1,
            },
            text,
        ),
        "llama": ("Llama", small | {"attention_dropout": 0.1}, text),
        "mistral": ("Mistral", language, text),
        "qwen2": ("Qwen2", language, text),
        "t5": (
            "T5",
            {
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 64,
                "num_layers": 2,
                "num_heads": 2,
                "vocab_size": 100,
            },
            both,
        ),
        "bart": ("Bart", seq2seq, both),
        "mbart": ("MBart", seq2seq, both),
        "pegasus": ("Pegasus", seq2seq, both),
        "vit": ("ViT", small | image, pixels),
        "deit": ("DeiT", small | image, pixels),
        "beit": ("Beit", small | image | {"drop_path_rate": 0.2}, pixels),
        "swin": ("Swin", swin, pixels),
        "convnext": ("ConvNext", convnext, pixels),
        "wav2vec2": ("Wav2Vec2", small | speech, {"input_values": torch.randn(2, 2000)}),
        "hubert": ("Hubert", small | speech, {"input_values": torch.randn(2, 2000)}),
        "xlnet": (
            "XLNet",
            {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "vocab_size": 100},
            text,
        ),
        "mpnet": ("MPNet", small, text),
        "mamba": (
            "Mamba",
            {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100, "state_size": 4},
            text,
        ),
        "longformer": (
            "Longformer",
            small | {"attention_window": 8, "max_position_embeddings": 64},
            text,
        ),
    }
    for name, (prefix, config, inputs) in table.items():

        def make(
            prefix: str = prefix, config: dict[str, Any] = config, inputs: dict[str, Any] = inputs
        ) -> Any:
            settings = getattr(tr, f"{prefix}Config")(**config)
            return getattr(tr, f"{prefix}Model")(settings), (), inputs

        yield name, make


def leaves(result: Any) -> list[torch.Tensor]:
    found = torch.utils._pytree.tree_leaves(dict(result) if hasattr(result, "items") else result)
    return [t for t in found if isinstance(t, torch.Tensor)]


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def weighted(_: str, module: torch.nn.Module) -> bool:
    return (
        module is not None
        and not list(module.children())
        and any(p.dim() > 1 for p in module.parameters(recurse=False))
    )


def examine(make: Callable[[], Any], policy: str, cost_alone: bool = False) -> dict[str, Any]:
    """Answer all questions for one model, or measure its cost alone."""
    torch.manual_seed(0)
    model, inputs, named = make()

    @torch.no_grad()
    def run(seed: int, training: bool) -> Any:
        torch.manual_seed(seed)
        random.seed(seed)
        saved = {n: b.clone() for n, b in model.named_buffers()}
        out = model.train(training)(*inputs, **named)
        for n, b in model.named_buffers():
            b.copy_(saved[n])
        return out

    def find_sites(seed: int) -> Any:
        torch.manual_seed(seed)
        random.seed(seed)
        return thinned.find(model, *inputs, **named)

    run(1, True)  # warm
    forward, finding = [], []
    while not forward or (len(forward) < 5 and sum(forward) < 0.5):
        start = time.perf_counter()
        run(1, True)
        between = time.perf_counter()
        sites = find_sites(1)
        finding.append(time.perf_counter() - between)
        forward.append(between - start)
    cost = min(finding) / min(forward)
    if cost_alone:
        return {
            "forward, ms": round(1e3 * min(forward), 1),
            "modules": len(list(model.modules())),
            "find / forward": round(cost, 2),
        }
    with Counter() as counter:
        run(1, True)
    calls = sum(
        s.calls * layers_between(model, s) for s in sites if s.in_train and s.kind != "python"
    )
    before, trained = run(1, False), run(1, True)
    repeatable = equal(before, run(2, False))
    reported = any(s.in_eval for s in sites)

    state = {n: t.clone() for n, t in model.state_dict().items()}
    try:
        edits, by = thinned.apply(model, policy, *inputs, rate=0.1, **named), policy
    # the policy does not apply to this model, or it has a functional dropout already
    except thinned.InputError:
        edits, by = thinned.insert(model, 0.1, after=weighted), "insert"
    same_names = list(model.state_dict()) == list(state)
    drew = (
        not len(edits) or not equal(trained, run(1, True)) or len(find_sites(1)) > len(sites)
    )  # a head that is initialized with zeros hides the change of the output
    edits.undo()
    after = model.state_dict()
    undone = (
        same_names
        and list(after) == list(state)
        and all(torch.equal(after[n], state[n]) for n in state)
    )
    undone = undone and equal(before, run(1, False)) and equal(trained, run(1, True))

    stripped = thinned.strip(model, *inputs, **named)
    deterministic = equal(run(4, True), run(5, True))
    stripped.undo()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sites": len(sites),
        "calls": calls,
        "draws": counter.count,
        "agrees": calls == counter.count,
        "alarm in eval": reported,
        "eval draws": not repeatable,
        "edits": len(edits),
        "by": by,
        "edits drew": drew,
        "undone": undone,
        "stripped": deterministic,
        "find / forward": round(cost, 2),
    }


def layers_between(model: torch.nn.Module, site: thinned.surgery.Site) -> int:
    module = model.get_submodule(site.name)
    return (
        module.num_layers - 1
        if site.kind == "recurrent" and isinstance(module, torch.nn.RNNBase)
        else 1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=("timm", "hf"))
    parser.add_argument("--only", default="*", help="a pattern of names of families")
    parser.add_argument("--limit", type=int, default=90, help="seconds for one model")
    parser.add_argument(
        "--cost",
        action="store_true",
        help="measure the cost of find alone, with images of the intended size",
    )
    parser.add_argument(
        "--policy", default="hidden", help="the automatic policy that is applied and undone"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import torchvision_cpu  # noqa: F401
    rows, skipped = {}, {}
    for name, make in (
        timm_models(not options.cost) if options.library == "timm" else huggingface_models()
    ):
        if not fnmatch.fnmatch(name, options.only):
            continue
        try:
            with limit(options.limit):
                rows[name] = row = examine(make, options.policy, options.cost)
            print(f"{name:26s}", *(f"{k} {v}" for k, v in row.items()), sep="  ", flush=True)
        except Exception as error:  # noqa: BLE001
            skipped[name] = f"{type(error).__name__}: {error}"[:200]
            print(f"{name:26s}  not counted: {skipped[name]}", flush=True)
    if not rows:
        sys.exit("no model could be examined")
    costs = [r["find / forward"] for r in rows.values()]
    answers = (
        {}
        if options.cost
        else {
            "draws agree": sum(r["agrees"] for r in rows.values()),
            "false alarms in eval": sum(
                r["alarm in eval"] and not r["eval draws"] for r in rows.values()
            ),
            "missed in eval": sum(
                r["eval draws"] and not r["alarm in eval"] for r in rows.values()
            ),
            "stripped to the bit": sum(r["stripped"] for r in rows.values()),
            "applied and undone to the bit": sum(r["undone"] for r in rows.values()),
            "by insert instead of the policy": sum(
                r["by"] != options.policy for r in rows.values()
            ),
            "new sites drew, or none was needed": sum(r["edits drew"] for r in rows.values()),
        }
    )
    summary = (
        {"models": len(rows), "not counted": len(skipped)}
        | answers
        | {
            "find / forward, median": statistics.median(costs),
            "find / forward, largest": max(costs),
            "find at most 3 x": sum(c <= 3 for c in costs),
        }
    )
    print(summary)
    if options.only == "*":
        write_result(
            f"models-{options.library}" + "-cost" * options.cost,
            {"summary": summary, "models": rows, "not counted": skipped},
        )


if __name__ == "__main__":
    main()
