"""torch's fused and nested fast paths look past child modules: dropout has to draw all the same."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import thinned

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
PADDING = torch.arange(5)[None] >= torch.tensor([[5], [3], [4]])


class Encoder(nn.Module):
    def __init__(self, norm_first=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.5, batch_first=True, norm_first=norm_first
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)

    def forward(self, x):
        return self.body(x, src_key_padding_mask=PADDING)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.body(x, src_key_padding_mask=PADDING)


class Attention(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.body = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x):
        y, _ = self.body(x, x, x, key_padding_mask=PADDING, need_weights=self.need_weights)
        return y


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.body = nn.TransformerDecoder(layer, 2)

    def forward(self, x):
        return self.body(x, x, memory_key_padding_mask=PADDING)


MODELS = {
    "encoder": Encoder,
    "encoder, norm first": lambda: Encoder(norm_first=True),
    "layer": Layer,
    "attention": lambda: Attention(False),
    "attention with weights": lambda: Attention(True),
    "decoder": Decoder,
}
SURROUNDED = {
    "gradients": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def reals(y):
    """The rows that are no padding; torch's nested path makes zeros of the others."""
    return y.float()[~PADDING[:, : y.shape[1]]]


def built(name, replaced):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    if replaced:
        thinned.replace(model)
    return model


@pytest.mark.parametrize("surrounded", SURROUNDED)
@pytest.mark.parametrize("replaced", [False, True], ids=["stock", "replaced"])
@pytest.mark.parametrize("name", MODELS)
def test_sampling_draws_and_evaluation_is_that_of_torch(name, replaced, surrounded):
    """Before and after, the result is that of torch's model in evaluation; autocast rounds."""
    model, stock = built(name, replaced), built(name, False)
    with SURROUNDED[surrounded]():
        want = reals(stock(X))
        torch.testing.assert_close(reals(model(X)), want, rtol=2e-2, atol=2e-2)
        with thinned.sampling(model):
            first, second = reals(model(X)), reals(model(X))
            assert not torch.equal(first, second)
            assert torch.isfinite(first).all()
        torch.testing.assert_close(reals(model(X)), want, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["encoder", "decoder", "attention"])
def test_every_site_draws_under_sampling(name):
    """With all rates but one at 0, the passes differ: no fused kernel looks past a single site."""
    count = len([s for s in thinned.find(built(name, False)) if s.rate])
    assert count
    for kept in range(count):
        model = built(name, False)
        holders = [
            (m, a)
            for m in model.modules()
            for a in ("p", "dropout")
            if isinstance(getattr(m, a, None), float) and getattr(m, a) > 0
        ]
        for number, (module, attribute) in enumerate(holders):
            setattr(module, attribute, 0.5 if number == kept else 0.0)
        with torch.no_grad(), thinned.sampling(model):
            assert not torch.equal(reals(model(X)), reals(model(X))), holders[kept]


@pytest.mark.parametrize("replaced", [False, True], ids=["stock", "replaced"])
@pytest.mark.parametrize("name", ["encoder", "layer", "attention"])
def test_compiled(name, replaced):
    model = built(name, replaced)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        want = reals(compiled(X))
        with thinned.sampling(compiled):
            assert not torch.equal(reals(compiled(X)), reals(compiled(X)))
        torch.testing.assert_close(reals(compiled(X)), want)


@pytest.mark.filterwarnings("ignore")  # torch's quantization is deprecated
@pytest.mark.skipif(
    not torch.backends.quantized.supported_engines or torch.backends.quantized.engine == "none",
    reason="this build of torch has no quantized engine",
)
def test_dynamically_quantized():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8)).eval()
    for replaced in (False, True):
        if replaced:
            thinned.replace(model)
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        with torch.no_grad():
            assert torch.equal(quantized(X), quantized(X))
            with thinned.sampling(quantized):
                assert not torch.equal(quantized(X), quantized(X))
