"""Optimizers and learning rates from their settings; the rate is a function of the step, so it needs no state."""

from __future__ import annotations

import torch
from torch import nn

from chase import schedules
from chase.settings import OptimizerSettings, ScheduleSettings


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters, fused: one kernel saves more than masking costs."""
    groups = _decay_groups(model, settings)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)
    momentum, nesterov = settings.momentum, settings.nesterov
    optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, nesterov=nesterov, fused=True)
    if momentum:
        _begin_momentum(optimizer)
    return optimizer


def _begin_momentum(optimizer: torch.optim.SGD) -> None:
    """Start from no momentum: if the first step is skipped, as under a GradScaler, the fused kernel would leave its
    buffers as they were allocated."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def _decay_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, object]]:
    """All parameters with weight decay, or only those of two axes and more."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    exempt = [] if settings.norm_decay else [each for each in parameters if each.ndim < 2]
    ids = {id(each) for each in exempt}
    decayed = [each for each in parameters if id(each) not in ids]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": settings.weight_decay}]
    return [*groups, {"params": exempt, "weight_decay": 0.0}] if exempt else groups


def learning_rate(step: int, *, per_epoch: int, epochs: int, lr: float, schedule: ScheduleSettings) -> float:
    """The rate of step `step`, counted from 0; the warm-up ends at its full value after `warmup_epochs`."""
    epoch = step / per_epoch
    if epoch < schedule.warmup_epochs:
        return lr * schedules.warmup((step + 1) / per_epoch, epochs=schedule.warmup_epochs)
    if schedule.name == "multistep":
        return lr * schedules.multistep(epoch, milestones=schedule.milestones, gamma=schedule.gamma)
    if schedule.name == "cosine":
        return lr * schedules.cosine((epoch - schedule.warmup_epochs) / (epochs - schedule.warmup_epochs))
    return lr
