"""LayerNorms that survive the loss of channels: statistics over the dense width, of which the rest is zero."""

from __future__ import annotations

from torch import Tensor, nn

from chase.slimming.modules import full_name


class WideLayerNorm(nn.LayerNorm):
    """LayerNorm over `dense_width` channels of which only the first k are stored; the others are zero.

    With x [..., k] and D = dense_width: the mean is Σx / D, the variance (Σ(x − mean)² + (D − k) · mean²) / D. Modules
    become one by a change of class, so its settings are plain attributes.
    """

    dense_width: int
    axis = -1

    def forward(self, x: Tensor) -> Tensor:
        """[..., k] to [..., k]."""
        mean = x.sum(self.axis, keepdim=True) / self.dense_width
        centred = x - mean
        absent = self.dense_width - x.shape[self.axis]
        total = centred.square().sum(self.axis, keepdim=True) + absent * mean.square()
        result = centred * (total / self.dense_width + self.eps).rsqrt() * self._shaped(self.weight)
        return result if self.bias is None else result + self._shaped(self.bias)

    def _shaped(self, vector: Tensor) -> Tensor:
        return vector


class WideLayerNorm2d(WideLayerNorm):
    """The same over the second axis of [b, k, h, w]."""

    axis = 1

    def _shaped(self, vector: Tensor) -> Tensor:
        return vector.view(-1, 1, 1)


WIDE: dict[str, type[WideLayerNorm]] = {
    "torch.nn.modules.normalization.LayerNorm": WideLayerNorm,
    "timm.layers.norm.LayerNorm": WideLayerNorm,
    "timm.layers.norm.LayerNorm2d": WideLayerNorm2d,
    "torchvision.models.convnext.LayerNorm2d": WideLayerNorm2d,
}
"""The class that a LayerNorm becomes when it loses channels, by the full name of its own."""


def wide(kind: type) -> type[WideLayerNorm] | None:
    """What a LayerNorm of this class becomes; None where it is not known to be one."""
    return kind if issubclass(kind, WideLayerNorm) else WIDE.get(full_name(kind))
