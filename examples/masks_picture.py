"""Draw what eight methods drop: ``python examples/masks_picture.py docs/masks.png``.

Each panel shows the factor of a layer on a tensor of ones: pale where an element is dropped,
darker where it is scaled up. All are drawn from one key, so the picture never changes.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap

from thinned import Drop, Key, presets
from thinned.functional import drop

EXAMPLES, CHANNELS, SIDE = 3, 4, 14
PANELS: tuple[tuple[str, str, Drop, tuple[int, ...]], ...] = (
    ("Dropout(0.5)", "each element", presets.dropout(0.5), (EXAMPLES, CHANNELS, SIDE, SIDE)),
    ("SpatialDropout(0.5)", "each channel", presets.spatial_dropout(0.5), (3, 4, SIDE, SIDE)),
    ("DropBlock(0.3, 5)", "blocks of a map", presets.drop_block(0.3, 5), (3, 4, SIDE, SIDE)),
    ("DropPath(0.5)", "each example's branch", presets.drop_path(0.5), (3, 4, SIDE, SIDE)),
    (
        "BatchwiseDropout(0.5)",
        "one mask for the batch",
        presets.batchwise_dropout(0.5),
        (3, 4, SIDE, SIDE),
    ),
    (
        "GaussianDropout(0.5)",
        "noise, nothing is zeroed",
        presets.gaussian_dropout(0.5),
        (3, 4, SIDE, SIDE),
    ),
    (
        "LockedDropout(0.5)",
        "a feature, at all time steps",
        presets.locked_dropout(0.5),
        (3, 14, 62),
    ),
    ("TokenDropout(0.3)", "whole tokens", presets.token_dropout(0.3), (3, 14, 62)),
)


def tiles(factor: np.ndarray) -> np.ndarray:
    """Examples as rows; channels, or the features of a sequence, as columns; NaN between them."""
    if factor.ndim == 3:  # [b, t, d]: time goes down
        factor = factor[:, None]
    rows = []
    for example in factor:
        row = np.concatenate(
            [np.pad(c, ((1, 1), (1, 1)), constant_values=np.nan) for c in example], axis=1
        )
        rows.append(row)
    return np.concatenate(rows, axis=0)


def main(path: str) -> None:
    figure, axes = plt.subplots(2, 4, figsize=(11, 5.2), layout="constrained")
    colors = LinearSegmentedColormap.from_list("kept", ["#eef2f6", "#2f7fb8", "#08264a"])
    colors.set_bad("#ffffff")
    for axis, (title, what, spec, shape) in zip(axes.flat, PANELS, strict=True):
        factor = drop(torch.ones(shape), spec, key=Key(seed=8)).numpy()
        axis.imshow(tiles(factor), cmap=colors, vmin=0, vmax=3.6, interpolation="nearest")
        for example in range(shape[0]):  # a frame around each example
            height = tiles(factor).shape[0] / shape[0]
            axis.add_patch(
                plt.Rectangle(
                    (-0.5, example * height - 0.5), tiles(factor).shape[1], height, fill=False,
                    edgecolor="#667788", linewidth=0.8,
                )
            )  # fmt: skip
        axis.set_title(title, fontsize=11, fontweight="bold", color="#223344")
        axis.set_xlabel(what, fontsize=9.5, color="#445566")
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "masks.png")
