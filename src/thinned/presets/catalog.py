"""``CATALOG``, the one table of methods: tests, documentation, command line and studies read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..algebra.drop import Drop
from .depth import drop_path, stochastic_depth
from .elementwise import alpha, dropout, gaussian, uout
from .recurrent import locked
from .spatial import dropblock, feature_alpha, spatial
from .weight import dropconnect


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the catalogue.

    ``fn``: what makes the point; or, for a method that is no point of the algebra, the public name of the layer, function
    or schedule that it is, such as "nn.Cutout". ``host``: the place where it acts. ``example``: one line that builds it.
    ``strength``: the name of its rate. ``status``: "kernel" where the fused kernels run it, "torch" where torch's own
    operations do, on masks of the same contract.
    """

    fn: Callable[..., Drop] | str
    title: str
    paper: str
    year: int
    url: str
    host: str
    example: str
    strength: str = "p"

    @property
    def status(self) -> str:
        return "torch" if isinstance(self.fn, str) else "kernel"


_JMLR = "https://jmlr.org/papers/v15/srivastava14a.html"
_SELU = "https://arxiv.org/abs/1706.02515"

CATALOG: Mapping[str, Preset] = MappingProxyType(
    {
        # activations
        "dropout": Preset(dropout, "Dropout", "Srivastava et al.", 2014, _JMLR, "activation", "nn.Dropout(0.5)"),
        "gaussian": Preset(
            gaussian, "Gaussian dropout", "Srivastava et al.", 2014, _JMLR, "activation", "nn.GaussianDropout(0.5)"
        ),
        "uout": Preset(
            uout,
            "Uout",
            "Li et al.",
            2019,
            "https://arxiv.org/abs/1801.05134",
            "activation",
            'nn.Dropout("uout", beta=0.1)',
            "beta",
        ),
        "alpha": Preset(alpha, "Alpha dropout", "Klambauer et al.", 2017, _SELU, "activation", "nn.AlphaDropout(0.05)"),
        "feature-alpha": Preset(
            feature_alpha,
            "Feature alpha dropout",
            "Klambauer et al.",
            2017,
            _SELU,
            "activation",
            "nn.FeatureAlphaDropout(0.05)",
        ),
        # end of activations
        # maps
        "spatial": Preset(
            spatial,
            "SpatialDropout",
            "Tompson et al.",
            2015,
            "https://arxiv.org/abs/1411.4280",
            "activation",
            "nn.Dropout2d(0.2)",
        ),
        "dropblock": Preset(
            dropblock,
            "DropBlock",
            "Ghiasi et al.",
            2018,
            "https://arxiv.org/abs/1810.12890",
            "activation",
            "nn.DropBlock2d(0.1, 7)",
        ),
        # end of maps
        # weights
        "dropconnect": Preset(
            dropconnect,
            "DropConnect",
            "Wan et al.",
            2013,
            "https://proceedings.mlr.press/v28/wan13.html",
            "weight",
            "nn.DropWeight(Linear(784, 800), 0.5)",
        ),
        # end of weights
        # learned
        # end of learned
        # branches
        "drop-path": Preset(
            drop_path,
            "Drop path",
            "Larsson et al.",
            2017,
            "https://arxiv.org/abs/1605.07648",
            "activation",
            'nn.Dropout("drop-path", p=0.2)',
        ),
        "stochastic-depth": Preset(
            stochastic_depth,
            "Stochastic depth",
            "Huang et al.",
            2016,
            "https://arxiv.org/abs/1603.09382",
            "activation",
            'nn.Dropout("stochastic-depth", p=0.5, per="batch")',
        ),
        # end of branches
        # sequences
        "locked": Preset(
            locked,
            "Locked (variational) dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "activation",
            'nn.Dropout("locked", p=0.5)',
        ),
        "variational-rnn": Preset(
            "nn.DropState",
            "Variational recurrent dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "state",
            "nn.DropState(LSTM(400, 1150), inputs=0.3, states=0.3, outputs=0.5)",
            "states",
        ),
        "weight-drop": Preset(
            "nn.DropState",
            "Weight-drop (AWD-LSTM)",
            "Merity et al.",
            2018,
            "https://arxiv.org/abs/1708.02182",
            "weight",
            "nn.DropState(LSTM(400, 1150, 3), inputs=0.4, between=0.25, outputs=0.4, weights=0.5)",
            "weights",
        ),
        "recurrent": Preset(
            "nn.DropState",
            "Recurrent dropout without memory loss",
            "Semeniuta et al.",
            2016,
            "https://arxiv.org/abs/1603.05118",
            "state",
            'nn.DropState(LSTM(64, 128), states=0.25, method="recurrent")',
            "states",
        ),
        "rnndrop": Preset(
            "nn.DropState",
            "RNNDrop",
            "Moon et al.",
            2015,
            "https://www.stat.berkeley.edu/~tsmoon/files/Conference/asru2015.pdf",
            "state",
            'nn.DropState(LSTM(64, 128), states=0.2, method="rnndrop")',
            "states",
        ),
        "zoneout": Preset(
            "nn.DropState",
            "Zoneout",
            "Krueger et al.",
            2017,
            "https://arxiv.org/abs/1606.01305",
            "state",
            'nn.DropState(LSTM(64, 128), states=0.05, cells=0.5, method="zoneout")',
            "states",
        ),
        "embedding": Preset(
            "nn.EmbeddingDropout",
            "Embedding dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "weight",
            "nn.EmbeddingDropout(Embedding(10_000, 400), 0.1)",
        ),
        "word": Preset(
            "nn.WordDropout",
            "Word dropout",
            "Iyyer et al.",
            2015,
            "https://aclanthology.org/P15-1162/",
            "token",
            "nn.WordDropout(0.3, unknown_id=1)",
        ),
        # end of sequences
        # attention and tokens
        # end of attention and tokens
        # graphs and agents
        # end of graphs and agents
        # schedules
        # end of schedules
        # losses
        # end of losses
    }
)
