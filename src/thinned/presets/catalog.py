"""``CATALOG``, the one table of methods: tests, documentation, command line and studies read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..algebra.drop import Drop
from .depth import drop_path, stochastic_depth
from .elementwise import alpha, dropout, gaussian, uout
from .graph import drop_message, drop_node
from .recurrent import locked
from .spatial import dropblock, feature_alpha, spatial
from .tokens import token
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
        "disout": Preset(
            "nn.Disout",
            "Disout (feature map distortion)",
            "Tang et al.",
            2020,
            "https://arxiv.org/abs/2002.11022",
            "activation",
            "nn.Disout(0.1, 6)",
        ),
        "cutout": Preset(
            "nn.Cutout",
            "Cutout",
            "DeVries and Taylor",
            2017,
            "https://arxiv.org/abs/1708.04552",
            "input image",
            "nn.Cutout(16)",
            "size",
        ),
        "max-pool": Preset(
            "nn.MaxPoolDropout2d",
            "Max-pooling dropout",
            "Wu and Gu",
            2015,
            "https://arxiv.org/abs/1512.01400",
            "pooling",
            "nn.MaxPoolDropout2d(2, p=0.5)",
        ),
        "weighted-channel": Preset(
            "nn.WeightedChannelDropout",
            "Weighted channel dropout",
            "Hou and Wang",
            2019,
            "https://doi.org/10.1609/aaai.v33i01.33018425",
            "activation",
            "nn.WeightedChannelDropout(0.2)",
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
        # end of sequences
        # attention and tokens
        "token": Preset(
            token,
            "Token dropout",
            "Sennrich et al.",
            2016,
            "https://arxiv.org/abs/1606.02891",
            "tokens",
            'nn.Dropout("token", p=0.1)',
        ),
        "patch": Preset(
            "nn.PatchDropout",
            "PatchDropout",
            "Liu et al.",
            2023,
            "https://arxiv.org/abs/2208.07220",
            "tokens",
            "nn.PatchDropout(0.5)",
        ),
        "hidden-cut": Preset(
            "nn.HiddenCut",
            "HiddenCut",
            "Chen et al.",
            2021,
            "https://arxiv.org/abs/2106.00149",
            "tokens",
            "nn.HiddenCut(0.1)",
        ),
        "attention": Preset(
            "nn.DropAttention",
            "Attention dropout",
            "Vaswani et al.",
            2017,
            "https://arxiv.org/abs/1706.03762",
            "attention",
            "nn.DropAttention(0.1)",
        ),
        "drop-key": Preset(
            "nn.DropKey",
            "DropKey",
            "Li et al.",
            2023,
            "https://arxiv.org/abs/2208.02646",
            "attention",
            "nn.DropKey(0.1)",
        ),
        "drop-head": Preset(
            "nn.DropHead",
            "DropHead",
            "Zhou et al.",
            2020,
            "https://arxiv.org/abs/2004.13342",
            "attention",
            "nn.DropHead(0.2)",
        ),
        # end of attention and tokens
        # graphs and agents
        "drop-edge": Preset(
            "nn.DropEdge",
            "DropEdge",
            "Rong et al.",
            2020,
            "https://arxiv.org/abs/1907.10903",
            "graph edges",
            "nn.DropEdge(0.2)",
        ),
        "drop-node": Preset(
            drop_node,
            "DropNode",
            "Feng et al.",
            2020,
            "https://arxiv.org/abs/2005.11079",
            "graph nodes",
            "nn.DropNode(0.5)",
        ),
        "drop-message": Preset(
            drop_message,
            "DropMessage",
            "Fang et al.",
            2023,
            "https://arxiv.org/abs/2204.10037",
            "graph messages",
            "nn.DropMessage(0.3)",
        ),
        # end of graphs and agents
        # schedules
        # end of schedules
        # losses
        # end of losses
    }
)
