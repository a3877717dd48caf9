"""``STATIC``: the code of each static rule and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..finding import Finding
from . import evaluation, functional, keys, modes, order, randomness, rates, setups, unused
from .module import Module

StaticRule = Callable[[Module], Iterator[Finding]]

STATIC: dict[str, StaticRule] = {
    "L1": functional.dropout_without_training,
    "L2": functional.attention_without_training,
    "L3": functional.rate_lost_in_eval,
    "L4": rates.keep_probability_as_rate,
    "L5": order.dropout_before_batchnorm,
    "L6": modes.batchnorm_moves_at_inference,
    "L7": modes.training_literal,
    "L8": randomness.recomputed_with_other_masks,
    "L9": randomness.same_seed_on_all_ranks,
    "L10": order.channel_dropout_on_sequences,
    "L11": rates.recurrent_dropout_of_one_layer,
    "L13": setups.policy_ratio_with_dropout,
    "L14": order.dropout_on_outputs,
    "L17": rates.scaled_twice,
    "L18": randomness.mask_reused,
    "L19": rates.nothing_left,
    "L21": evaluation.dead_dropout,
    "L22": order.selu_without_alpha_dropout,
    "L25": evaluation.validation_in_training_mode,
    "L27": keys.key_reused,
    "L28": setups.layers_skipped_under_ddp,
    "L32": modes.dropout_made_in_forward,
    "L33": unused.dropout_result_unused,
    "L34": unused.dropout_never_called,
    "L35": unused.dropout_in_a_python_list,
}
