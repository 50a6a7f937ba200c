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
