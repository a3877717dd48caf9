"""The known mistakes with dropout: what each is, why it matters, what to do, and where it was
reported.
"""

from __future__ import annotations

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class CheckRule:
    """A known mistake with dropout.

    Args:
        code: Its code, such as "L1".
        name: Its name, such as "dropout-without-training".
        severity: "error": results are wrong; "warning": most likely unintended; "note": worth
            knowing.
        how: Where it is found: "static" in source, "live" in a running model, "both", or "watch"
            while training.
        title: The mistake in a few words.
        why: Why it matters.
        remedy: What to do.
        url: The report or the paper that describes it.

    Example:
        >>> RULES["L1"].name, RULES["L1"].severity
        ('dropout-without-training', 'error')
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
_RULES = (
    CheckRule(
        code="L1",
        name="dropout-without-training",
        severity="error",
        how="both",
        title="functional dropout that evaluation does not switch off",
        why=(
            "F.dropout has training=True by default, and model.eval() does not reach it: "
            "evaluation draws masks, and results vary."
        ),
        remedy="pass training=self.training, or use nn.Dropout",
        url=_GITHUB + "pytorch/pytorch/issues/26338",
    ),
    CheckRule(
        code="L2",
        name="attention-without-training",
        severity="error",
        how="both",
        title="attention dropout that evaluation does not switch off",
        why=(
            "scaled_dot_product_attention has no training flag and drops whenever dropout_p is "
            "above 0."
        ),
        remedy="pass dropout_p=self.p if self.training else 0.0",
        url=_GITHUB + "pytorch/pytorch/issues/124464",
    ),
    CheckRule(
        code="L3",
        name="rate-lost-in-eval",
        severity="error",
        how="both",
        title="evaluation changes the rate permanently",
        why=(
            "A forward pass in evaluation overwrote the rate, so that later training no longer "
            "drops."
        ),
        remedy="keep the rate and choose by self.training in the call",
        url=_GITHUB + "NVIDIA/Megatron-LM/pull/411",
    ),
    CheckRule(
        code="L4",
        name="keep-probability-as-rate",
        severity="error",
        how="both",
        title="a keep probability passed as the probability of dropping",
        why=(
            "p is the probability of dropping in PyTorch, Keras and JAX; TensorFlow 1 and some "
            "papers use the opposite, so that a network meant to keep 80 % keeps 20 %."
        ),
        remedy="pass 1 - keep_prob",
        url="https://www.tensorflow.org/api_docs/python/tf/compat/v1/nn/dropout",
    ),
    CheckRule(
        code="L5",
        name="dropout-before-batchnorm",
        severity="note",
        how="both",
        title="dropout before batch normalization shifts its variance",
        why=(
            "Dropout raises the variance that batch normalization averages in training; in "
            "evaluation the input varies less than the running variance says (Li et al. 2019)."
        ),
        remedy=(
            "put dropout after the last normalization, or use uniform noise "
            "(thinned.nn.UniformDropout)"
        ),
        url="https://arxiv.org/abs/1801.05134",
    ),
    CheckRule(
        code="L6",
        name="batchnorm-moves-at-inference",
        severity="error",
        how="both",
        title="batch normalization changes during prediction",
        why=(
            "model.train() for Monte Carlo dropout also puts batch normalization in training "
            "mode: it normalizes by the batch, and its running statistics drift with every "
            "prediction."
        ),
        remedy="switch on dropout only: with thinned.sampling(model)",
        url=_GITHUB + "lightning-uq-box/lightning-uq-box/pull/173",
    ),
    CheckRule(
        code="L7",
        name="training-literal",
        severity="warning",
        how="static",
        title="training=True (or deterministic=False) written into the model",
        why=(
            "A literal overrides the mode: eval(), predict() and evaluate() draw masks too. That "
            "is right for Monte Carlo dropout alone."
        ),
        remedy=(
            "pass self.training, or the training argument of call(); where it is meant, add "
            "# thinned: ignore[L7]"
        ),
        url=_GITHUB + "keras-team/keras/issues/9412",
    ),
    CheckRule(
        code="L8",
        name="recomputed-with-other-masks",
        severity="error",
        how="both",
        title="activation checkpointing without the state of the random generator",
        why=(
            "The recomputed forward pass draws other masks than the pass that gave the loss: "
            "gradients are wrong, without any error."
        ),
        remedy="leave preserve_rng_state at True, or key the masks (thinned.key)",
        url=_GITHUB + "allenai/OLMo-core/pull/828",
    ),
    CheckRule(
        code="L9",
        name="same-seed-on-all-ranks",
        severity="warning",
        how="both",
        title="all ranks draw the same masks",
        why=(
            "With one seed on all ranks, every process drops the same units, and the noise of the "
            "averaged gradient is that of a single process."
        ),
        remedy=(
            "add the rank to the seed after the parameters are created, or key masks by example "
            "(thinned.key)"
        ),
        url=_GITHUB + "huggingface/transformers/issues/31412",
    ),
    CheckRule(
        code="L10",
        name="channel-dropout-on-sequences",
        severity="error",
        how="both",
        title="channel dropout on three dimensions drops the wrong axis",
        why=(
            "Dropout1d and Dropout2d read three dimensions as [N, C, L]: in a sequence [batch, "
            "time, features] they drop whole steps, not features."
        ),
        remedy=(
            "use thinned.nn.LockedDropout or Keras's SpatialDropout1D, or transpose before and "
            "after"
        ),
        url=_GITHUB + "pytorch/pytorch/issues/69801",
    ),
    CheckRule(
        code="L11",
        name="recurrent-dropout-of-one-layer",
        severity="warning",
        how="both",
        title="the dropout argument of a recurrent network with one layer has no effect",
        why="The argument drops between layers; a network with one layer has no such connection.",
        remedy=(
            "put dropout after the network, or use one mask for all time steps "
            "(thinned.nn.LockedDropout, thinned.nn.DropState)"
        ),
        url=_GITHUB + "pytorch/pytorch/issues/5985",
    ),
    CheckRule(
        code="L12",
        name="weights-lost",
        severity="error",
        how="live",
        title="a forward pass changes parameters",
        why=(
            "Masked weights are written over the parameters, so that dropped weights are lost "
            "permanently, and every step drops more."
        ),
        remedy="mask a copy: thinned.nn.DropConnect",
        url=_GITHUB + "pytorch/pytorch/issues/32346",
    ),
    CheckRule(
        code="L13",
        name="policy-ratio-with-dropout",
        severity="error",
        how="both",
        title="a likelihood ratio of a policy with dropout on",
        why=(
            "Log-probabilities of two passes differ by their masks, so that the ratio of PPO, "
            "GRPO or DPO is not 1 before the first step, and the clipping acts on noise."
        ),
        remedy=(
            "switch dropout off there (thinned.off), or use the same masks (thinned.recording, "
            "thinned.replaying)"
        ),
        url=_GITHUB + "huggingface/trl/issues/3500",
    ),
    CheckRule(
        code="L14",
        name="dropout-on-outputs",
        severity="error",
        how="both",
        title="dropout on the output of the model",
        why="Dropped logits are zeros, which the loss reads as predictions.",
        remedy="put dropout before the last linear layer",
        url="https://arxiv.org/abs/1207.0580",
    ),
    CheckRule(
        code="L15",
        name="mean-shift",
        severity="note",
        how="live",
        title="the output in evaluation is not the mean of the outputs in training",
        why=(
            "The layers after dropout are not linear, so that the mean over masks differs from "
            "the pass without dropout: a regression is biased by this difference."
        ),
        remedy=(
            "average over masks (thinned.sampling), or use no dropout directly before the head of "
            "a regression"
        ),
        url="https://arxiv.org/abs/1506.02142",
    ),
    CheckRule(
        code="L16",
        name="loss-gap-is-dropout",
        severity="note",
        how="watch",
        title="dropout itself raises the training loss above the validation loss",
        why=(
            "The training loss is measured with dropped units, the validation loss without; "
            "measured alike, the gap closes."
        ),
        remedy="compare both in evaluation mode",
        url="https://keras.io/getting_started/faq/",
    ),
    CheckRule(
        code="L17",
        name="scaled-twice",
        severity="error",
        how="both",
        title="scaled in training and again in evaluation",
        why=(
            "PyTorch, Keras and JAX already divide by 1 - p in training; multiplying by 1 - p in "
            "evaluation makes the output too small."
        ),
        remedy="delete the factor",
        url="https://jmlr.org/papers/v15/srivastava14a.html",
    ),
    CheckRule(
        code="L18",
        name="mask-reused",
        severity="error",
        how="both",
        title="the same mask at every step",
        why=(
            "Seeding in the forward pass, or a mask drawn once, drops the same units at every "
            "step: they never train, and no averaging over masks takes place."
        ),
        remedy=(
            "draw a new mask in each pass; for masks that can be reproduced, use keys (thinned.key)"
        ),
        url=_GITHUB + "pytorch/pytorch/issues/2649",
    ),
    CheckRule(
        code="L19",
        name="nothing-left",
        severity="error",
        how="both",
        title="everything is dropped, or the result is NaN",
        why=(
            "At rate 1, or where all heads or keys of a row are dropped, no value is left to "
            "scale, and the result is 0 or NaN."
        ),
        remedy="lower the rate, or use a layer that always keeps one",
        url=_GITHUB + "pytorch/pytorch/issues/152028",
    ),
    CheckRule(
        code="L20",
        name="rate-not-met",
        severity="warning",
        how="live",
        title="the measured rate is not the nominal rate",
        why=(
            "The layer drops another share than its p, as some versions of DropBlock do near "
            "borders and on small maps."
        ),
        remedy=(
            "use a layer with an exact rate (thinned.nn.DropBlock2d), or set p so that the "
            "measured rate is right"
        ),
        url=_GITHUB + "huggingface/pytorch-image-models/issues/1046",
    ),
    CheckRule(
        code="L21",
        name="dead-dropout",
        severity="warning",
        how="both",
        title="dropout that never acts in training",
        why=(
            "A part of the model is in evaluation mode, or its rate is lost: training runs "
            "without the requested dropout."
        ),
        remedy="call model.train() after every evaluation, and after loading a pretrained part",
        url=_GITHUB + "Lightning-AI/pytorch-lightning/issues/20105",
    ),
    CheckRule(
        code="L22",
        name="selu-without-alpha-dropout",
        severity="warning",
        how="both",
        title="SELU with ordinary dropout, or alpha dropout without SELU",
        why=(
            "SELU networks remain self-normalizing with AlphaDropout, which sets dropped units to "
            "the negative limit of SELU; either of the two without the other breaks this "
            "property."
        ),
        remedy="use AlphaDropout with SELU, and ordinary dropout with other activations",
        url="https://arxiv.org/abs/1706.02515",
    ),
    CheckRule(
        code="L25",
        name="validation-in-training-mode",
        severity="error",
        how="static",
        title="validation or inference without eval()",
        why=(
            "The model is measured in training mode: scores are noisy, and batch normalization "
            "learns from the test set."
        ),
        remedy="call model.eval() before, and model.train() after",
        url=_GITHUB + "mahmoodlab/CLAM/pull/314",
    ),
    CheckRule(
        code="L27",
        name="key-reused",
        severity="error",
        how="static",
        title="one random key for two dropouts",
        why="In JAX the same key draws the same mask: two layers drop the same units.",
        remedy="split the key: k1, k2 = jax.random.split(key)",
        url="https://docs.jax.dev/en/latest/random-numbers.html",
    ),
    CheckRule(
        code="L28",
        name="layers-skipped-under-ddp",
        severity="error",
        how="both",
        title="dropping layers under DistributedDataParallel",
        why=(
            "The parameters of a skipped layer have no gradient, and the reduction waits for "
            "them: it hangs or raises an error."
        ),
        remedy="set find_unused_parameters=True, or scale the branch by 0 (thinned.nn.DropPath)",
        url=_GITHUB + "facebookresearch/fairseq/issues/2389",
    ),
    CheckRule(
        code="L29",
        name="nothing-to-sample",
        severity="warning",
        how="live",
        title="Monte Carlo prediction from a model that draws no masks",
        why=(
            "Without active dropout all samples are equal, and the uncertainty is 0 for every "
            "input."
        ),
        remedy="insert dropout with thinned.insert, and train with it",
        url="https://arxiv.org/abs/1506.02142",
    ),
    CheckRule(
        code="L30",
        name="wrong-gradient",
        severity="error",
        how="live",
        title="a gradient that is not that of the masked function",
        why=(
            "With a fixed mask the gradient differs from finite differences: the backward pass "
            "was scaled wrongly or drew another mask."
        ),
        remedy="use the same map and the same mask in the backward pass (thinned.functional)",
        url="https://arxiv.org/abs/1909.11299",
    ),
    CheckRule(
        code="L32",
        name="dropout-made-in-forward",
        severity="error",
        how="static",
        title="a dropout layer created inside forward",
        why=(
            "A new module is in training mode whatever the mode of the model is: evaluation drops "
            "too."
        ),
        remedy="create it in __init__",
        url=_GITHUB + "yangze0930/NTS-Net/issues/14",
    ),
    CheckRule(
        code="L33",
        name="dropout-result-unused",
        severity="error",
        how="static",
        title="the result of dropout is not used",
        why="Dropout returns a new tensor and leaves its input as it is: nothing is dropped.",
        remedy="assign the result: x = F.dropout(x, ...)",
        url=_GITHUB + "dmlc/dgl/blob/master/examples/pytorch/seal/model.py",
    ),
    CheckRule(
        code="L34",
        name="dropout-never-called",
        severity="warning",
        how="static",
        title="a dropout layer that no code calls",
        why="The rate is set, printed and tuned, and the network is trained without dropout.",
        remedy="call it in forward, or delete it",
        url=_GITHUB + "zhouhaoyi/Informer2020/blob/main/models/attn.py",
    ),
    CheckRule(
        code="L35",
        name="dropout-in-a-python-list",
        severity="error",
        how="static",
        title="dropout layers in a list that eval() does not reach",
        why=(
            "Modules in a list of Python are not registered: eval() leaves them in training mode, "
            "and evaluation drops too."
        ),
        remedy="use torch.nn.ModuleList or torch.nn.ModuleDict",
        url="https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html",
    ),
    CheckRule(
        code="L36",
        name="sites-not-reached",
        severity="warning",
        how="live",
        title="sites that the key of the model, or Monte Carlo sampling, does not reach",
        why=(
            "What is not reached draws from torch's generator under a key, so that runs are not "
            "reproduced, and draws nothing in thinned.sampling, so that samples vary too little."
        ),
        remedy=(
            "make layers of them: thinned.expose(model, *inputs) where functions are called, then "
            "thinned.replace(model)"
        ),
        url=_GITHUB + "pytorch/pytorch/issues/136994",
    ),
    CheckRule(
        code="L37",
        name="schedule-not-advanced",
        severity="warning",
        how="live",
        title="a schedule that nothing advances",
        why=(
            "A rate with a schedule remains that of step 0 until the loop moves it: a ramp from 0 "
            "never starts, and early dropout never ends."
        ),
        remedy="call thinned.step(model, step) in every step, or key.at(step) of a keyed model",
        url=_GITHUB + "miguelvr/dropblock/issues/32",
    ),
)
RULES = {rule.code: rule for rule in _RULES}

# known mistakes without a check, with the reason
LEFT_OUT = {
    "L23": (
        "dropout on an embedding and again after it, or on the padding row: both are also used "
        "on purpose"
    ),
    "L24": "dropout in target networks: DroQ needs it, other methods do not",
    "L26": "too few examples or a single epoch: `thinned study` measures this instead",
    "L31": "the wrong axis under logsumexp: source does not show which axis holds examples",
}


def named(text: str) -> str | None:
    """The code of a rule, from its code or its name in any case; None for an unknown rule."""
    wanted = text.strip().lower()
    return next((r.code for r in RULES.values() if wanted in (r.code.lower(), r.name)), None)
