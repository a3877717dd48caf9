"""The hosts on words: embeddings whose words fall, and ids that become unknown."""

from __future__ import annotations

from torch import Tensor, nn

from .. import functional
from .._errors import InputError, whole
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .module import RatedModule


class EmbeddingDropout(RatedModule, nn.Module):
    """An embedding whose words fall: one coin a call for each word of the table, wherever the word
    stands in the batch.

    ``embedding``: a ``torch.nn.Embedding``; its ``weight`` is taken over under the same name, so
    checkpoints load both ways, and its ``padding_idx``, ``max_norm``, ``scale_grad_by_freq`` and
    ``sparse`` hold on: the padding row never falls. Input: ids of any shape; output [*ids.shape,
    d]. ``p`` in [0, 1], 0.1 in AWD-LSTM, or a schedule; survivors are divided by 1 - p and
    evaluation is the plain embedding. See :func:`thinned.functional.embedding_dropout`.

    Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
    networks", section 4.2. Raises :class:`thinned.InputError` for other modules.
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
        self.start(p)

    def forward(self, ids: Tensor) -> Tensor:
        rate = self.now()
        if self.mode() != "sample" or (not isinstance(rate, Tensor) and rate == 0):
            return functional.embedding_dropout(ids, self.weight, 0.0, **self.settings)
        return functional.embedding_dropout(
            ids, self.weight, rate, key=self.call_key(), **self.settings
        )

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, p={self.p}"


class WordDropout(FunctionLayer):
    """Word dropout: each id becomes ``unknown_id``: :func:`thinned.functional.word_dropout` on ids
    [b, ...].

    Iyyer, Manjunatha, Boyd-Graber, Daume 2015, "Deep unordered composition rivals syntactic
    methods".
    """

    def __init__(self, p: float | Schedule = 0.1, unknown_id: int = 0) -> None:
        unknown = whole(unknown_id, "unknown_id", 0)
        super().__init__(functional.word_dropout, p=p, unknown_id=unknown)
