"""What happens to words and their embeddings."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .. import presets
from .._errors import InputError
from .core import Keyed, coins, drop, nothing


def embedding_dropout(ids: Tensor, weight: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """An embedding whose words fall: one coin for each row of the table, so a word falls wherever it stands in the batch.

    ``ids`` whole numbers in [0, n), any shape; ``weight`` [n, d]; the result [*ids.shape, d], survivors divided by 1 - p.
    The coins belong to the call, not to examples: a key's samples take no part.

    Gal and Ghahramani 2016, section 4.2. Raises :class:`thinned.InputError` for ids outside the table.
    """
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(weight)):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InputError(f"ids have to be at least 0 and below {len(weight)}, the rows of the table, but got {wrong}")
    coins = replace(presets.dropout(p), per="v", of="v d")
    return torch.nn.functional.embedding(ids, drop(weight, coins, key=key) if training else weight)


def word_dropout(ids: Tensor, unknown_id: int, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """Word dropout: each token becomes ``unknown_id`` with probability ``p``; nothing is scaled. ``ids`` [b, ...] of integers.

    Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic methods", section 2.3.
    """
    if nothing(ids, p, training):
        return ids
    return ids.masked_fill(~coins(tuple(ids.shape), p, key, ids), unknown_id)
