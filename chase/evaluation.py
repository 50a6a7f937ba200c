"""Accuracy of a network in memory; that of files is measured in `chase.benchmarks.accuracy`."""

from __future__ import annotations

import torch
from torch import nn

from chase import distributed
from chase.data import Split


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 256) -> float:
    """Top-1 accuracy in percent, in evaluation mode; each process looks at its share of the images."""
    was_training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    mine = torch.arange(distributed.rank(), len(split), distributed.processes())
    part = split if distributed.processes() == 1 else split.subset(mine)
    for x, y in part.batches(batch_size, device=device) if len(mine) else ():
        right += (model(x).argmax(1) == y).sum()
    model.train(was_training)
    return 100 * int(distributed.total(right)) / len(split)
