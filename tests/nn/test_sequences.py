"""Layers of activations on packed sequences: the noise of the padded batch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import thinned
from thinned import InputError, nn

LENGTHS = [2, 5, 4]
X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
LAYERS = {
    "locked": lambda: nn.LockedDropout(0.5),
    "locked, time first": lambda: nn.LockedDropout(0.5, layout="t b d"),
    "elements": lambda: nn.Dropout(0.4),
    "elements, time first": lambda: nn.Dropout(0.4, layout="t b d"),
    "classic": lambda: nn.Dropout(0.4, scale="classic"),
    "alpha": lambda: nn.AlphaDropout(0.4),
    "gaussian": lambda: nn.GaussianDropout(0.4),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_have_the_masks_of_the_padded_batch(name, in_order, training):
    model = torch.nn.Sequential(LAYERS[name]()).train(training)
    key = thinned.key(model, seed=4)
    lengths = [5, 4, 2] if in_order else LENGTHS
    packed = pack_padded_sequence(X, lengths, batch_first=True, enforce_sorted=in_order)
    key.at(0, samples=[30, 10, 20])
    y = model(packed)
    for ours, theirs in zip(y[1:], packed[1:], strict=True):
        assert ours is theirs  # batch sizes and orders
    key.at(0, samples=[30, 10, 20])
    time_first = name.endswith("time first")
    whole = model(X.transpose(0, 1)).transpose(0, 1) if time_first else model(X)
    padded, _ = pad_packed_sequence(y, batch_first=True)
    for n, length in enumerate(lengths):
        torch.testing.assert_close(padded[n, :length], whole[n, :length])
    changed = training or name == "classic"
    assert torch.equal(y.data, packed.data) != changed


def test_one_mask_for_all_steps_of_a_packed_example():
    packed = pack_padded_sequence(torch.ones_like(X), LENGTHS, True, enforce_sorted=False)
    padded, _ = pad_packed_sequence(nn.LockedDropout(0.5)(packed), batch_first=True)
    for n, length in enumerate(LENGTHS):
        assert (padded[n, :length] == padded[n, :1]).all()
        assert set(padded[n, 0].tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LockedDropout(0.5, inplace=True), "inplace=True of LockedDropout needs a tensor, but"),
        (nn.Dropout1d(0.5), r"Dropout1d\(\): argument 'input' must be Tensor, not PackedSequence"),
        (nn.SpatialDropout(0.5), "SpatialDropout.*not PackedSequence; write torch.nn.utils.rnn."),
        (nn.DropBlock(0.1, 2), "DropBlock.*not PackedSequence"),
        (nn.DropHead(0.1), "drop_head.*'heads' must be Tensor, not PackedSequence"),
    ],
)
def test_refused(layer, message):
    packed = pack_padded_sequence(X, LENGTHS, True, enforce_sorted=False)
    with pytest.raises(InputError, match=message):
        layer(packed)
