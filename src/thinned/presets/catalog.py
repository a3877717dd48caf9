"""``CATALOG``, the one table of methods: tests, documentation, command line and studies read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..algebra.drop import Drop
from .depth import drop_path, stochastic_depth
from .elementwise import (
    alpha_dropout,
    batchwise_dropout,
    dropout,
    gaussian_dropout,
    uniform_dropout,
)
from .graph import drop_message, drop_node
from .sequences import locked_dropout
from .spatial import drop_block, feature_alpha_dropout, spatial_dropout
from .tokens import token_dropout
from .weight import drop_connect


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the catalogue.

    ``fn``: what makes the point; or, for a method that is no point of the algebra, the public name
    of the layer, function or schedule that it is, such as "nn.Cutout". ``host``: the place where it
    acts, or what else it is. ``example``: one line that builds it. ``strength``: the name of its
    rate. ``status``: "kernel" where the fused kernels run it, "torch" where torch's own operations
    do, on masks of the same contract.
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
        "dropout": Preset(
            dropout, "Dropout", "Srivastava et al.", 2014, _JMLR, "activation", "nn.Dropout(0.5)"
        ),
        "gaussian_dropout": Preset(
            gaussian_dropout,
            "Gaussian dropout",
            "Srivastava et al.",
            2014,
            _JMLR,
            "activation",
            "nn.GaussianDropout(0.5)",
        ),
        "uniform_dropout": Preset(
            uniform_dropout,
            "Uout",
            "Li et al.",
            2019,
            "https://arxiv.org/abs/1801.05134",
            "activation",
            "nn.UniformDropout(beta=0.1)",
            "beta",
        ),
        "alpha_dropout": Preset(
            alpha_dropout,
            "Alpha dropout",
            "Klambauer et al.",
            2017,
            _SELU,
            "activation",
            "nn.AlphaDropout(0.05)",
        ),
        "feature_alpha_dropout": Preset(
            feature_alpha_dropout,
            "Feature alpha dropout",
            "Klambauer et al.",
            2017,
            _SELU,
            "activation",
            "nn.FeatureAlphaDropout(0.05)",
        ),
        "standout": Preset(
            "nn.StandoutDropout",
            "Standout (adaptive dropout)",
            "Ba and Frey",
            2013,
            "https://papers.nips.cc/paper/5032-adaptive-dropout-for-training-deep-neural-networks",
            "activation",
            "nn.StandoutDropout(Linear(64, 32))",
            "alpha",
        ),
        "jumpout": Preset(
            "nn.Jumpout",
            "Jumpout",
            "Wang et al.",
            2019,
            "https://proceedings.mlr.press/v97/wang19q.html",
            "activation",
            "nn.Jumpout(0.05)",
            "sigma",
        ),
        "fast_dropout": Preset(
            "nn.FastDropout",
            "Fast dropout",
            "Wang and Manning",
            2013,
            "https://proceedings.mlr.press/v28/wang13a.html",
            "activation",
            "nn.FastDropout(Linear(64, 32), 0.5)",
        ),
        "batchwise_dropout": Preset(
            batchwise_dropout,
            "Batchwise dropout",
            "Graham et al.",
            2015,
            "https://arxiv.org/abs/1502.02478",
            "activation",
            "nn.BatchwiseDropout(0.5)",
        ),
        "thinned": Preset(
            "nn.Thinned",
            "Thinning (batchwise dropout by smaller products)",
            "Graham et al.",
            2015,
            "https://arxiv.org/abs/1502.02478",
            "activation",
            "nn.Thinned(0.3)",
        ),
        # end of activations
        # maps
        "spatial_dropout": Preset(
            spatial_dropout,
            "SpatialDropout",
            "Tompson et al.",
            2015,
            "https://arxiv.org/abs/1411.4280",
            "map",
            "nn.Dropout2d(0.2)",
        ),
        "drop_block": Preset(
            drop_block,
            "DropBlock",
            "Ghiasi et al.",
            2018,
            "https://arxiv.org/abs/1810.12890",
            "map",
            "nn.DropBlock2d(0.1, 7)",
        ),
        "disout": Preset(
            "nn.Disout",
            "Disout (feature map distortion)",
            "Tang et al.",
            2020,
            "https://arxiv.org/abs/2002.11022",
            "map",
            "nn.Disout(0.1, 6)",
        ),
        "cutout": Preset(
            "nn.Cutout",
            "Cutout",
            "DeVries and Taylor",
            2017,
            "https://arxiv.org/abs/1708.04552",
            "map",
            "nn.Cutout(16)",
            "size",
        ),
        "max_pool_dropout": Preset(
            "nn.MaxPoolDropout2d",
            "Max-pooling dropout",
            "Wu and Gu",
            2015,
            "https://arxiv.org/abs/1512.01400",
            "map",
            "nn.MaxPoolDropout2d(2, p=0.5)",
        ),
        "weighted_channel_dropout": Preset(
            "nn.WeightedChannelDropout",
            "Weighted channel dropout",
            "Hou and Wang",
            2019,
            "https://doi.org/10.1609/aaai.v33i01.33018425",
            "map",
            "nn.WeightedChannelDropout(0.2)",
        ),
        # end of maps
        # weights
        "drop_connect": Preset(
            drop_connect,
            "DropConnect",
            "Wan et al.",
            2013,
            "https://proceedings.mlr.press/v28/wan13.html",
            "weight",
            "nn.DropWeight(Linear(784, 800), 0.5)",
        ),
        "mixout": Preset(
            "nn.Mixout",
            "Mixout",
            "Lee et al.",
            2020,
            "https://arxiv.org/abs/1909.11299",
            "weight",
            "nn.Mixout(Linear(768, 2), 0.9)",
        ),
        "shakeout": Preset(
            "nn.Shakeout",
            "Shakeout",
            "Kang et al.",
            2016,
            "https://arxiv.org/abs/1904.06593",
            "weight",
            "nn.Shakeout(Linear(784, 800), 0.5, 0.1)",
        ),
        "targeted_dropout": Preset(
            "nn.Targeted",
            "Targeted dropout",
            "Gomez et al.",
            2019,
            "https://arxiv.org/abs/1905.13678",
            "weight",
            "nn.Targeted(Linear(784, 800), 0.5, 0.5)",
        ),
        "targeted_unit_dropout": Preset(
            "nn.Targeted",
            "Targeted unit dropout",
            "Gomez et al.",
            2019,
            "https://arxiv.org/abs/1905.13678",
            "weight",
            'nn.Targeted(Conv2d(16, 32, 3), 0.5, 0.5, per="unit")',
        ),
        "lora_dropout": Preset(
            "nn.LoraDropout",
            "LoRA dropout",
            "Hu et al.",
            2022,
            "https://arxiv.org/abs/2106.09685",
            "weight",
            "nn.LoraDropout(Linear(768, 768), rank=8, alpha=16, p=0.05)",
        ),
        "dare": Preset(
            "functional.dare",
            "DARE",
            "Yu et al.",
            2024,
            "https://arxiv.org/abs/2311.03099",
            "weight",
            "functional.dare(Linear(4, 4).state_dict(), Linear(4, 4).state_dict(), 0.9)",
        ),
        # end of weights
        # learned
        "concrete_dropout": Preset(
            "nn.ConcreteDropout",
            "Concrete dropout",
            "Gal et al.",
            2017,
            "https://arxiv.org/abs/1705.07832",
            "activation",
            "nn.ConcreteDropout(512, 0.1)",
        ),
        "variational_dropout": Preset(
            "nn.VariationalDropout",
            "Variational dropout",
            "Kingma et al.",
            2015,
            "https://arxiv.org/abs/1506.02557",
            "activation",
            "nn.VariationalDropout(512)",
        ),
        "sparse_variational_dropout": Preset(
            "nn.SparseVariationalDropout",
            "Sparse variational dropout",
            "Molchanov et al.",
            2017,
            "https://arxiv.org/abs/1701.05369",
            "weight",
            "nn.SparseVariationalDropout(Linear(784, 300))",
        ),
        "information_dropout": Preset(
            "nn.InformationDropout",
            "Information dropout",
            "Achille and Soatto",
            2018,
            "https://arxiv.org/abs/1611.01353",
            "activation",
            "nn.InformationDropout(Conv2d(3, 8, 3), Conv2d(3, 8, 3))",
        ),
        # end of learned
        # branches
        "drop_path": Preset(
            drop_path,
            "Drop path",
            "Larsson et al.",
            2017,
            "https://arxiv.org/abs/1605.07648",
            "branch",
            "nn.DropPath(0.2)",
        ),
        "stochastic_depth": Preset(
            stochastic_depth,
            "Stochastic depth",
            "Huang et al.",
            2016,
            "https://arxiv.org/abs/1603.09382",
            "branch",
            'nn.StochasticDepth(0.5, per="batch")',
        ),
        "layer_drop": Preset(
            "nn.LayerDrop",
            "LayerDrop",
            "Fan et al.",
            2020,
            "https://arxiv.org/abs/1909.11556",
            "branch",
            "nn.LayerDrop([Linear(8, 8), Linear(8, 8)], 0.2)",
        ),
        "shake_drop": Preset(
            "nn.ShakeDrop",
            "ShakeDrop",
            "Yamada et al.",
            2019,
            "https://arxiv.org/abs/1802.02375",
            "branch",
            "nn.ShakeDrop(0.5)",
        ),
        "shake_shake": Preset(
            "nn.ShakeShake",
            "Shake-Shake",
            "Gastaldi",
            2017,
            "https://arxiv.org/abs/1705.07485",
            "branch",
            "nn.ShakeShake()",
            "",
        ),
        "swapout": Preset(
            "nn.Swapout",
            "Swapout",
            "Singh et al.",
            2016,
            "https://arxiv.org/abs/1605.06465",
            "branch",
            "nn.Swapout(0.5)",
        ),
        # end of branches
        # sequences
        "locked_dropout": Preset(
            locked_dropout,
            "Locked (variational) dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "sequence",
            "nn.LockedDropout(0.5)",
        ),
        "variational_rnn_dropout": Preset(
            "nn.DropState",
            "Variational recurrent dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "state",
            "nn.DropState(LSTM(400, 1150), inputs=0.3, states=0.3, outputs=0.5)",
            "states",
        ),
        "weight_drop": Preset(
            "nn.DropState",
            "Weight-drop (AWD-LSTM)",
            "Merity et al.",
            2018,
            "https://arxiv.org/abs/1708.02182",
            "weight",
            "nn.DropState(LSTM(400, 1150, 3), inputs=0.4, between=0.25, outputs=0.4, weights=0.5)",
            "weights",
        ),
        "recurrent_dropout": Preset(
            "nn.DropState",
            "Recurrent dropout without memory loss",
            "Semeniuta et al.",
            2016,
            "https://arxiv.org/abs/1603.05118",
            "state",
            'nn.DropState(LSTM(64, 128), states=0.25, method="recurrent")',
            "states",
        ),
        "rnn_drop": Preset(
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
        "embedding_dropout": Preset(
            "nn.EmbeddingDropout",
            "Embedding dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1512.05287",
            "weight",
            "nn.EmbeddingDropout(Embedding(10_000, 400), 0.1)",
        ),
        "word_dropout": Preset(
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
        "token_dropout": Preset(
            token_dropout,
            "Token dropout",
            "Sennrich et al.",
            2016,
            "https://arxiv.org/abs/1606.02891",
            "token",
            "nn.TokenDropout(0.1)",
        ),
        "patch_dropout": Preset(
            "nn.PatchDropout",
            "PatchDropout",
            "Liu et al.",
            2023,
            "https://arxiv.org/abs/2208.07220",
            "token",
            "nn.PatchDropout(0.5)",
        ),
        "hidden_cut": Preset(
            "nn.HiddenCut",
            "HiddenCut",
            "Chen et al.",
            2021,
            "https://arxiv.org/abs/2106.00149",
            "token",
            "nn.HiddenCut(0.1)",
        ),
        "attention_dropout": Preset(
            "nn.DropAttention",
            "Attention dropout",
            "Vaswani et al.",
            2017,
            "https://arxiv.org/abs/1706.03762",
            "attention",
            "nn.DropAttention(0.1)",
        ),
        "drop_key": Preset(
            "nn.DropKey",
            "DropKey",
            "Li et al.",
            2023,
            "https://arxiv.org/abs/2208.02646",
            "attention",
            "nn.DropKey(0.1)",
        ),
        "drop_head": Preset(
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
        "droq": Preset(
            "nn.droq",
            "DroQ",
            "Hiraoka et al.",
            2022,
            "https://arxiv.org/abs/2110.02034",
            "agent",
            "nn.droq(17, p=0.01)",
        ),
        "consistent_dropout": Preset(
            "nn.recording",
            "Consistent dropout",
            "Hausknecht and Wagener",
            2022,
            "https://arxiv.org/abs/2202.11818",
            "agent",
            "nn.recording(nn.Dropout(0.1))",
            "",
        ),
        "drop_edge": Preset(
            "nn.DropEdge",
            "DropEdge",
            "Rong et al.",
            2020,
            "https://arxiv.org/abs/1907.10903",
            "graph",
            "nn.DropEdge(0.2)",
        ),
        "drop_node": Preset(
            drop_node,
            "DropNode",
            "Feng et al.",
            2020,
            "https://arxiv.org/abs/2005.11079",
            "graph",
            "nn.DropNode(0.5)",
        ),
        "drop_message": Preset(
            drop_message,
            "DropMessage",
            "Fang et al.",
            2023,
            "https://arxiv.org/abs/2204.10037",
            "graph",
            "nn.DropMessage(0.3)",
        ),
        # end of graphs and agents
        # schedules
        "annealed": Preset(
            "algebra.Annealed",
            "Annealed dropout",
            "Rennie et al.",
            2014,
            "https://doi.org/10.1109/SLT.2014.7078567",
            "schedule",
            "nn.Dropout(algebra.Annealed(0.5, 10_000))",
        ),
        "curriculum": Preset(
            "algebra.Curriculum",
            "Curriculum dropout",
            "Morerio et al.",
            2017,
            "https://arxiv.org/abs/1703.06229",
            "schedule",
            "nn.Dropout(algebra.Curriculum(0.5, gamma=0.001))",
        ),
        "early": Preset(
            "algebra.Early",
            "Early dropout",
            "Liu et al.",
            2023,
            "https://arxiv.org/abs/2303.01500",
            "schedule",
            "nn.Dropout(algebra.Early(0.1, until=5_000))",
        ),
        "late": Preset(
            "algebra.Late",
            "Late dropout",
            "Liu et al.",
            2023,
            "https://arxiv.org/abs/2303.01500",
            "schedule",
            "nn.Dropout(algebra.Late(0.4, since=5_000))",
        ),
        "scheduled_drop_path": Preset(
            "algebra.Linear",
            "ScheduledDropPath",
            "Zoph et al.",
            2018,
            "https://arxiv.org/abs/1707.07012",
            "schedule",
            "nn.DropPath(algebra.Linear(0.0, 0.3, 10_000))",
            "end",
        ),
        # end of schedules
        # losses
        "r_drop": Preset(
            "nn.r_drop",
            "R-Drop",
            "Liang et al.",
            2021,
            "https://arxiv.org/abs/2106.14448",
            "loss",
            "nn.r_drop(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 1]), alpha=1.0)",
            "alpha",
        ),
        "fraternal": Preset(
            "nn.fraternal",
            "Fraternal dropout",
            "Zolna et al.",
            2018,
            "https://arxiv.org/abs/1711.00066",
            "loss",
            "nn.fraternal(torch.zeros(2), torch.ones(2), torch.mean, kappa=0.1)",
            "kappa",
        ),
        "multi_sample": Preset(
            "nn.multi_sample",
            "Multi-sample dropout",
            "Inoue",
            2019,
            "https://arxiv.org/abs/1905.09788",
            "loss",
            "nn.multi_sample(torch.ones(4, 8), [nn.Dropout(0.5)] * 4, Linear(8, 2))",
            "samples",
        ),
        "monte_carlo": Preset(
            "nn.sampling",
            "Monte Carlo dropout",
            "Gal and Ghahramani",
            2016,
            "https://arxiv.org/abs/1506.02142",
            "inference",
            "nn.sampling(nn.Dropout(0.5))",
            "",
        ),
        # end of losses
    }
)
