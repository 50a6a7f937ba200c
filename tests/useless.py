"""A network half of whose channels are useless, as a finished run would hold it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from chase.checkpoint import InputSpec, Network
from chase.data import Split
from chase.data.memory import Augmentation, MemorySplit
from chase.models.mlp import MLP
from chase.recipe import Recipe
from chase.sparse import Masks

SHAPE = (1, 4, 4)
USEFUL, USELESS = 4, 4


def recipe(validation: float = 0.25, method: str = "rigl") -> Recipe:
    sparsity = 0.0 if method == "dense" else 0.5
    blocks = {"model": {"name": "mlp", "side": 4, "hidden": [USEFUL + USELESS]}, "data": {"validation": validation}}
    return Recipe.from_dict({**blocks, "method": {"name": method, "sparsity": sparsity}})


def model() -> nn.Module:
    """Logits [n, 4]: useful channel k is pixel k; the useless ones hold a little of some pixels, and are not read."""
    net = MLP(num_classes=4, in_channels=1, side=4, hidden=(USEFUL + USELESS,))
    first, last = net[1], net[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        first.weight[:USEFUL, :USEFUL] = 8 * torch.eye(USEFUL)
        first.weight[USEFUL:, 8:] = 0.01
        last.weight[:, :USEFUL] = torch.eye(4)
    return net.eval()


def network(*, validation: float = 0.25, method: str = "rigl") -> Network:
    net, chosen = model(), recipe(validation, method)
    content = {"recipe": chosen.to_dict(), "masks": Masks.dense(net).state_dict(), "facts": {}}
    spec = InputSpec(shape=SHAPE, classes=("0", "1", "2", "3"), mean=(0.0,), std=(1.0,))
    return Network(path=Path("useless.pt"), kind="masked", model=net, input=spec, content=content)


def split(images: int = 64) -> Split:
    """Images whose label is the pixel that is lit among the first four: the network is right on all of them."""
    labels = torch.arange(images) % 4
    pixels = torch.randint(40, (images, 16), generator=torch.Generator().manual_seed(0))
    pixels[:, :4] = 0
    pixels[torch.arange(images), labels] = 255
    shaped = pixels.view(images, *SHAPE).to(torch.uint8)
    return MemorySplit(shaped, labels, mean=(0.0,), std=(1.0,), augmentation=Augmentation(pad=0, flip=False))
