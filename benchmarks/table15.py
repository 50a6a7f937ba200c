"""The widths of a ResNet-50 that Chase learnt on ImageNet, as the paper's Table 15 (arXiv:2305.19454) states them.

80 % of the parameters and 40 % of the channels inside the blocks are gone; the skip connections are whole.
"""

from __future__ import annotations

WIDTHS: dict[str, tuple[tuple[int, int], ...]] = {
    "layer1": ((64, 64), (63, 62), (63, 64)),
    "layer2": ((128, 127), (111, 117), (106, 108), (122, 96)),
    "layer3": ((255, 241), (151, 143), (151, 108), (91, 74), (76, 41), (105, 44)),
    "layer4": ((499, 241), (146, 89), (489, 292)),
}
"""Output channels of conv1 and conv2 in every block of each stage."""

DENSE = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
"""The same in the dense network, for all blocks of a stage."""

SPARSITY: dict[str, tuple[tuple[float, float, float], ...]] = {
    "layer1": ((8.45, 44.61, 51.16), (53.13, 42.51, 36.48), (48.64, 52.23, 48.68)),
    "layer2": ((32.51, 71.73, 54.16), (79.24, 73.93, 69.68), (79.15, 74.98, 74.50), (78.87, 78.88, 71.11)),
    "layer3": (
        (57.36, 85.19, 65.11),
        (85.45, 75.48, 76.19),
        (83.22, 77.29, 76.97),
        (84.94, 63.20, 78.42),
        (84.05, 56.02, 73.70),
        (83.33, 63.34, 66.12),
    ),
    "layer4": ((74.52, 88.06, 65.89), (84.56, 62.39, 72.09), (82.31, 87.01, 62.42)),
}
"""Zeros among the weights of conv1, conv2 and conv3 in every block, in percent of the slim shapes."""

OUTSIDE = {
    "conv1": 5.11,
    "layer1.0.downsample.0": 65.58,
    "layer2.0.downsample.0": 86.72,
    "layer3.0.downsample.0": 97.36,
    "layer4.0.downsample.0": 99.55,
    "fc": 61.82,
}
"""The same for the other layers, by name."""


def sparsities() -> dict[str, float]:
    """The share of zeros in percent, by layer, in the order of the network."""
    found = {"conv1": OUTSIDE["conv1"]}
    for stage, blocks in SPARSITY.items():
        for block, shares in enumerate(blocks):
            found |= {f"{stage}.{block}.conv{number}": share for number, share in enumerate(shares, start=1)}
            if block == 0:
                found[f"{stage}.0.downsample.0"] = OUTSIDE[f"{stage}.0.downsample.0"]
    return {**found, "fc": OUTSIDE["fc"]}


def widths() -> dict[str, int]:
    """The output channels of each convolution inside a block, by the name of its weight in torchvision's resnet50."""
    return {
        f"{stage}.{block}.{layer}.weight": width
        for stage, blocks in WIDTHS.items()
        for block, pair in enumerate(blocks)
        for layer, width in zip(("conv1", "conv2"), pair, strict=True)
    }


def channel_sparsity() -> float:
    """The share of the channels inside the blocks that is gone."""
    dense = sum(2 * len(blocks) * DENSE[stage] for stage, blocks in WIDTHS.items())
    return 1 - sum(widths().values()) / dense
