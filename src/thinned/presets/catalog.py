"""``CATALOG``, the table of methods that tests, documentation, command line and studies read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._errors import MissingNameError, nearest
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A row of ``CATALOG``: one published dropout method.

    Args:
        constructor: The public name below ``thinned`` that builds the method, such as
            ``"nn.Cutout"`` or ``"algebra.Early"``.
        title: The name of the method in print.
        paper: The authors of the paper.
        year: The year of the paper.
        url: Where the paper is.
        place: What the method acts on, such as ``"activation"``, ``"weight"`` or ``"branch"``, or
            what else it is: ``"schedule"``, ``"loss"`` or ``"inference"``.
        example: One line of code that builds the method.
        make: The function that returns the method's :class:`thinned.Drop`; None for a method that
            a Drop cannot express.
        rate_name: The name of the argument that holds the rate; empty for a method without one.

    Example:
        >>> CATALOG["drop_block"].paper, CATALOG["drop_block"].year
        ('Ghiasi et al.', 2018)
    """

    constructor: str
    title: str
    paper: str
    year: int
    url: str
    place: str
    example: str
    make: Callable[..., Drop] | None = None
    rate_name: str = "p"

    @property
    def status(self) -> str:
        """ "kernel" where fused kernels run the method, "torch" where torch's operations do.

        Both draw masks under the same contract (docs/masks.md).
        """
        return "torch" if self.make is None else "kernel"


class _Catalog(dict[str, Preset]):
    """A dict that names the nearest known methods where one is missing."""

    def __missing__(self, name: object) -> Preset:
        raise MissingNameError(f"unknown dropout method {name!r}; {nearest(str(name), self)}")


_ROWS = _Catalog(
    {
        "dropout": Preset(
            make=dropout,
            constructor="nn.Dropout",
            title="Dropout",
            paper="Srivastava et al.",
            year=2014,
            url="https://jmlr.org/papers/v15/srivastava14a.html",
            place="activation",
            example="nn.Dropout(0.5)",
        ),
        "gaussian_dropout": Preset(
            make=gaussian_dropout,
            constructor="nn.GaussianDropout",
            title="Gaussian dropout",
            paper="Srivastava et al.",
            year=2014,
            url="https://jmlr.org/papers/v15/srivastava14a.html",
            place="activation",
            example="nn.GaussianDropout(0.5)",
        ),
        "uniform_dropout": Preset(
            make=uniform_dropout,
            constructor="nn.UniformDropout",
            title="Uniform dropout (Uout)",
            paper="Li et al.",
            year=2019,
            url="https://arxiv.org/abs/1801.05134",
            place="activation",
            example="nn.UniformDropout(beta=0.1)",
            rate_name="beta",
        ),
        "alpha_dropout": Preset(
            make=alpha_dropout,
            constructor="nn.AlphaDropout",
            title="Alpha dropout",
            paper="Klambauer et al.",
            year=2017,
            url="https://arxiv.org/abs/1706.02515",
            place="activation",
            example="nn.AlphaDropout(0.05)",
        ),
        "feature_alpha_dropout": Preset(
            make=feature_alpha_dropout,
            constructor="nn.FeatureAlphaDropout",
            title="Feature alpha dropout",
            paper="Klambauer et al.",
            year=2017,
            url="https://arxiv.org/abs/1706.02515",
            place="activation",
            example="nn.FeatureAlphaDropout(0.05)",
        ),
        "standout": Preset(
            constructor="nn.Standout",
            title="Standout (adaptive dropout)",
            paper="Ba and Frey",
            year=2013,
            url="https://papers.nips.cc/paper/5032-adaptive-dropout-for-training-deep-neural-networks",
            place="activation",
            example="nn.Standout(Linear(64, 32))",
            rate_name="alpha",
        ),
        "jumpout": Preset(
            constructor="nn.Jumpout",
            title="Jumpout",
            paper="Wang et al.",
            year=2019,
            url="https://proceedings.mlr.press/v97/wang19q.html",
            place="activation",
            example="nn.Jumpout(0.05)",
            rate_name="sigma",
        ),
        "fast_dropout": Preset(
            constructor="nn.FastDropout",
            title="Fast dropout",
            paper="Wang and Manning",
            year=2013,
            url="https://proceedings.mlr.press/v28/wang13a.html",
            place="activation",
            example="nn.FastDropout(Linear(64, 32), 0.5)",
        ),
        "batchwise_dropout": Preset(
            make=batchwise_dropout,
            constructor="nn.BatchwiseDropout",
            title="Batchwise dropout",
            paper="Graham et al.",
            year=2015,
            url="https://arxiv.org/abs/1502.02478",
            place="activation",
            example="nn.BatchwiseDropout(0.5)",
        ),
        "thinned": Preset(
            constructor="nn.Thinned",
            title="Thinning (batchwise dropout by smaller products)",
            paper="Graham et al.",
            year=2015,
            url="https://arxiv.org/abs/1502.02478",
            place="activation",
            example="nn.Thinned(0.3)",
        ),
        "spatial_dropout": Preset(
            make=spatial_dropout,
            constructor="nn.SpatialDropout",
            title="SpatialDropout",
            paper="Tompson et al.",
            year=2015,
            url="https://arxiv.org/abs/1411.4280",
            place="map",
            example="nn.SpatialDropout(0.2)",
        ),
        "drop_block": Preset(
            make=drop_block,
            constructor="nn.DropBlock",
            title="DropBlock",
            paper="Ghiasi et al.",
            year=2018,
            url="https://arxiv.org/abs/1810.12890",
            place="map",
            example="nn.DropBlock(0.1, 7)",
        ),
        "disout": Preset(
            constructor="nn.Disout",
            title="Disout (feature map distortion)",
            paper="Tang et al.",
            year=2020,
            url="https://arxiv.org/abs/2002.11022",
            place="map",
            example="nn.Disout(0.1, 6)",
        ),
        "cutout": Preset(
            constructor="nn.Cutout",
            title="Cutout",
            paper="DeVries and Taylor",
            year=2017,
            url="https://arxiv.org/abs/1708.04552",
            place="map",
            example="nn.Cutout(16)",
            rate_name="size",
        ),
        "max_pool_dropout": Preset(
            constructor="nn.MaxPoolDropout2d",
            title="Max-pooling dropout",
            paper="Wu and Gu",
            year=2015,
            url="https://arxiv.org/abs/1512.01400",
            place="map",
            example="nn.MaxPoolDropout2d(2, p=0.5)",
        ),
        "weighted_channel_dropout": Preset(
            constructor="nn.WeightedChannelDropout",
            title="Weighted channel dropout",
            paper="Hou and Wang",
            year=2019,
            url="https://doi.org/10.1609/aaai.v33i01.33018425",
            place="map",
            example="nn.WeightedChannelDropout(0.2)",
        ),
        "drop_connect": Preset(
            make=drop_connect,
            constructor="nn.DropConnect",
            title="DropConnect",
            paper="Wan et al.",
            year=2013,
            url="https://proceedings.mlr.press/v28/wan13.html",
            place="weight",
            example="nn.DropConnect(Linear(784, 800), 0.5)",
        ),
        "mixout": Preset(
            constructor="nn.Mixout",
            title="Mixout",
            paper="Lee et al.",
            year=2020,
            url="https://arxiv.org/abs/1909.11299",
            place="weight",
            example="nn.Mixout(Linear(768, 2), 0.9)",
        ),
        "shakeout": Preset(
            constructor="nn.Shakeout",
            title="Shakeout",
            paper="Kang et al.",
            year=2016,
            url="https://arxiv.org/abs/1904.06593",
            place="weight",
            example="nn.Shakeout(Linear(784, 800), 0.5, 0.1)",
        ),
        "targeted_dropout": Preset(
            constructor="nn.TargetedDropout",
            title="Targeted dropout",
            paper="Gomez et al.",
            year=2019,
            url="https://arxiv.org/abs/1905.13678",
            place="weight",
            example="nn.TargetedDropout(Linear(784, 800), 0.5, 0.5)",
        ),
        "targeted_unit_dropout": Preset(
            constructor="nn.TargetedUnitDropout",
            title="Targeted unit dropout",
            paper="Gomez et al.",
            year=2019,
            url="https://arxiv.org/abs/1905.13678",
            place="weight",
            example="nn.TargetedUnitDropout(Conv2d(16, 32, 3), 0.5, 0.5)",
        ),
        "lora_dropout": Preset(
            constructor="nn.LoraDropout",
            title="LoRA dropout",
            paper="Hu et al.",
            year=2022,
            url="https://arxiv.org/abs/2106.09685",
            place="weight",
            example="nn.LoraDropout(Linear(768, 768), rank=8, alpha=16, p=0.05)",
        ),
        "dare": Preset(
            constructor="functional.dare",
            title="DARE",
            paper="Yu et al.",
            year=2024,
            url="https://arxiv.org/abs/2311.03099",
            place="weight",
            example="functional.dare(Linear(4, 4).state_dict(), Linear(4, 4).state_dict(), 0.9)",
        ),
        "concrete_dropout": Preset(
            constructor="nn.ConcreteDropout",
            title="Concrete dropout",
            paper="Gal et al.",
            year=2017,
            url="https://arxiv.org/abs/1705.07832",
            place="activation",
            example="nn.ConcreteDropout(512, 0.1)",
        ),
        "variational_dropout": Preset(
            constructor="nn.VariationalDropout",
            title="Variational dropout",
            paper="Kingma et al.",
            year=2015,
            url="https://arxiv.org/abs/1506.02557",
            place="activation",
            example="nn.VariationalDropout(512)",
        ),
        "sparse_variational_dropout": Preset(
            constructor="nn.SparseVariationalDropout",
            title="Sparse variational dropout",
            paper="Molchanov et al.",
            year=2017,
            url="https://arxiv.org/abs/1701.05369",
            place="weight",
            example="nn.SparseVariationalDropout(Linear(784, 300))",
        ),
        "information_dropout": Preset(
            constructor="nn.InformationDropout",
            title="Information dropout",
            paper="Achille and Soatto",
            year=2018,
            url="https://arxiv.org/abs/1611.01353",
            place="activation",
            example="nn.InformationDropout(Conv2d(3, 8, 3), Conv2d(3, 8, 3))",
        ),
        "drop_path": Preset(
            make=drop_path,
            constructor="nn.DropPath",
            title="Drop path",
            paper="Larsson et al.",
            year=2017,
            url="https://arxiv.org/abs/1605.07648",
            place="branch",
            example="nn.DropPath(0.2)",
        ),
        "stochastic_depth": Preset(
            make=stochastic_depth,
            constructor="nn.StochasticDepth",
            title="Stochastic depth",
            paper="Huang et al.",
            year=2016,
            url="https://arxiv.org/abs/1603.09382",
            place="branch",
            example='nn.StochasticDepth(0.5, per="batch")',
        ),
        "layer_drop": Preset(
            constructor="nn.LayerDrop",
            title="LayerDrop",
            paper="Fan et al.",
            year=2020,
            url="https://arxiv.org/abs/1909.11556",
            place="branch",
            example="nn.LayerDrop([Linear(8, 8), Linear(8, 8)], 0.2)",
        ),
        "shake_drop": Preset(
            constructor="nn.ShakeDrop",
            title="ShakeDrop",
            paper="Yamada et al.",
            year=2019,
            url="https://arxiv.org/abs/1802.02375",
            place="branch",
            example="nn.ShakeDrop(0.5)",
        ),
        "shake_shake": Preset(
            constructor="nn.ShakeShake",
            title="Shake-Shake",
            paper="Gastaldi",
            year=2017,
            url="https://arxiv.org/abs/1705.07485",
            place="branch",
            example="nn.ShakeShake()",
            rate_name="",
        ),
        "swapout": Preset(
            constructor="nn.Swapout",
            title="Swapout",
            paper="Singh et al.",
            year=2016,
            url="https://arxiv.org/abs/1605.06465",
            place="branch",
            example="nn.Swapout(0.5)",
        ),
        "locked_dropout": Preset(
            make=locked_dropout,
            constructor="nn.LockedDropout",
            title="Locked (variational) dropout",
            paper="Gal and Ghahramani",
            year=2016,
            url="https://arxiv.org/abs/1512.05287",
            place="sequence",
            example="nn.LockedDropout(0.5)",
        ),
        "variational_rnn_dropout": Preset(
            constructor="nn.VariationalRNNDropout",
            title="Variational recurrent dropout",
            paper="Gal and Ghahramani",
            year=2016,
            url="https://arxiv.org/abs/1512.05287",
            place="state",
            example="nn.VariationalRNNDropout(LSTM(400, 1150), 0.3, inputs=0.3, outputs=0.5)",
        ),
        "weight_drop": Preset(
            constructor="nn.WeightDrop",
            title="Weight-drop (AWD-LSTM)",
            paper="Merity et al.",
            year=2018,
            url="https://arxiv.org/abs/1708.02182",
            place="weight",
            example="nn.WeightDrop(LSTM(400, 1150, 3), 0.5, inputs=0.4, between=0.25, outputs=0.4)",
        ),
        "recurrent_dropout": Preset(
            constructor="nn.RecurrentDropout",
            title="Recurrent dropout without memory loss",
            paper="Semeniuta et al.",
            year=2016,
            url="https://arxiv.org/abs/1603.05118",
            place="state",
            example="nn.RecurrentDropout(LSTM(64, 128), 0.25)",
        ),
        "rnn_drop": Preset(
            constructor="nn.RNNDrop",
            title="RNNDrop",
            paper="Moon et al.",
            year=2015,
            url="https://www.stat.berkeley.edu/~tsmoon/files/Conference/asru2015.pdf",
            place="state",
            example="nn.RNNDrop(LSTM(64, 128), 0.2)",
        ),
        "zoneout": Preset(
            constructor="nn.Zoneout",
            title="Zoneout",
            paper="Krueger et al.",
            year=2017,
            url="https://arxiv.org/abs/1606.01305",
            place="state",
            example="nn.Zoneout(LSTM(64, 128), 0.05, cell_p=0.5)",
        ),
        "embedding_dropout": Preset(
            constructor="nn.EmbeddingDropout",
            title="Embedding dropout",
            paper="Gal and Ghahramani",
            year=2016,
            url="https://arxiv.org/abs/1512.05287",
            place="weight",
            example="nn.EmbeddingDropout(Embedding(10_000, 400), 0.1)",
        ),
        "word_dropout": Preset(
            constructor="nn.WordDropout",
            title="Word dropout",
            paper="Iyyer et al.",
            year=2015,
            url="https://aclanthology.org/P15-1162/",
            place="token",
            example="nn.WordDropout(0.3, unknown_id=1)",
        ),
        "token_dropout": Preset(
            make=token_dropout,
            constructor="nn.TokenDropout",
            title="Token dropout",
            paper="Sennrich et al.",
            year=2016,
            url="https://arxiv.org/abs/1606.02891",
            place="token",
            example="nn.TokenDropout(0.1)",
        ),
        "patch_dropout": Preset(
            constructor="nn.PatchDropout",
            title="PatchDropout",
            paper="Liu et al.",
            year=2023,
            url="https://arxiv.org/abs/2208.07220",
            place="token",
            example="nn.PatchDropout(0.5)",
        ),
        "hidden_cut": Preset(
            constructor="nn.HiddenCut",
            title="HiddenCut",
            paper="Chen et al.",
            year=2021,
            url="https://arxiv.org/abs/2106.00149",
            place="token",
            example="nn.HiddenCut(0.1)",
        ),
        "attention_dropout": Preset(
            constructor="nn.AttentionDropout",
            title="Attention dropout",
            paper="Vaswani et al.",
            year=2017,
            url="https://arxiv.org/abs/1706.03762",
            place="attention",
            example="nn.AttentionDropout(0.1)",
        ),
        "drop_key": Preset(
            constructor="nn.DropKey",
            title="DropKey",
            paper="Li et al.",
            year=2023,
            url="https://arxiv.org/abs/2208.02646",
            place="attention",
            example="nn.DropKey(0.1)",
        ),
        "drop_head": Preset(
            constructor="nn.DropHead",
            title="DropHead",
            paper="Zhou et al.",
            year=2020,
            url="https://arxiv.org/abs/2004.13342",
            place="attention",
            example="nn.DropHead(0.2)",
        ),
        "droq": Preset(
            constructor="nn.droq",
            title="DroQ",
            paper="Hiraoka et al.",
            year=2022,
            url="https://arxiv.org/abs/2110.02034",
            place="agent",
            example="nn.droq(17, p=0.01)",
        ),
        "consistent_dropout": Preset(
            constructor="recording",
            title="Consistent dropout",
            paper="Hausknecht and Wagener",
            year=2022,
            url="https://arxiv.org/abs/2202.11818",
            place="agent",
            example="thinned.recording(nn.Dropout(0.1))",
            rate_name="",
        ),
        "drop_edge": Preset(
            constructor="nn.DropEdge",
            title="DropEdge",
            paper="Rong et al.",
            year=2020,
            url="https://arxiv.org/abs/1907.10903",
            place="graph",
            example="nn.DropEdge(0.2)",
        ),
        "drop_node": Preset(
            make=drop_node,
            constructor="nn.DropNode",
            title="DropNode",
            paper="Feng et al.",
            year=2020,
            url="https://arxiv.org/abs/2005.11079",
            place="graph",
            example="nn.DropNode(0.5)",
        ),
        "drop_message": Preset(
            make=drop_message,
            constructor="nn.DropMessage",
            title="DropMessage",
            paper="Fang et al.",
            year=2023,
            url="https://arxiv.org/abs/2204.10037",
            place="graph",
            example="nn.DropMessage(0.3)",
        ),
        "annealed": Preset(
            constructor="algebra.Annealed",
            title="Annealed dropout",
            paper="Rennie et al.",
            year=2014,
            url="https://doi.org/10.1109/SLT.2014.7078567",
            place="schedule",
            example="nn.Dropout(algebra.Annealed(0.5, 10_000))",
        ),
        "curriculum": Preset(
            constructor="algebra.Curriculum",
            title="Curriculum dropout",
            paper="Morerio et al.",
            year=2017,
            url="https://arxiv.org/abs/1703.06229",
            place="schedule",
            example="nn.Dropout(algebra.Curriculum(0.5, gamma=0.001))",
        ),
        "early": Preset(
            constructor="algebra.Early",
            title="Early dropout",
            paper="Liu et al.",
            year=2023,
            url="https://arxiv.org/abs/2303.01500",
            place="schedule",
            example="nn.Dropout(algebra.Early(0.1, until=5_000))",
        ),
        "late": Preset(
            constructor="algebra.Late",
            title="Late dropout",
            paper="Liu et al.",
            year=2023,
            url="https://arxiv.org/abs/2303.01500",
            place="schedule",
            example="nn.Dropout(algebra.Late(0.4, since=5_000))",
        ),
        "scheduled_drop_path": Preset(
            constructor="algebra.Linear",
            title="ScheduledDropPath",
            paper="Zoph et al.",
            year=2018,
            url="https://arxiv.org/abs/1707.07012",
            place="schedule",
            example="nn.DropPath(algebra.Linear(0.0, 0.3, 10_000))",
            rate_name="end",
        ),
        "r_drop": Preset(
            constructor="nn.r_drop",
            title="R-Drop",
            paper="Liang et al.",
            year=2021,
            url="https://arxiv.org/abs/2106.14448",
            place="loss",
            example=(
                "nn.r_drop(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 1]), alpha=1.0)"
            ),
            rate_name="alpha",
        ),
        "fraternal": Preset(
            constructor="nn.fraternal",
            title="Fraternal dropout",
            paper="Zolna et al.",
            year=2018,
            url="https://arxiv.org/abs/1711.00066",
            place="loss",
            example="nn.fraternal(torch.zeros(2), torch.ones(2), torch.mean, kappa=0.1)",
            rate_name="kappa",
        ),
        "multi_sample": Preset(
            constructor="nn.multi_sample",
            title="Multi-sample dropout",
            paper="Inoue",
            year=2019,
            url="https://arxiv.org/abs/1905.09788",
            place="loss",
            example="nn.multi_sample(torch.ones(4, 8), [nn.Dropout(0.5)] * 4, Linear(8, 2))",
            rate_name="samples",
        ),
        "monte_carlo": Preset(
            constructor="sampling",
            title="Monte Carlo dropout",
            paper="Gal and Ghahramani",
            year=2016,
            url="https://arxiv.org/abs/1506.02142",
            place="inference",
            example="thinned.sampling(nn.Dropout(0.5))",
            rate_name="",
        ),
    }
)

CATALOG: Mapping[str, Preset] = MappingProxyType(_ROWS)
