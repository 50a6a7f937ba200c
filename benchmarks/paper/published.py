"""The numbers that the paper (arXiv:2305.19454) prints, typed in once, table by table.

A line is `label | values`, in the order of the table's columns: `93.85±0.05`, or `93.35` where no deviation is
printed. `–` is a cell that the paper leaves empty, `?` one that is garbled in the text this was typed from. What
follows `#` is a remark on every value of its line. Accuracies are top-1 in percent, FLOPs relative to the dense
network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GARBLED = "garbled in the text that the numbers were typed from"
EXCHANGED = "as printed; above the dense network, probably exchanged with the same row of ResNet-50"
EXCHANGED_BACK = "as printed; probably exchanged with the same row of VGG-19"


@dataclass(frozen=True)
class Published:
    """A printed number and its deviation; None for what is not printed or not legible, which the remark explains."""

    mean: float | None
    std: float | None = None
    remark: str = ""


def number(text: str, remark: str = "") -> Published | None:
    """The number that `text` prints; None for an empty cell.

    >>> number("93.85±0.05")
    Published(mean=93.85, std=0.05, remark='')
    """
    if text == "–":
        return None
    if text == "?":
        return Published(None, remark=GARBLED)
    mean, _, std = text.partition("±")
    return Published(float(mean), float(std) if std else None, remark)


def grid(text: str, columns: Sequence[str]) -> dict[str, dict[str, Published | None]]:
    """The numbers of a table by row and column.

    Raises:
        ValueError: if a line has another number of values than there are columns.
    """
    rows = {}
    for line in text.strip().splitlines():
        content, _, remark = line.partition("#")
        label, _, values = content.partition("|")
        cells = [number(each, remark.strip()) for each in values.split()]
        rows[label.strip()] = dict(zip(columns, cells, strict=True))
    return rows


SPARSITIES = ("90 %", "95 %", "98 %")

TABLE2 = grid(
    """
    Standard RigL     | 76.89±0.43 76.89±0.43 76.89±0.43
    random            | 43.01±9.62 11.74±2.79 3.79±1.32
    network-slimming  | 76.82±0.43 76.67±0.39 66.57±2.95
    mmm               | 62.31±8.66 19.34±14.88 5.32±2.88
    mmm-reverse       | 5.28±2.52  2.04±0.30  1.72±0.40
    ws                | 76.86±0.43 76.79±0.39 62.79±5.42
    ws-reverse        | 2.9±0.91   2.43±0.07  2.03±0.38
    umm               | 76.88±0.43 76.90±0.42 71.77±2.31
    umm-reverse       | 3.18±0.48  2.23±0.26  1.51±0.35
    """,
    ("10 %", "20 %", "30 %"),
)
"""ResNet-50 on CIFAR-100: accuracy after one-shot pruning of so many channels, by criterion."""

TABLE3_COLUMNS = tuple(f"{data} {sparsity}" for data in ("CIFAR-10", "CIFAR-100") for sparsity in SPARSITIES)
TABLE3 = {
    "VGG-19": grid(
        f"""
        Dense                    | 93.85±0.05 93.85±0.05 93.85±0.05 73.43±0.08 73.43±0.08 73.43±0.08
        SynFlow                  | 93.35 93.45 92.24 71.77 71.72 70.94
        GraSP                    | 93.30 93.04 92.19 71.95 71.23 68.90
        SNIP                     | 93.63 93.43 ? 72.84 71.83 ?
        Chase+GraSP (S_c = 0.5)  | 94.06±0.22 93.88±0.06 ? 73.17±0.09 72.81±0.11 ?
        Chase+SNIP (S_c = 0.5)   | 94.83±0.06 95.08 ? 78.26±0.26 77.16±0.04 ? # {EXCHANGED}
        Deep-R                   | 90.81 89.59 86.77 66.83 63.46 59.58
        SET                      | 93.61±0.13 93.09±0.25 91.81±0.04 72.58±0.12 71.48±0.12 69.04±0.15
        RigL                     | 93.60±0.09 93.05±0.06 91.95±0.15 72.92±0.31 71.85±0.53 69.57±0.24
        MEST                     | 93.61±0.36 93.46±0.41 92.30±0.44 72.52±0.37 71.21±0.41 69.02±0.34
        Chase (S_c = 0)          | 94.02±0.13 93.89±0.12 93.60±0.05 73.54±0.12 73.05±0.25 72.19±0.33
        Chase (S_c = 0.5)        | 94.03±0.11 93.84±0.08 93.69±0.03 73.43±0.12 73.04±0.22 71.85±0.18
        """,
        TABLE3_COLUMNS,
    ),
    "ResNet-50": grid(
        f"""
        Dense                    | 94.75±0.01 94.75±0.01 94.75±0.01 78.23±0.18 78.23±0.18 78.23±0.18
        SynFlow                  | 92.49 91.22 88.82 73.37 70.37 62.17
        SNIP                     | 92.65 90.86 – 73.14 69.25 –
        GraSP                    | 92.47 91.32 88.77 73.28 70.29 62.12
        Chase+SNIP (S_c = 0.5)   | 93.99±0.09 93.89±0.10 – 73.44±0.02 72.80±0.05 – # {EXCHANGED_BACK}
        Chase+GraSP (S_c = 0.5)  | 94.78±0.35 94.71±0.07 94.36±0.15 77.70±0.24 77.65±0.22 75.74±0.24
        Deep-R                   | 91.62 89.84 86.45 66.78 63.90 58.47
        SET                      | 94.65±0.01 94.05±0.06 92.98±0.18 76.14±0.54 75.90±0.19 73.21±0.06
        RigL                     | 94.42±0.17 94.22±0.23 93.20±0.08 77.18±0.42 76.50±0.26 74.84±0.13
        Chase (S_c = 0)          | 94.95±0.02 94.87±0.02 94.13±0.17 78.11±0.11 78.14±0.28 76.88±0.31
        Chase (S_c = 0.5)        | 94.88±0.03 94.85±0.18 94.20±0.18 77.52±0.30 77.48±0.62 77.03±0.29
        """,
        TABLE3_COLUMNS,
    ),
    "ResNet-20": grid(
        """
        Dense                    | 92.55±0.02 92.55±0.02 92.55±0.02 68.65±0.19 68.65±0.19 68.65±0.19
        SNIP                     | 88.06±0.07 84.21±0.33 74.61±0.40 54.40±0.09 42.45±0.65 24.55±0.56
        GraSP                    | 88.35±0.12 84.95±0.30 78.25±0.22 55.49±0.08 45.96±0.15 30.67±0.94
        SET                      | 90.16±0.09 87.70±0.09 83.41±0.04 62.08±0.16 54.77±0.74 43.70±0.92
        RigL                     | 89.82±0.10 87.44±0.33 79.16±0.96 60.49±0.17 52.97±0.23 31.94±1.52
        Chase (S_c = 0)          | 90.43±0.16 88.65±0.29 85.26±0.29 62.18±0.05 57.38±0.41 47.06±0.65
        Chase (S_c = 0.5)        | 89.98±0.45 88.65±0.02 85.24±0.18 60.88±0.19 55.78±0.37 46.91±0.41
        """,
        TABLE3_COLUMNS,
    ),
}
"""Test accuracy on CIFAR-10/100, by network and method."""

TABLE4_MEASURES = ("accuracy", "train FLOPs", "test FLOPs", "GPU FLOPs")
TABLE4 = grid(
    """
    Dense                    | 76.8±0.09  1    1    1    76.8±0.09  1    1    1
    SET                      | 72.9±0.39  0.23 0.23 1.00 69.6±0.23  0.10 0.10 1.00
    DSR                      | 73.3       0.40 0.40 1.00 71.6       0.30 0.30 1.00
    SNFS                     | 75.2±0.11  0.61 0.42 1.00 72.9±0.06  0.50 0.24 1.00
    RigL                     | 75.1±0.05  0.42 0.42 1.00 73.0±0.04  0.25 0.24 1.00
    MEST                     | 75.39      0.23 0.21 1.00 72.58      0.12 0.11 1.00
    RigL-ITOP                | 75.84±0.05 0.42 0.42 1.00 73.82±0.08 0.25 0.24 1.00
    Chase (S_c = 0)          | 75.87      0.37 0.34 1.00 74.70      0.24 0.21 1.00
    Chase (S_c = 0.3)        | 75.62      0.39 0.36 0.75 74.35      0.25 0.22 0.74
    Chase (S_c = 0.4)        | 75.27      0.39 0.37 0.68 74.03      0.26 0.23 0.67
    MEST 1.5×                | 75.73      0.40 0.21 1.00 75.00      0.20 0.11 1.00
    Chase 1.5× (S_c = 0)     | 76.67      0.55 0.34 1.00 75.77      0.36 0.21 1.00
    Chase 1.5× (S_c = 0.3)   | 76.23      0.57 0.36 0.75 75.20      0.37 0.22 0.74
    Chase 1.5× (S_c = 0.4)   | 76.00      0.59 0.37 0.68 74.87      0.38 0.23 0.67
    """,
    [f"{sparsity} {measure}" for sparsity in ("80 %", "90 %") for measure in TABLE4_MEASURES],
)
"""ResNet-50 on ImageNet; FLOPs are relative to the dense network's 3.2e18 (training) and 8.2e9 (test)."""

TABLE5_COLUMNS = ("accuracy", "throughput", "latency")
TABLE5 = grid(
    """
    CIFAR-100, VGG-19: RigL                            | 72.92±0.31 15274.31 8.42
    CIFAR-100, VGG-19: Chase (S_c = 0.5)               | 73.43±0.12 24981.77 5.37
    CIFAR-100, ResNet-50: RigL                         | 77.18±0.42 3095.13 44.23
    CIFAR-100, ResNet-50: Chase (S_c = 0.5)            | 77.52±0.30 3958.67 34.76
    ImageNet, ResNet-50: RigL                          | 73.00±0.04 59.50 35.79
    ImageNet, ResNet-50: Chase (S_c = 0.5)             | 73.39±0.04 78.19 27.55
    ImageNet, ResNet-50: Chase prune skip (S_c = 0.5)  | 72.71±0.03 99.97 21.55
    ImageNet, ResNet-50: Chase (S_c = 0.4)             | 74.03±0.03 71.54 30.13
    ImageNet, ResNet-50: Chase prune skip (S_c = 0.4)  | 73.24±0.03 87.38 24.53
    """,
    TABLE5_COLUMNS,
)
"""90 % sparsity, RTX 2080 Ti, float32: images per second, and ms a batch (of 128 on CIFAR-100, of 2 on ImageNet)."""

TABLE6 = {
    "VGG-19": grid(
        """
        0.2 | 73.45±0.27 72.98±0.32 71.69±0.21
        0.5 | 73.16±0.06 72.39±0.17 71.74±0.06
        0.8 | 72.26±0.24 72.20±0.27 71.28±0.26
        """,
        SPARSITIES,
    ),
    "ResNet-50": grid(
        """
        0.2 | 77.47±0.40 77.43±0.36 76.68±0.27
        0.5 | 77.54±0.40 77.31±0.34 76.64±0.26
        0.8 | 76.76±0.66 77.26±0.73 76.67±0.29
        """,
        SPARSITIES,
    ),
}
"""CIFAR-100, S_c = 0.5, ΔT = 4000: accuracy by the minimum layer ratio β."""

TABLE7 = {
    "VGG-19": grid(
        """
        SET                     | 93.61±0.13 93.09±0.25 91.81±0.04 72.58±0.12 71.48±0.12 69.04±0.15
        SET+GACP (S_c = 0.5)    | 93.78±0.16 93.56±0.05 92.66±0.10 72.93±0.18 71.89±0.20 70.03±0.13
        RigL                    | 93.60±0.09 93.05±0.06 91.95±0.15 72.92±0.31 71.85±0.53 69.57±0.24
        RigL+GACP (S_c = 0.5)   | 93.91±0.14 93.70±0.06 92.80±0.06 72.97±0.09 71.80±0.17 69.83±0.20
        """,
        TABLE3_COLUMNS,
    ),
    "ResNet-50": grid(
        """
        SET                     | 94.65±0.01 94.05±0.06 92.98±0.18 76.14±0.54 75.90±0.19 73.21±0.06
        SET+GACP (S_c = 0.5)    | 94.52±0.17 94.51±0.19 93.23±0.13 76.75±0.47 75.67±0.64 73.86±0.12
        RigL                    | 94.42±0.17 94.22±0.23 93.20±0.08 77.18±0.42 76.50±0.26 74.84±0.13
        RigL+GACP (S_c = 0.5)   | 94.45±0.10 94.41±0.13 93.50±0.16 76.86±0.56 76.33±0.63 74.92±0.27
        """,
        TABLE3_COLUMNS,
    ),
}
"""Gradual amenable channel pruning on top of SET and RigL."""

TABLE8 = {
    "VGG-19": grid(
        """
        1000  | 73.07±0.26 72.72±0.1  71.69±0.35
        4000  | 73.16±0.06 72.39±0.17 71.74±0.06
        8000  | 73.15±0.23 72.81±0.07 71.94±0.13
        16000 | 72.88±0.24 72.66±0.04 71.79±0.43
        """,
        SPARSITIES,
    ),
    "ResNet-50": grid(
        """
        1000  | 77.52±0.30 77.48±0.62 77.03±0.29
        4000  | 77.54±0.40 77.31±0.34 76.64±0.26
        8000  | 77.46±0.47 77.49±0.47 76.74±0.27
        16000 | 77.02±0.25 76.96±0.37 76.77±0.35
        """,
        SPARSITIES,
    ),
}
"""CIFAR-100, S_c = 0.5, β = 0.5: accuracy by the channel pruning frequency ΔT in iterations."""

TABLE12 = grid(
    """
    90 %, Chase (S_c = 0.2)             | 74.40 69.30 30.89
    90 %, Chase (S_c = 0.3)             | 74.35 70.07 30.39
    90 %, Chase (S_c = 0.4)             | 74.03 71.54 30.13
    90 %, Chase (S_c = 0.5)             | 73.39 78.19 27.55
    90 %, Chase (S_c = 0.6)             | 72.85 82.98 26.09
    90 %, Chase (S_c = 0.7)             | 71.98 86.26 25.10
    90 %, Chase prune skip (S_c = 0.2)  | 74.15 72.57 29.38
    90 %, Chase prune skip (S_c = 0.3)  | 74.06 78.30 27.33
    90 %, Chase prune skip (S_c = 0.4)  | 73.24 87.38 24.53
    90 %, Chase prune skip (S_c = 0.5)  | 72.71 99.97 21.55
    90 %, Chase prune skip (S_c = 0.6)  | 71.62 107.99 20.03
    90 %, Chase prune skip (S_c = 0.7)  | 67.15 123.30 17.56
    80 %, Chase (S_c = 0.2)             | 75.82 66.39 32.05
    80 %, Chase (S_c = 0.3)             | 75.62 69.30 30.81
    80 %, Chase (S_c = 0.4)             | 75.27 73.32 29.22
    80 %, Chase (S_c = 0.5)             | 74.76 76.68 28.05
    80 %, Chase (S_c = 0.6)             | 73.77 80.51 26.81
    80 %, Chase (S_c = 0.7)             | 72.88 86.12 25.15
    80 %, Chase prune skip (S_c = 0.2)  | 75.27 72.47 29.38
    80 %, Chase prune skip (S_c = 0.3)  | 74.96 78.60 27.20
    80 %, Chase prune skip (S_c = 0.4)  | 74.58 87.91 24.38
    80 %, Chase prune skip (S_c = 0.5)  | 73.53 98.43 21.86
    80 %, Chase prune skip (S_c = 0.6)  | 71.70 104.82 20.58
    80 %, Chase prune skip (S_c = 0.7)  | 67.53 123.46 17.57
    """,
    TABLE5_COLUMNS,
)
"""As Table 5, ResNet-50 on ImageNet, batches of 2."""

TABLE14 = {
    **grid(
        """
        ResNet-32/CIFAR-100 blocks.3.conv1  | 0.23 0.38 0.38 0.63
        ResNet-32/CIFAR-100 blocks.6.conv1  | 0.16 0.19 0.28 0.32
        VGG-16/CIFAR-100 features.0         | 0.11 0.22 0.30 0.39
        VGG-16/CIFAR-100 features.7         | 0.19 0.20 0.17 0.65
        """,
        ("10", "20", "40", "100"),
    ),
    **grid(
        """
        ResNet-50/ImageNet layer3.1.conv2   | 0.14 0.18 0.21 0.33
        ResNet-50/ImageNet layer4.1.conv1   | 0.44 0.49 0.49 0.56
        ViT-Small/ImageNet blocks.0.mlp.fc1 | 0.11 0.14 0.15 0.31
        ViT-Small/ImageNet blocks.8.mlp.fc1 | 0.20 0.22 0.21 0.33
        MLP/CIFAR-10 fc1                    | 0.21 0.21 0.30 0.37
        MLP/CIFAR-10 fc2                    | 0.36 0.42 0.49 0.63
        """,
        ("5", "10", "20", "50"),
    ),
}
"""The share of sparse amenable channels (UMM, v = 20 %), by the epochs after which it was looked at."""
