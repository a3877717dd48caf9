"""Small models for the live checks: half have exactly one mistake, half are similar and right.

The mistakes are those of reports, to which ``link`` leads. The code is our own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import thinned
from thinned import nn as tnn
from thinned.algebra.schedule import Linear


@dataclass(frozen=True)
class Case:
    """``build`` returns the model and its inputs, ``options`` are arguments of ``check``, and
    ``expect`` holds the codes of the mistakes.
    """

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    expect: frozenset[str]
    link: str = ""
    options: dict[str, Any] = field(default_factory=dict)


CASES: list[Case] = []


def case(*expect: str, link: str = "", **options: Any) -> Callable[[Any], Any]:
    def keep(build: Any) -> Any:
        url = link if link.startswith("http") or not link else "https://github.com/" + link
        CASES.append(Case(build.__name__, build, frozenset(expect), url, options))
        return build

    return keep


def rows(n: int = 32, width: int = 16) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def images(n: int = 8, channels: int = 4, size: int = 12) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def sequences(n: int = 8, time: int = 6, width: int = 16) -> torch.Tensor:
    return torch.randn(n, time, width, generator=torch.Generator().manual_seed(1))


class Calls(nn.Module):
    """Two linear layers with a function of the model and the hidden units between them."""

    def __init__(
        self, between: Callable[..., Any], p: float = 0.5, width: int = 16, **attributes: Any
    ) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, 32), nn.Linear(32, 4)
        self.p, self.between = p, between
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self, F.relu(self.first(x))))


class Layer(nn.Module):
    """A layer written as a function of itself and its input."""

    def __init__(self, does: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.does = does
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.does(self, x)


class DropLayer(Layer):
    """A layer with "drop" in its name."""


torch_dropout = nn.Dropout


def mlp(*between: nn.Module, width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 32), nn.ReLU(), *between, nn.Linear(32, 4))


@case("L1", link="pytorch/pytorch/issues/26338")
def functional_without_training():
    return Calls(lambda m, h: F.dropout(h, m.p)), (rows(),)


@case()
def functional_with_training():
    return Calls(lambda m, h: F.dropout(h, m.p, m.training)), (rows(),)


@case("L1", link="rixwew/pytorch-fm/issues/21")
def functional_always_on_before_batchless_head():
    return Calls(lambda m, h: F.dropout1d(h.unsqueeze(-1), m.p).squeeze(-1)), (rows(),)


@case("L1", link="pytorch/pytorch/issues/26338")
def drop_path_that_ignores_the_mode():
    def path(m, x):
        return x * x.new_empty(len(x), 1).bernoulli_(1 - m.drop_prob) / (1 - m.drop_prob)

    return mlp(DropLayer(path, drop_prob=0.3)), (rows(),)


@case()
def drop_path_by_rand():
    def path(m, x):
        if not m.training:
            return x
        return x * torch.floor(1 - m.drop_prob + torch.rand(len(x), 1)) / (1 - m.drop_prob)

    return mlp(DropLayer(path, drop_prob=0.3)), (rows(64),)


@case("L1", link="pytorch/pytorch/issues/26338")
def layer_kept_in_a_list():
    return Calls(lambda m, h: m.drops[0](h), drops=[nn.Dropout(0.5)]), (rows(),)


@case()
def layer_kept_in_a_module_list():
    return Calls(lambda m, h: m.drops[0](h), drops=nn.ModuleList([nn.Dropout(0.5)])), (rows(),)


@case("L32", link="yangze0930/NTS-Net/issues/14")
def layer_made_in_forward():
    return Calls(lambda m, h: nn.Dropout(m.p)(h)), (rows(),)


@case()
def noise_in_evaluation_on_purpose():
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave, self.drop = nn.Linear(16, 8), nn.Linear(4, 16), nn.Dropout(0.1)

        def forward(self, x):
            mean, log_var = self.enter(self.drop(x)).chunk(2, -1)
            return self.leave(mean + torch.randn_like(mean) * (0.5 * log_var).exp()), mean, log_var

    return Vae(), (rows(),)


@case()
def binary_units_sampled_in_evaluation():
    return Calls(lambda m, h: torch.bernoulli(torch.sigmoid(h))), (rows(),)


@case(purpose="monte carlo")
def always_on_for_monte_carlo():
    return Calls(lambda m, h: F.dropout(h, m.p, training=True)), (rows(),)


class Attention(nn.Module):
    def __init__(self, rate: Callable[[nn.Module], float]) -> None:
        super().__init__()
        self.project, self.out, self.rate = nn.Linear(16, 48), nn.Linear(16, 16), rate

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate(self))
        return self.out(y.transpose(1, 2).flatten(2))


@case("L2", link="pytorch/pytorch/issues/124464")
def attention_without_training():
    return Attention(lambda m: 0.2), (sequences(),)


@case()
def attention_with_training():
    return Attention(lambda m: 0.2 if m.training else 0.0), (sequences(),)


@case("L2", link="huggingface/pytorch-image-models/pull/1978")
def multi_head_function_always_training():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = nn.MultiheadAttention(16, 2, dropout=0.2)

        def forward(self, x):
            x, m = x.transpose(0, 1), self.mha
            return F.multi_head_attention_forward(
                x,
                x,
                x,
                16,
                2,
                m.in_proj_weight,
                m.in_proj_bias,
                None,
                None,
                False,
                0.2,
                m.out_proj.weight,
                m.out_proj.bias,
            )[0]

    return Heads(), (sequences(),)


@case()
def multi_head_attention():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = nn.MultiheadAttention(16, 2, dropout=0.2, batch_first=True)

        def forward(self, x):
            return self.mha(x, x, x)[0]

    return Heads(), (sequences(),)


@case("L3", link="NVIDIA/Megatron-LM/pull/411")
def rate_overwritten_in_evaluation():
    def drop(m, h):
        if not m.training:
            m.p = 0.0
        return F.dropout(h, m.p)

    return Calls(drop, p=0.3), (rows(),)


@case()
def rate_chosen_by_mode():
    return Calls(lambda m, h: F.dropout(h, m.p if m.training else 0.0), p=0.3), (rows(),)


@case("L3", link="NVIDIA/Megatron-LM/pull/411")
def layers_switched_off_for_good():
    def drop(m, h):
        if not m.training:
            m.on = False
        return F.dropout(h, m.p, m.training and m.on)

    return Calls(drop, p=0.3, on=True), (rows(),)


@case()
def rate_that_anneals_with_training():
    def drop(m, h):
        if m.training:
            m.p = max(0.1, m.p - 0.001)
        return F.dropout(h, m.p, m.training)

    return Calls(drop, p=0.3), (rows(),)


@case("L4", link="google-research/electra/pull/61")
def keep_probability_given_as_rate():
    return Calls(lambda m, h: F.dropout(h, m.keep_prob, m.training), keep_prob=0.9), (rows(),)


@case()
def keep_probability_turned_round():
    return Calls(lambda m, h: F.dropout(h, 1 - m.keep_prob, m.training), keep_prob=0.9), (rows(),)


@case("L4", link="aymericdamien/TensorFlow-Examples/issues/205")
def mask_of_the_rate_instead_of_its_rest():
    def drop(m, x):
        return x * torch.bernoulli(torch.full_like(x, m.p)) / m.p if m.training else x

    return mlp(DropLayer(drop, p=0.2)), (rows(),)


@case()
def mask_of_the_rest():
    def drop(m, x):
        return x * torch.bernoulli(torch.full_like(x, 1 - m.p)) / (1 - m.p) if m.training else x

    return mlp(DropLayer(drop, p=0.2)), (rows(),)


def blocks(valid: bool) -> Callable[..., Any]:
    def drop(m, x):
        if not m.training:
            return x
        h, w = x.shape[-2:]
        gamma = m.drop_prob / m.block**2 * h * w / ((h - m.block + 1) * (w - m.block + 1))
        edge = m.block // 2
        seeds = (torch.rand_like(x[..., edge : h - edge, edge : w - edge]) < gamma).to(x)
        seeds = F.pad(seeds, (edge,) * 4) if valid else (torch.rand_like(x) < gamma).to(x)
        keep = 1 - F.max_pool2d(seeds, m.block, 1, edge)
        return x * keep * keep.numel() / keep.sum()

    return drop


@case("L20", link="huggingface/pytorch-image-models/issues/1046")
def blocks_seeded_beyond_the_border():
    layer = DropLayer(blocks(False), drop_prob=0.1, block=7)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), layer, nn.Flatten(), nn.Linear(8 * 144, 4)
    ), (images(),)


@case()
def blocks_of_ours():
    layer = tnn.DropBlock2d(0.1, 5)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), layer, nn.Flatten(), nn.Linear(8 * 144, 4)
    ), (images(),)


@case("L20", link="huggingface/pytorch-image-models/issues/1046")
def threshold_of_a_normal_as_if_uniform():
    def drop(m, x):
        return x * (torch.randn_like(x) > m.p) / (1 - m.p) if m.training else x

    return mlp(DropLayer(drop, p=0.1)), (rows(),)


@case()
def threshold_of_a_uniform():
    return mlp(
        DropLayer(
            lambda m, x: x * (torch.rand_like(x) > m.p) / (1 - m.p) if m.training else x, p=0.1
        )
    ), (rows(),)


@case()
def channels_of_torch():
    return nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(800, 4)
    ), (images(),)


@case("L5", link="https://arxiv.org/abs/1801.05134")
def dropout_directly_before_norm():
    return nn.Sequential(
        nn.Linear(16, 32), nn.Dropout(0.5), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)
    ), (rows(64),)


@case()
def dropout_after_the_last_norm():
    return nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4)
    ), (rows(64),)


@case("L5", link="https://arxiv.org/abs/1801.05134")
def dropout_convolution_norm():
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(512, 4),
    )
    return net, (images(32),)


@case()
def dropout_before_layer_norm():
    return nn.Sequential(
        nn.Linear(16, 32), nn.Dropout(0.5), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 4)
    ), (rows(),)


@case("L6", link="lightning-uq-box/lightning-uq-box/pull/173", purpose="monte carlo")
def everything_in_training_to_sample():
    model = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4)
    )
    return model.train(), (rows(64),)


@case(purpose="monte carlo")
def dropout_alone_in_training_to_sample():
    model = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4)
    ).eval()
    model[3].train()
    return model, (rows(64),)


@case("L6", link="lululxvi/deepxde/issues/350")
def norm_that_always_trains():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = (
                nn.Linear(16, 32),
                nn.BatchNorm1d(32),
                nn.Linear(32, 4),
            )

        def forward(self, x):
            n = self.norm
            h = F.batch_norm(
                self.first(x), n.running_mean, n.running_var, n.weight, n.bias, training=True
            )
            return self.last(F.dropout(F.relu(h), 0.2, self.training))

    return Net(), (rows(64),)


@case()
def norm_that_follows_the_mode():
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(800, 4),
    )
    return net, (images(16),)


class Segments(nn.Module):
    def __init__(self, drop: nn.Module, **how: Any) -> None:
        super().__init__()
        self.enter, self.leave, self.how = nn.Linear(16, 32), nn.Linear(32, 4), how
        self.segment = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), drop, nn.Linear(32, 32))

    def forward(self, x):
        return self.leave(
            torch.tanh(checkpoint(self.segment, torch.tanh(self.enter(x)), **self.how))
        )


@case("L8", link="allenai/OLMo-core/pull/828")
def checkpoint_without_the_generator():
    return Segments(nn.Dropout(0.3), use_reentrant=False, preserve_rng_state=False), (rows(),)


@case()
def checkpoint_with_the_generator():
    return Segments(nn.Dropout(0.3), use_reentrant=False), (rows(),)


@case("L8", link="openai/guided-diffusion/issues/167")
def reentrant_checkpoint_without_the_generator():
    return Segments(nn.Dropout(0.3), use_reentrant=True, preserve_rng_state=False), (rows(),)


@case()
def reentrant_checkpoint_with_the_generator():
    return Segments(nn.Dropout(0.3), use_reentrant=True), (rows(),)


@case()
def keyed_checkpoint_without_the_generator():
    model = Segments(tnn.Dropout(0.3), use_reentrant=False, preserve_rng_state=False)
    thinned.key(model, 3).at(0)
    return model, (rows(),)


@case("L8", link="pytorch/pytorch/issues/190717")
def checkpoint_of_attention_without_the_generator():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter = nn.Linear(16, 16)
            self.attend = Attention(lambda m: 0.2 if m.training else 0.0)

        def forward(self, x):
            return checkpoint(
                self.attend, self.enter(x), use_reentrant=False, preserve_rng_state=False
            )

    return Net(), (sequences(),)


@case("L10", link="pytorch/pytorch/issues/69801")
def channel_dropout_on_a_sequence():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout2d(0.2), nn.Linear(32, 4)), (
        sequences(),
    )


@case()
def locked_dropout_on_a_sequence():
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), tnn.LockedDropout(p=0.2), nn.Linear(32, 4)
    ), (sequences(),)


@case("L10", link="pytorch/pytorch/issues/77081")
def channel_function_on_embeddings():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(50, 16), nn.Linear(16, 4)

        def forward(self, ids):
            return self.last(F.dropout2d(self.words(ids), 0.2, self.training))

    return Net(), (torch.arange(40).view(8, 5),)


@case()
def channel_function_on_transposed_maps():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(50, 16), nn.Linear(16, 4)

        def forward(self, ids):
            x = F.dropout2d(self.words(ids).transpose(1, 2).unsqueeze(-1), 0.2, self.training)
            return self.last(x.squeeze(-1).transpose(1, 2))

    return Net(), (torch.arange(40).view(8, 5),)


class Recurrent(nn.Module):
    def __init__(self, layers: int, dropout: float, kind: type = nn.LSTM) -> None:
        super().__init__()
        self.rnn, self.last = (
            kind(16, 12, layers, dropout=dropout, batch_first=True),
            nn.Linear(12, 4),
        )

    def forward(self, x):
        return self.last(self.rnn(x)[0][:, -1])


@case("L11", link="pytorch/pytorch/issues/5985")
def recurrent_dropout_of_one_layer():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Recurrent(1, 0.3), (sequences(),)


@case()
def recurrent_dropout_of_two_layers():
    return Recurrent(2, 0.3), (sequences(),)


@case("L11", link="tensorflow/tensorflow/issues/6466")
def gru_dropout_of_one_layer():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Recurrent(1, 0.5, nn.GRU), (sequences(),)


@case()
def gru_without_dropout():
    return Recurrent(1, 0.0, nn.GRU), (sequences(),)


@case("L12", link="keitakurita/Better_LSTM_PyTorch/issues/7")
def dropped_weights_written_back():
    def drop(m, h):
        if m.training:
            m.last.weight.data = F.dropout(m.last.weight.data, 0.3)
        return h

    return Calls(drop), (rows(),)


@case()
def dropped_weights_used_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            weight = F.dropout(self.last.weight, 0.3, self.training)
            return F.linear(F.relu(self.first(x)), weight, self.last.bias)

    return Net(), (rows(),)


@case()
def dropped_weights_of_ours():
    return nn.Sequential(tnn.DropConnect(nn.Linear(16, 32), p=0.3), nn.ReLU(), nn.Linear(32, 4)), (
        rows(),
    )


@case()
def averaged_weights_moved_in_forward():
    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.student, self.teacher = (
                mlp(nn.Dropout(0.1)),
                mlp(nn.Dropout(0.1)).requires_grad_(False),
            )

        def forward(self, x):
            with torch.no_grad():
                for t, s in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    t.mul_(0.99).add_(s, alpha=0.01)
            return self.student(x), self.teacher(x)

    return Teacher(), (rows(),)


@case("L13", link="huggingface/trl/issues/3500", purpose="policy")
def policy_with_dropout():
    return nn.Sequential(mlp(nn.Dropout(0.1)), nn.LogSoftmax(-1)), (rows(),)


@case(purpose="policy")
def policy_without_dropout():
    return nn.Sequential(mlp(nn.Dropout(0.0)), nn.LogSoftmax(-1)), (rows(),)


@case("L13", link="hiyouga/LLaMA-Factory/pull/10779", purpose="policy")
def policy_with_functional_dropout():
    return Calls(lambda m, h: F.dropout(h, 0.1, m.training)), (rows(),)


@case("L14", link="https://arxiv.org/abs/1207.0580", purpose="classification")
def dropout_on_logits():
    return nn.Sequential(mlp(), nn.Dropout(0.3)), (rows(),)


@case(purpose="classification")
def dropout_before_the_last_layer():
    return mlp(nn.Dropout(0.3)), (rows(),)


@case()
def features_that_end_in_dropout():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.3)), (rows(),)


@case("L15", link="https://arxiv.org/abs/1506.02142", purpose="regression")
def rectifier_behind_dropout_in_a_regression():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 1))
    with torch.no_grad():
        net[3].weight.abs_()
    return net, (rows(256),)


@case(purpose="regression")
def linear_behind_dropout_in_a_regression():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1)), (
        rows(256),
    )


@case(
    "L29",
    link="https://github.com/dsgoficial/pytorch_segmentation_models_trainer/pull/199",
    purpose="monte carlo",
)
def nothing_to_draw():
    return mlp(nn.Dropout(0.0)), (rows(),)


@case(purpose="monte carlo")
def something_to_draw():
    return mlp(nn.Dropout(0.1)).eval(), (rows(),)


@case("L17", link="https://jmlr.org/papers/v15/srivastava14a.html")
def evaluation_scaled_once_more():
    def drop(m, h):
        h = m.drop(h)
        return h if m.training else h * (1 - m.p)

    return Calls(drop, drop=nn.Dropout(0.5)), (rows(),)


@case("L17", link="https://cs231n.github.io/neural-networks-2/")
def layer_scaled_twice():
    return mlp(DropLayer(lambda m, x: F.dropout(x, m.p) if m.training else x * (1 - m.p), p=0.3)), (
        rows(),
    )


@case()
def classic_dropout():
    def drop(m, x):
        return x * torch.bernoulli(torch.full_like(x, 1 - m.p)) if m.training else x * (1 - m.p)

    return mlp(DropLayer(drop, p=0.3)), (rows(),)


@case()
def scaled_in_both_modes():
    return Calls(lambda m, h: 0.5 * F.dropout(h, 0.5, m.training)), (rows(),)


@case("L18", link="pytorch/pytorch/issues/2649")
def seeded_in_forward():
    def drop(m, h):
        torch.manual_seed(0)
        return F.dropout(h, m.p, m.training)

    return Calls(drop), (rows(),)


@case()
def seeded_when_built():
    torch.manual_seed(0)
    return Calls(lambda m, h: F.dropout(h, m.p, m.training)), (rows(),)


@case("L18", link="pytorch/pytorch/issues/2649")
def mask_drawn_once():
    def drop(m, x):
        if not m.training:
            return x
        if m.mask is None:
            m.mask = torch.empty_like(x).bernoulli_(1 - m.p) / (1 - m.p)
        return x * m.mask

    return mlp(DropLayer(drop, p=0.5, mask=None)), (rows(),)


@case()
def mask_drawn_each_pass_and_kept_for_reading():
    def drop(m, x):
        if not m.training:
            return x
        m.mask = torch.empty_like(x).bernoulli_(1 - m.p) / (1 - m.p)
        return x * m.mask

    return mlp(DropLayer(drop, p=0.5, mask=None)), (rows(),)


@case()
def keyed_and_not_stepped():
    model = mlp(tnn.Dropout(0.5))
    thinned.key(model, 0).at(0)
    return model, (rows(),)


@case("L19", link="pytorch/pytorch/issues/59421")
def rate_one():
    return mlp(nn.Dropout(1.0)), (rows(),)


@case("L19", link="miguelvr/dropblock/issues/20")
def heads_all_dropped():
    def drop(m, x):
        if not m.training:
            return x
        keep = (torch.rand(len(x), 2) > m.p).repeat_interleave(16, 1).to(x)
        return x * keep * 32 / keep.sum(1, keepdim=True)

    return mlp(DropLayer(drop, p=0.5)), (rows(),)


@case()
def heads_kept_at_least_once():
    return mlp(tnn.Dropout(0.5)), (rows(),)


@case("L21", link="Lightning-AI/pytorch-lightning/issues/20105")
def pretrained_part_left_in_evaluation():
    model = nn.Sequential(mlp(nn.Dropout(0.1)).eval(), nn.Linear(4, 2))
    model.training = True
    return model, (rows(),)


@case()
def frozen_part_left_in_evaluation():
    model = nn.Sequential(mlp(nn.Dropout(0.1)).eval().requires_grad_(False), nn.Linear(4, 2))
    model.training = True
    return model, (rows(),)


@case(
    "L21",
    link="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.alpha_dropout.html",
)
def alpha_dropout_without_training():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.last(F.alpha_dropout(F.selu(self.first(x)), 0.1))

    return Net(), (rows(),)


@case()
def alpha_dropout_with_training():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.last(F.alpha_dropout(F.selu(self.first(x)), 0.1, self.training))

    return Net(), (rows(),)


@case("L21", link="pytorch/pytorch/issues/32346")
def dropped_weights_not_used():
    class WeightDrop(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            F.dropout(self.first.weight, 0.5, self.training)  # and then forgotten
            return self.last(F.relu(self.first(x)))

    return WeightDrop(), (rows(),)


@case()
def low_rank_branch_that_starts_at_zero():
    class LowRank(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.down, self.up = (
                nn.Linear(16, 8),
                nn.Linear(16, 4, bias=False),
                nn.Linear(4, 8, bias=False),
            )
            self.drop = nn.Dropout(0.2)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.base(x) + self.up(self.down(self.drop(x)))

    return LowRank(), (rows(),)


@case("L22", link="https://arxiv.org/abs/1706.02515")
def plain_dropout_on_selu():
    return nn.Sequential(nn.Linear(16, 32), nn.SELU(), nn.Dropout(0.1), nn.Linear(32, 4)), (rows(),)


@case()
def alpha_dropout_on_selu():
    return nn.Sequential(nn.Linear(16, 32), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(32, 4)), (
        rows(),
    )


@case("L22", link="https://arxiv.org/abs/1706.02515")
def alpha_dropout_on_relu():
    return mlp(nn.AlphaDropout(0.1)), (rows(),)


@case()
def alpha_dropout_of_ours_on_selu():
    return nn.Sequential(nn.Linear(16, 32), nn.SELU(), tnn.AlphaDropout(0.1), nn.Linear(32, 4)), (
        rows(),
    )


class Skipping(nn.Module):
    def __init__(self, branch: Callable[..., Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
        self.last, self.branch = nn.Linear(16, 4), branch

    def forward(self, x):
        for layer in self.layers:
            x = self.branch(self, layer, x)
        return self.last(x)


def skip_by_python(m, layer, x):
    return x if m.training and random.random() < 0.4 else x + torch.tanh(layer(x))


@case("L28", link="facebookresearch/fairseq/issues/2389", ddp=True)
def layers_skipped_when_distributed():
    return Skipping(skip_by_python), (rows(),)


@case()
def layers_skipped_alone():
    return Skipping(skip_by_python), (rows(),)


@case("L28", link="huggingface/transformers/issues/30113", ddp=True)
def layers_skipped_by_tensors_when_distributed():
    def skip(m, layer, x):
        return x if m.training and torch.rand(()) < 0.4 else x + torch.tanh(layer(x))

    return Skipping(skip), (rows(),)


@case(ddp=True)
def branches_scaled_when_distributed():
    model = Skipping(lambda m, layer, x: x + m.path(torch.tanh(layer(x))))
    model.path = tnn.DropPath(p=0.4)
    return model, (rows(),)


class _Mixed(torch.autograd.Function):
    """Mixes weights with others; the forward pass is scaled by 1 / q."""

    @staticmethod
    def forward(ctx, weight, target, p, scaled):
        mask = torch.empty_like(weight).bernoulli_(1 - p)
        ctx.save_for_backward(mask)
        ctx.p, ctx.scaled = p, scaled
        return (mask * weight + (1 - mask) * target - p * target) / (1 - p)

    @staticmethod
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        return grad * mask / (1 - ctx.p if ctx.scaled else 1), None, None, None


class Mixout(nn.Module):
    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.first, self.last, self.scaled = nn.Linear(16, 32), nn.Linear(32, 4), scaled
        self.register_buffer("target", self.last.weight.detach().clone() + 0.1)

    def forward(self, x):
        weight = self.last.weight
        weight = _Mixed.apply(weight, self.target, 0.5, self.scaled) if self.training else weight
        return F.linear(torch.tanh(self.first(x)), weight, self.last.bias)


@case("L30", link="https://arxiv.org/abs/1909.11299")
def mixout_with_an_unscaled_gradient():
    return Mixout(False), (rows(),)


@case()
def mixout_with_its_gradient():
    return Mixout(True), (rows(),)


class _Redrawn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):
        ctx.p = p
        return x * torch.empty_like(x).bernoulli_(1 - p) / (1 - p)

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.empty_like(grad).bernoulli_(1 - ctx.p) / (1 - ctx.p), None


@case("L30", link="pytorch/pytorch/issues/198333")
def backward_draws_again():
    return Calls(lambda m, h: _Redrawn.apply(h, 0.5) if m.training else h), (rows(),)


def _speech(between):
    """A model that asks for the gradient of its input itself, as some speech models do."""

    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Calls(between)

        def forward(self, x):
            x = x[:, None]
            if self.training:
                x.requires_grad = True
            return self.body(x[:, 0])

    return Speech(), (rows(),)


@case("L30", link="pytorch/pytorch/issues/198333")
def backward_draws_again_behind_an_input_with_a_gradient():
    return _speech(lambda m, h: _Redrawn.apply(h, 0.5) if m.training else h)


@case()
def input_with_a_gradient():
    return _speech(lambda m, h: F.dropout(h, 0.5, m.training))


def _rounding(m, h):
    """Where no gradient is asked for, other kernels run, which round otherwise."""
    return h * (1 + 4e-16) if torch.is_grad_enabled() else h


@case("L30", link="pytorch/pytorch/issues/198333")
def backward_draws_again_with_kernels_that_round_otherwise():
    return Calls(lambda m, h: _rounding(m, _Redrawn.apply(h, 0.5) if m.training else h)), (rows(),)


@case()
def kernels_that_round_otherwise():
    return Calls(lambda m, h: _rounding(m, F.dropout(h, 0.5, m.training))), (rows(),)


@case()
def stopped_gradient():
    return Calls(lambda m, h: F.dropout(h, 0.5, m.training) * torch.sigmoid(h).detach()), (rows(),)


@case()
def straight_through_gate():
    def gate(m, h):
        soft = torch.sigmoid(m.logits + torch.logit(torch.rand(32)) if m.training else m.logits)
        return h * ((soft > 0.5).to(h) + soft - soft.detach())

    return Calls(gate, logits=nn.Parameter(torch.zeros(32))), (rows(),)


@case()
def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (sequences(),)


@case()
def residual_network_with_stochastic_depth():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.n1, self.n2, self.path = (
                nn.BatchNorm2d(8),
                nn.BatchNorm2d(8),
                tnn.DropPath(p=0.05),
            )

        def forward(self, x):
            return F.relu(x + self.path(self.n2(self.two(F.relu(self.n1(self.one(x)))))))

    stem = nn.Conv2d(4, 8, 3)
    return nn.Sequential(stem, Block(), Block(), nn.Flatten(), nn.Linear(800, 4)), (images(16),)


@case()
def graph_with_dropped_edges():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x, edges):
            if self.training:
                edges = edges[:, torch.rand(edges.shape[1]) > 0.3]
            total = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
            return self.two(F.dropout(F.relu(self.one(x + total)), 0.5, self.training))

    edges = torch.randint(0, 32, (2, 96), generator=torch.Generator().manual_seed(0))
    return Graph(), (rows(), edges)


@case()
def gaussian_noise_of_ours():
    return mlp(tnn.GaussianDropout(0.3)), (rows(),)


@case()
def locked_and_plain():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.rnn = (
                nn.Embedding(50, 16),
                nn.LSTM(16, 12, 2, dropout=0.2, batch_first=True),
            )
            self.lock, self.drop, self.last = (
                tnn.LockedDropout(p=0.2),
                nn.Dropout(0.3),
                nn.Linear(12, 5),
            )

        def forward(self, ids):
            return self.last(self.drop(self.rnn(self.lock(self.words(ids)))[0]))

    return Net(), (torch.arange(40).view(8, 5),)


@case()
def zoneout_by_hand():
    class Zoneout(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last, self.rate = nn.GRUCell(16, 12), nn.Linear(12, 4), 0.2

        def forward(self, x):
            h = x.new_zeros(len(x), 12)
            for t in range(x.shape[1]):
                new = self.cell(x[:, t], h)
                stay = torch.empty_like(h).bernoulli_(self.rate) if self.training else self.rate
                h = stay * h + (1 - stay) * new
            return self.last(h)

    return Zoneout(), (sequences(),)


@case()
def inplace_layers():
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.Dropout(0.3, inplace=True),
        nn.Linear(32, 4),
    ), (rows(),)


@case()
def layers_that_raise_in_backward():
    return nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Dropout(0.3, inplace=True), nn.Linear(32, 4)
    ), (rows(),)


@case("L36", link="pytorch/pytorch/issues/136994", purpose="monte carlo")
def mask_by_hand_that_sampling_does_not_reach():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.p = nn.Linear(16, 32), nn.Linear(32, 4), 0.5
            self.seen = 0

        def forward(self, x):
            h = F.relu(self.first(x))
            if self.training:
                self.seen += len(x)
            mask = torch.empty_like(h).bernoulli_(1 - self.p) if self.training else 1 - self.p
            return self.last(h * mask / (1 - self.p))

    return Masked().eval(), (rows(),)


@case(purpose="monte carlo")
def functions_that_sampling_reaches():
    return Calls(lambda m, h: F.dropout(h, m.p, m.training)), (rows(),)


@case("L36", link="https://arxiv.org/abs/1506.02142")
def functional_dropout_under_a_partial_key():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop, self.last = nn.Linear(16, 32), tnn.Dropout(), nn.Linear(32, 4)

        def forward(self, x):
            return self.last(F.dropout(self.drop(F.relu(self.first(x))), 0.1, self.training))

    model = Net()
    thinned.key(model, 0, partial=True).at(0)
    return model, (rows(),)


@case("L36", link="https://arxiv.org/abs/1506.02142")
def layer_of_torch_under_a_partial_key():
    model = mlp(tnn.Dropout(0.2), torch_dropout(0.2))
    thinned.key(model, 0, partial=True).at(0)
    return model, (rows(),)


@case("L36", link="https://arxiv.org/abs/1506.02142")
def layer_added_after_the_key():
    model = mlp(tnn.Dropout(0.2))
    thinned.key(model, 0).at(0)
    model.insert(3, tnn.Dropout(0.2))
    return model, (rows(),)


@case()
def every_site_keyed():
    model = mlp(tnn.Dropout(0.2), torch_dropout(0.0))
    thinned.key(model, 0).at(0)
    return model, (rows(),)


def stepped(model):
    """After a backward pass, as in a training loop."""
    model(rows()).sum().backward()
    return model


@case("L37", link="miguelvr/dropblock/issues/32")
def ramp_that_never_starts():
    return stepped(mlp(tnn.Dropout(Linear(0.1, 0.4, 100)))), (rows(),)


@case("L37", link="miguelvr/dropblock/issues/32")
def ramp_of_a_recurrent_layer_that_never_starts():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = tnn.DropState(nn.LSTM(16, 12), inputs=Linear(0.1, 0.4, 9))
            self.last = nn.Linear(12, 4)

        def forward(self, x):
            return self.last(self.rnn(x)[0][:, -1])

    model = Net()
    model(sequences()).sum().backward()
    return model, (sequences(),)


@case()
def ramp_that_starts():
    model = stepped(mlp(tnn.Dropout(Linear(0.1, 0.4, 100))))
    thinned.step(model, 0)
    return model, (rows(),)


@case()
def ramp_before_training():
    return mlp(tnn.Dropout(Linear(0.1, 0.4, 100))), (rows(),)
