"""Dropout layers on words: embeddings with dropped rows, and ids that become unknown."""

from __future__ import annotations

from torch import Tensor, nn

from .. import functional
from .._errors import InputError, whole
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .module import RatedModule


class EmbeddingDropout(RatedModule, nn.Module):
    """Embedding dropout: drops whole words of the table, wherever they occur in the batch.

    Input: ids of any shape. Output: [*ids.shape, d]. Each row of the table has one Bernoulli draw a
    call; kept rows are divided by 1 - p, and evaluation is the embedding itself. The padding row is
    never dropped. ``weight`` keeps its name, so checkpoints load both ways, and ``padding_idx``,
    ``max_norm``, ``scale_grad_by_freq`` and ``sparse`` keep their effect.

    Args:
        embedding: A ``torch.nn.Embedding``; its weight is shared.
        p: The probability of dropping a word, in [0, 1], or a schedule of it; 0.1 in AWD-LSTM.

    Raises:
        InputError: Where ``embedding`` is another module, or ``p`` is out of range.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.EmbeddingDropout(nn.Embedding(1000, 64), 0.1)
        EmbeddingDropout(1000, 64, p=0.1)

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks", section 4.2; :func:`thinned.functional.embedding_dropout`.
    """

    def __init__(self, embedding: nn.Embedding, p: float | Schedule = 0.1) -> None:
        if type(embedding) is not nn.Embedding:
            raise InputError(
                f"EmbeddingDropout needs a torch.nn.Embedding, but got {type(embedding).__name__}"
            )
        super().__init__()
        self.settings = {
            name: getattr(embedding, name)
            for name in ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
        }
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx = embedding.padding_idx
        self.weight = embedding.weight
        self.set_initial_rate(p)

    def forward(self, ids: Tensor) -> Tensor:
        rate = self.current_rate()
        if self.mode() != "sample" or (not isinstance(rate, Tensor) and rate == 0):
            return functional.embedding_dropout(ids, self.weight, 0.0, **self.settings)
        return functional.embedding_dropout(
            ids, self.weight, rate, key=self.call_key(), **self.settings
        )

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, p={self.p}"


class WordDropout(FunctionLayer):
    """Word dropout: replaces each id by the id of the unknown word with probability ``p``.

    Input: integer ids [b, ...]. Output: ids of the same shape; the input itself in evaluation.

    Args:
        p: The probability of replacing an id, in [0, 1], or a schedule of it.
        unknown_id: The id of the unknown word, at least 0.

    Raises:
        InputError: Where ``p`` is out of range, or ``unknown_id`` is not a whole number of at least
            0; in the forward pass where the input does not hold integers.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.WordDropout(0.1, unknown_id=3)
        WordDropout(p=0.1, unknown_id=3)

    Reference:
        Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic
        methods"; :func:`thinned.functional.word_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.1, unknown_id: int = 0) -> None:
        unknown = whole(unknown_id, "unknown_id", 0)
        super().__init__(functional.word_dropout, p=p, unknown_id=unknown)
