"""Small networks of every kind that exporters must get right, each with the shape of its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_exports import images, job_for, tiny
from torch import nn

from chase.artifact import Artifact
from chase.files import sha256
from chase.runtimes import open_runtime


def odd() -> nn.Sequential:
    """Widths of 37 and 111, and a convolution in three groups."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 37, 3), nn.BatchNorm2d(37), nn.ReLU(), nn.Conv2d(37, 111, 3), nn.BatchNorm2d(111), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(111, 5)]
    return nn.Sequential(*stem, nn.Conv2d(111, 111, 3, padding=1, groups=3), nn.ReLU(), *head)


def attention() -> nn.Module:
    """A transformer whose head is not zero, as torchvision's is."""
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    model: Any = VisionTransformer(image_size=16, patch_size=8, **sizes)
    nn.init.normal_(model.heads[-1].weight)
    network: nn.Module = model
    return network


def squeeze_excite() -> nn.Module:
    """Squeeze-and-excitation, hard swish and depthwise convolutions."""
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    network: nn.Module = mobilenet_v3_small(num_classes=5)
    return network


NETWORKS = {
    "tiny": (tiny, (3, 8, 8)),
    "odd": (odd, (3, 12, 12)),
    "attention": (attention, (3, 16, 16)),
    "squeeze_excite": (squeeze_excite, (3, 64, 64)),
}


def distances(name: str, write: Any, path: Path, format: str, **settings: Any) -> list[float]:
    """How far the file of a network is from it at batch 1, 2 and 3, relative to its largest logit."""
    build, shape = NETWORKS[name]
    model = build().eval()
    facts = write(job_for(model, images(1, shape)), path, **settings)
    artifact = Artifact(path=path, format=format, input_shape=shape, sha256=sha256(path), **facts)
    found = []
    with open_runtime(artifact) as runtime, torch.no_grad():
        for count in (1, 2, 3):
            expected = model(images(count, shape))
            found.append(float((runtime.run(images(count, shape)) - expected).abs().max() / expected.abs().max()))
    return found
