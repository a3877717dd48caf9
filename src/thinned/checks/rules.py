"""The known mistakes with dropout: what each is, why it matters, what to do, and where it was met.
One table, no code.
"""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class CheckRule:
    """A known mistake. ``how``: "static" (read in source), "live" (seen in a running model),
    "both", or "watch".
    """

    code: str
    name: str
    severity: str
    how: str
    title: str
    why: str
    remedy: str
    url: str


_GITHUB = "https://github.com/"


def _rule(
    code: str, name: str, severity: str, how: str, title: str, why: str, remedy: str, url: str
) -> CheckRule:
    return CheckRule(
        code,
        name,
        severity,
        how,
        title,
        why,
        remedy,
        url if url.startswith("http") else _GITHUB + url,
    )


RULES = {rule.code: rule for rule in (
    _rule("L1", "dropout-without-training", "error", "both",
        "functional dropout that evaluation does not switch off",
        "F.dropout has training=True by default, and model.eval() does not reach it: evaluation draws, and results vary.",
        "pass training=self.training, or use nn.Dropout", "pytorch/pytorch/issues/26338"),
    _rule("L2", "attention-without-training", "error", "both",
        "attention dropout that evaluation does not switch off",
        "scaled_dot_product_attention has no training flag and drops whenever dropout_p is above 0.",
        "pass dropout_p=self.p if self.training else 0.0", "pytorch/pytorch/issues/124464"),
    _rule("L3", "rate-lost-in-eval", "error", "both",
        "evaluation changes the rate for good",
        "A forward pass in evaluation overwrote the rate, so that training after it no longer drops.",
        "leave the rate alone and choose by self.training in the call", "NVIDIA/Megatron-LM/pull/411"),
    _rule("L4", "keep-probability-as-rate", "error", "both",
        "a keep-probability where the probability of dropping belongs",
        "p is the probability of dropping in PyTorch, Keras and JAX; TensorFlow 1 and some papers give the opposite, so that a "
        "network meant to keep 80 % keeps 20 %.",
        "pass 1 - keep_prob", "https://www.tensorflow.org/api_docs/python/tf/compat/v1/nn/dropout"),
    _rule("L5", "dropout-before-batchnorm", "note", "both",
        "dropout before batch normalisation shifts its variance",
        "Dropout raises the variance that batch normalisation averages in training; in evaluation the input varies less than "
        "its running variance says (Li et al. 2019).",
        "put dropout after the last normalisation, or use uniform noise (thinned.nn.UniformDropout)",
        "https://arxiv.org/abs/1801.05134"),
    _rule("L6", "batchnorm-moves-at-inference", "error", "both",
        "batch normalisation moves while predicting",
        "model.train() for Monte Carlo dropout also puts batch normalisation in training: it normalises by the batch and its "
        "running statistics drift with every prediction.",
        "switch on dropout alone: with thinned.sampling(model)", "lightning-uq-box/lightning-uq-box/pull/173"),
    _rule("L7", "training-literal", "error", "static",
        "training=True (or deterministic=False) written into the model",
        "A literal overrides the mode: predict() and evaluate() draw too.",
        "leave the argument out, or pass the training argument of call()", "keras-team/keras/issues/9412"),
    _rule("L8", "recomputed-with-other-masks", "error", "both",
        "activation checkpointing without the generator's state",
        "The recomputed forward pass draws other masks than the loss was made from: gradients are wrong, silently.",
        "leave preserve_rng_state at True, or key the masks (thinned.key)", "allenai/OLMo-core/pull/828"),
    _rule("L9", "same-seed-on-all-ranks", "warning", "both",
        "every rank draws the same masks",
        "With one seed on all ranks every process drops the same units, and the effective noise is that of one.",
        "add the rank to the seed after the parameters are made, or key masks by example (thinned.key)",
        "huggingface/transformers/issues/31412"),
    _rule("L10", "channel-dropout-on-sequences", "error", "both",
        "channel dropout on three dimensions drops the wrong axis",
        "Dropout2d reads [N, C, L] in three dimensions, and Dropout1d too: in a sequence [batch, time, features] it "
        "drops whole "
        "steps, not features.",
        "use thinned.nn.LockedDropout or SpatialDropout1D's layout, or transpose", "pytorch/pytorch/issues/69801"),
    _rule("L11", "recurrent-dropout-of-one-layer", "warning", "both",
        "the dropout of a recurrent network with one layer does nothing",
        "The argument drops between layers; with one layer there is no between.",
        "put dropout after it, or lock it in time (thinned.nn.LockedDropout, thinned.nn.DropState)",
        "pytorch/pytorch/issues/5985"),
    _rule("L12", "weights-lost", "error", "live",
        "a forward pass changes parameters",
        "Dropped weights are written over the parameters, so they are lost for good and more go at every step.",
        "mask a copy: thinned.nn.DropWeight", "pytorch/pytorch/issues/32346"),
    _rule("L13", "policy-ratio-with-dropout", "error", "both",
        "a policy's likelihood ratio with dropout on",
        "Log-probabilities of two passes differ by their masks, so the ratio of PPO, GRPO or DPO is not 1 before the first "
        "step and the clip acts on noise.",
        "switch dropout off there (thinned.off), or use the same masks (thinned.recording, thinned.replaying)",
        "huggingface/trl/issues/3500"),
    _rule("L14", "dropout-on-outputs", "error", "both",
        "dropout on the model's output",
        "Dropped logits are zeros that the loss reads as predictions.",
        "put dropout before the last linear layer", "https://arxiv.org/abs/1207.0580"),
    _rule("L15", "mean-shift", "note", "live",
        "evaluation's output is not the mean of training's",
        "What follows dropout is not linear, so that the mean over masks differs from the pass without: a regression is biased "
        "by as much.",
        "average over masks (thinned.sampling), or drop nothing just before a regression's head",
        "https://arxiv.org/abs/1506.02142"),
    _rule("L16", "loss-gap-is-dropout", "note", "watch",
        "training loss above validation loss is dropout's own doing",
        "The training loss is measured with units missing, the other without; measured alike, the gap closes.",
        "compare both in evaluation mode", "https://keras.io/getting_started/faq/"),
    _rule("L17", "scaled-twice", "error", "both",
        "scaled while training and again in evaluation",
        "PyTorch, Keras and JAX already divide by 1 - p while training; multiplying by 1 - p in evaluation makes it too small.",
        "delete the factor", "https://jmlr.org/papers/v15/srivastava14a.html"),
    _rule("L18", "mask-reused", "error", "both",
        "the same mask at every step",
        "Seeding in the forward pass, or a mask drawn once, drops the same units for ever: they never train, and nothing is "
        "averaged.",
        "draw at each pass; for masks that can be had again use keys (thinned.key)", "pytorch/pytorch/issues/2649"),
    _rule("L19", "nothing-left", "error", "both",
        "everything dropped, or NaN",
        "At rate 1, or where all heads or keys of a row fall, there is nothing to scale and the result is 0 or NaN.",
        "lower the rate, or use a layer that keeps one", "pytorch/pytorch/issues/152028"),
    _rule("L20", "rate-not-met", "warning", "live",
        "the measured rate is not the nominal one",
        "A layer that is told p drops another share, as some DropBlocks do near borders and on small maps.",
        "use a layer that states what it drops (thinned.nn.DropBlock2d), or set p to what you want measured",
        "huggingface/pytorch-image-models/issues/1046"),
    _rule("L21", "dead-dropout", "warning", "both",
        "dropout that never acts in training",
        "A part of the model is in evaluation, or its rate is lost: training runs without what was asked for.",
        "call model.train() after every evaluation, and after loading a pretrained part",
        "Lightning-AI/pytorch-lightning/issues/20105"),
    _rule("L22", "selu-with-plain-dropout", "warning", "both",
        "SELU with plain dropout, or alpha dropout without SELU",
        "Self-normalisation holds for AlphaDropout, whose dropped units go to SELU's negative limit; each without the "
        "other breaks it.",
        "use AlphaDropout with SELU, and plain dropout with other activations", "https://arxiv.org/abs/1706.02515"),
    _rule("L25", "validation-in-training-mode", "error", "static",
        "validation or inference without eval()",
        "The model is in training mode while it is measured: scores are noisy, and batch normalisation learns from "
        "the test set.",
        "call model.eval() before, and model.train() after", "mahmoodlab/CLAM/pull/314"),
    _rule("L27", "key-reused", "error", "static",
        "one random key for two dropouts",
        "In JAX the same key draws the same mask: two layers drop the same units.",
        "split the key: k1, k2 = jax.random.split(key)", "https://docs.jax.dev/en/latest/random-numbers.html"),
    _rule("L28", "layers-skipped-under-ddp", "error", "both",
        "dropping layers under DistributedDataParallel",
        "Parameters of a skipped layer get no gradient and the reduction waits for them: it hangs or raises.",
        "find_unused_parameters=True, or scale the branch by 0 (thinned.nn.DropPath)", "facebookresearch/fairseq/issues/2389"),
    _rule("L29", "nothing-to-sample", "warning", "live",
        "Monte Carlo prediction from a model that draws nothing",
        "Without an active dropout all samples are equal, and the uncertainty is 0 whatever the input.",
        "thinned.insert dropout and train with it", "https://arxiv.org/abs/1506.02142"),
    _rule("L30", "wrong-gradient", "error", "live",
        "a gradient that is not that of the masked function",
        "With the mask held fixed the gradient differs from finite differences: a backward pass was scaled wrongly or "
        "drew again.",
        "make the backward pass the same map with the same mask (thinned.functional)",
        "https://arxiv.org/abs/1909.11299"),
    _rule("L32", "dropout-made-in-forward", "error", "static",
        "a dropout layer made inside forward",
        "A new module is in training mode whatever the model's mode is: evaluation drops too.",
        "make it in __init__", "yangze0930/NTS-Net/issues/14"),
)}  # fmt: skip

LEFT_OUT = {
    "L23": "dropout on an embedding and again behind it, or on the padding row: both are also used on purpose",
    "L24": "dropout in target networks: DroQ wants it, others do not",
    "L26": "too few rows or one epoch: `thinned study` measures instead",
    "L31": "the wrong axis under logsumexp: which axis holds datapoints is not to be seen",
}


def named(text: str) -> str | None:
    """The code of a rule, by its code or its name, whatever the case; None where there is none."""
    wanted = text.strip().lower()
    return next((r.code for r in RULES.values() if wanted in (r.code.lower(), r.name)), None)
