"""What happens to words and their embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._errors import InputError, whole
from .core import Keyed, Rate, bernoulli_mask, factor, is_noop


def embedding_dropout(
    ids: Tensor,
    weight: Tensor,
    p: Rate = 0.1,
    training: bool = True,
    *,
    key: Keyed = None,
    padding_idx: int | None = None,
    **settings: Any,
) -> Tensor:
    """An embedding whose words fall: one coin for each row of the table, so a word falls wherever
    it stands in the batch.

    ``ids`` whole numbers in [0, n), any shape; ``weight`` [n, d]; the result [*ids.shape, d],
    survivors divided by 1 - p; evaluation is the plain embedding. The row ``padding_idx`` never
    falls and is not scaled. ``settings``: the further arguments of
    ``torch.nn.functional.embedding``; with ``max_norm`` rows are first brought to that norm, then
    they fall. The coins belong to the call, not to examples: a key's samples take no part. The code
    of AWD-LSTM multiplies the whole table at every call; here only the rows that the batch holds
    are touched.

    Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
    networks", section 4.2. Raises :class:`thinned.InputError` for ids outside the table (not within
    a compiled graph, where torch's own check is).
    """
    if (
        not torch.compiler.is_compiling()
        and ids.numel()
        and (int(ids.min()) < 0 or int(ids.max()) >= len(weight))
    ):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InputError(
            f"ids have to be at least 0 and below {len(weight)}, the rows of the table, but got {wrong}"
        )
    y = torch.nn.functional.embedding(ids, weight, padding_idx, **settings)
    if is_noop(y, p, training):
        return y
    of_words = factor((len(weight),), p, key, weight, "v", "v")[ids]
    if padding_idx is not None:
        of_words = torch.where(ids == padding_idx % len(weight), 1.0, of_words)
    return (y * of_words.unsqueeze(-1)).to(y.dtype)


def word_dropout(
    ids: Tensor, unknown_id: int, p: Rate = 0.1, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Word dropout: each token becomes ``unknown_id`` with probability ``p``; nothing is scaled.
    ``ids`` [b, ...] of integers.

    Every id may fall, also one that pads or ends a sentence. Evaluation returns ``ids``.

    Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic
    methods", section 2.3; Bowman et al. 2016, "Generating sentences from a continuous space", do so
    in the input of a decoder.
    """
    whole(unknown_id, "unknown_id", 0)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(
            f"word_dropout needs ids of whole numbers, but got {ids.dtype}; for embeddings use embedding_dropout"
        )
    if is_noop(ids, p, training):
        return ids
    return ids.masked_fill(~bernoulli_mask(tuple(ids.shape), p, key, ids), unknown_id)
