"""The records of training: the plan that a population shares, the settings and rows of each
network, and its results.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.random import RandomState
from scipy.sparse import csr_matrix
from torch import Tensor

from .specs import Points


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """The settings that networks have to share to be trained in one pass."""

    units: tuple[int, ...]
    activation: str
    head: str
    solver: str
    batch_size: int
    epochs: int
    shuffle: bool
    early_stopping: bool
    tol: float
    patience: float
    momentum: float
    nesterov: bool
    beta_1: float
    beta_2: float
    epsilon: float
    rows: int  # to train on
    validation: int  # rows to validate on
    weighted: bool
    modules: bool = False  # trained as modules of thinned.nn, one at a time
    divergence: Any = 1.0  # the weight of what learned methods add to the loss, or its schedule


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings in which networks of one pass may differ."""

    specs: Points
    lr: float
    alpha: float
    l1: float
    max_norm: float | None
    seed: int  # of the masks


_FULL = 1 / 3  # of the numbers that are not 0: above, dense products are faster


class Entries(NamedTuple):
    """The nonzero values of rows: row i has the ``columns`` (int32) and ``values`` (float32) from
    ``starts[i]`` (int64) on.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor


class FeatureRows:
    """Examples, dense or sparse; a sparse batch becomes dense when it is taken."""

    def __init__(self, x: Any) -> None:
        self.sparse = not isinstance(x, np.ndarray)
        self.n = x.shape[0]
        with np.errstate(
            over="ignore"
        ):  # what float32 cannot hold shows as weights that are not finite
            self.x: Any = (
                x.tocsr().astype(np.float32) if self.sparse else torch.from_numpy(_float32(x))
            )

    def take(self, index: Tensor) -> Tensor:
        """Return the rows of ``index``: [b, features]."""
        if self.sparse:
            return torch.from_numpy(self.x[index.numpy()].toarray())
        return torch.index_select(self.x, 0, index)

    @cached_property
    def entries(self) -> Entries | None:
        """The nonzero values; None for dense examples that are mostly nonzero."""
        if not self.sparse:
            some = self.x[:: max(1, self.n // 1000)]
            if some.count_nonzero().item() > _FULL * some.numel():
                return None
        x = self.x if self.sparse else csr_matrix(self.x.numpy())
        return Entries(
            *(
                torch.from_numpy(part.astype(kind, copy=False))
                for part, kind in zip(
                    (x.indptr, x.indices, x.data), (np.int64, np.int32, np.float32), strict=True
                )
            )
        )


def _float32(x: Any) -> Any:
    x = np.ascontiguousarray(x, np.float32)
    return x if x.flags.writeable else x.copy()


@dataclass(kw_only=True)
class Track:
    """Rows, their targets, and their order.

    ``index`` are the rows to train on, ``held`` the rows to validate on.

    ``y``: float32 [all rows, outputs]. ``weight``: float32 [all rows]. ``scorer``: the score of
    outputs on ``held``.
    """

    rows: FeatureRows
    y: Tensor
    index: Tensor
    random: RandomState
    weight: Tensor | None = None
    held: Tensor | None = None
    scorer: Any = None
    name: object = None  # networks with tracks of one name share the first one's


Learned: TypeAlias = tuple[
    list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]
]  # coefs, intercepts, state


@dataclass
class Memory:
    """The state of an optimizer between calls: of weights and biases, and of the other parameters
    that methods learn.
    """

    moments: list[list[np.ndarray]]
    steps: int
    further: list[np.ndarray] = field(default_factory=list)


@dataclass
class FitJob:
    """One network: its training settings and its results."""

    plan: FitPlan
    setting: Setting
    track: Track
    coefs: list[np.ndarray]
    intercepts: list[np.ndarray]
    state: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # what methods hold besides these, by name
    anchored: bool = False  # whether the anchors of the weights in there hold for this fit too
    memory: Memory | None = None
    step: int = 0  # of the masks: how many batches it has ever seen
    loss_curve: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    validation_scores: list[float] = field(default_factory=list)
    best_score: float = -np.inf
    waited: int = 0  # epochs without progress
    epochs: int = 0
    stopped: bool = False
    best: Learned | None = None
    seconds: float = 0.0
