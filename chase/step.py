"""One optimizer step, whatever surrounds it: mixed precision, accumulation, clipping, compilation, several processes.

Nothing in an ordinary step waits for the device.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from chase import distributed
from chase.average import Average
from chase.distillation import Distillation
from chase.settings import TrainingSettings
from chase.sparse.sparsifier import Sparsifier

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
GRAPHED = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that replay CUDA graphs, each time with the same memory for what a backward pass returns."""


class TrainingStep:
    """Calling it with images [b, ...] and labels [b] trains `model` on them and returns the mean loss, on the device.

    `average` is the moving average of the weights, where the settings ask for one. After the network's shapes have
    changed, `wrap` has to be called.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sparsifier: Sparsifier,
        settings: TrainingSettings,
        device: torch.device,
        distillation: Distillation | None = None,
    ) -> None:
        self.model, self.optimizer, self.sparsifier = model, optimizer, sparsifier
        self.settings, self.device, self.distillation = settings, device, distillation
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.average = Average(model, settings.ema) if settings.ema else None
        self.wrap()

    def wrap(self) -> None:
        """Put compilation and the averaging of gradients around the network as it is now."""
        forward: nn.Module = self.model
        if self.settings.compile != "off":
            torch.compiler.reset()  # what was compiled for former shapes counts towards a limit
            forward = torch.compile(forward, mode=self.settings.compile)  # type: ignore[assignment]
        self.forward = distributed.averaging(forward, self.device)
        if self.average:
            self.average.follow(self.model)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self.settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._guarded(x, y) if self.settings.skip_nonfinite else self._backward(x, y)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.sparsifier.mask_gradients()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update()
        return loss

    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradients of the mean loss; of a batch in parts, only the last part is averaged over processes."""
        parts = list(zip(x.chunk(self.settings.accumulate), y.chunk(self.settings.accumulate), strict=True))
        total = torch.zeros((), device=self.device)
        for index, (images, labels) in enumerate(parts):
            with self._alone(index < len(parts) - 1):
                with torch.autocast(self.device.type, AMP.get(self.settings.amp), enabled=self.settings.amp != "off"):
                    loss = self._loss(images, labels) * (len(labels) / len(y))
                self.scaler.scale(loss).backward()
            total += loss.detach()
            if index == 0 < len(parts) - 1 and self.settings.compile in GRAPHED:
                self._move_gradients()
        return total

    def _move_gradients(self) -> None:
        """Take the gradients out of memory that the next part overwrites; it then adds to them where they are."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.clone()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.forward(images)
        loss: Tensor = self.loss(logits, labels)
        return loss if self.distillation is None else self.distillation(loss, logits, images)

    def _alone(self, alone: bool) -> contextlib.AbstractContextManager[None]:
        no_sync: Any = getattr(self.forward, "no_sync", contextlib.nullcontext)
        return no_sync() if alone else contextlib.nullcontext()

    def _guarded(self, x: Tensor, y: Tensor) -> Tensor:
        """As `_backward`; but if a gradient is not finite, the loss is NaN, and neither buffers nor the coming
        optimizer step change anything. Fused optimizers look at the flag on the device."""
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        loss = self._backward(x, y)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        bad = ~torch.nn.utils.get_total_norm(gradients).isfinite()
        if self.scaler.is_enabled():
            bad = ~loss.isfinite()  # gradients that overflow are the scaler's business
        else:
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(bad, old, buffer))
        return torch.where(bad, torch.nan, loss)
