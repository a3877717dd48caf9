"""Dropout of words and of their embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError, whole
from .core import KeyLike, Rate, bernoulli_mask, is_noop, keep_factor
from .inputs import dense_inputs


@dense_inputs
def embedding_dropout(
    ids: Tensor,
    weight: Tensor,
    p: Rate = 0.1,
    training: bool = True,
    *,
    key: KeyLike = None,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """An embedding that drops whole words: one Bernoulli draw for each row of the table.

    A dropped word is zero wherever it occurs in the batch; the others are divided by 1 - p.
    Evaluation is the ordinary embedding. The draws are keyed by the call, not by examples, so the
    sample ids of a key have no effect. The code of AWD-LSTM multiplies the whole table in every
    call; here only the rows that occur in the batch are computed.

    Args:
        ids: Integers in [0, n), any shape.
        weight: [n, d], the table.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.
        padding_idx: A row that is never dropped and never scaled, and that gets no gradient.
        max_norm: As in ``torch.nn.functional.embedding``: rows are first renormalized to this norm.
        norm_type: As in ``torch.nn.functional.embedding``.
        scale_grad_by_freq: As in ``torch.nn.functional.embedding``.
        sparse: As in ``torch.nn.functional.embedding``.

    Returns:
        [*ids.shape, d].

    Raises:
        InputError: Where an id is outside the table; within a compiled graph torch checks the ids.

    Example:
        >>> from thinned import Key
        >>> ids = torch.tensor([0, 1, 2, 3, 0])
        >>> embedding_dropout(ids, torch.ones(4, 2), 0.5, key=Key(seed=1))
        tensor([[0., 0.],
                [0., 0.],
                [2., 2.],
                [0., 0.],
                [0., 0.]])

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks", section 4.2.
    """
    if (
        not torch.compiler.is_compiling()
        and ids.numel()
        and not ids.is_meta
        and (int(ids.min()) < 0 or int(ids.max()) >= len(weight))
    ):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InputError(
            f"ids have to be at least 0 and below {len(weight)}, the number of rows of the table, "
            f"but got {wrong}"
        )
    y = torch.nn.functional.embedding(
        ids, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
    )
    if is_noop(y, p, training):
        return y
    word_factors = keep_factor((len(weight),), p, key, weight, "v", "v")[ids]
    if padding_idx is not None:
        word_factors = torch.where(ids == padding_idx % len(weight), 1.0, word_factors)
    return (y * word_factors.unsqueeze(-1)).to(y.dtype)


@dense_inputs
def word_dropout(
    ids: Tensor, unknown_id: int, p: Rate = 0.1, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Word dropout: replaces each token by ``unknown_id`` with probability ``p``, without scaling.

    Every id may be replaced, including ids of padding and of the end of a sentence. Evaluation
    returns ``ids``.

    Args:
        ids: Integers [b, ...]; each token has its own Bernoulli draw.
        unknown_id: The id of the unknown word, at least 0.
        p: The probability of replacing, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``ids``.

    Raises:
        InputError: Where ``ids`` are not integers, ``unknown_id`` is below 0, or ``p`` is not in
            [0, 1].

    Example:
        >>> from thinned import Key
        >>> word_dropout(torch.tensor([[5, 6, 7, 8, 9]]), unknown_id=0, p=0.5, key=Key(seed=1))
        tensor([[0, 0, 7, 0, 9]])

    Reference:
        Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic
        methods", section 2.3. Bowman et al. 2016, "Generating sentences from a continuous space",
        apply it to the input of a decoder.
    """
    whole(unknown_id, "unknown_id", 0)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(
            f"word_dropout needs ids that are whole numbers, but got {ids.dtype}; for embeddings "
            "use embedding_dropout"
        )
    if is_noop(ids, p, training):
        return ids
    return ids.masked_fill(~bernoulli_mask(tuple(ids.shape), p, key, ids), unknown_id)
