"""LayerNorms that lose channels and still compute with their dense width."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hazards import half_dead, scramble_
from torch import Tensor, nn

from chase.checkpoint import InputSpec, load_network
from chase.exporters import export
from chase.models import MODELS
from chase.runtimes import open_runtime
from chase.slimming import Freedoms, Slimmed, channel_groups, prunable, slimmed
from chase.slimming.norms import WideLayerNorm, WideLayerNorm2d, wide
from chase.slimming.stage import save_slim
from chase.slimming.surgery import rebuild_
from chase.sparse import Chase, Masks
from chase.sparse.start import initial_masks

NORMS = Freedoms(norms=True)
IMAGE = torch.zeros(1, 3, 8, 8)


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of [b, c, h, w], as ConvNeXt has it."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


def wide_norm(kind: type[WideLayerNorm], stored: int, dense: int, *, bias: bool = True) -> WideLayerNorm:
    norm = kind(stored, bias=bias)
    norm.dense_width = dense
    return norm


def test_the_statistics_are_those_over_the_dense_width() -> None:
    """x = (3, 1) of 4 channels: the mean is 1, the variance (4 + 0 + 1 + 1) / 4 = 3/2."""
    norm = wide_norm(WideLayerNorm, 2, 4)
    norm.eps = 0.0
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.5, -1.0]))

    answer = norm(torch.tensor([[3.0, 1.0]]))

    assert torch.allclose(answer, torch.tensor([[2 * 2 / 1.5**0.5 + 0.5, -1.0]]))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(2, 5), (2, 7, 5), (2, 3, 4, 5)], ids=str)
def test_it_is_a_layer_norm_of_which_the_rest_is_zero(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    dense, norm = nn.LayerNorm(8, bias=bias).double(), wide_norm(WideLayerNorm, 5, 8, bias=bias).double()
    scramble_(dense)
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    with torch.no_grad():
        norm.weight.copy_(dense.weight[:5])
        if bias:
            norm.bias.copy_(dense.bias[:5])

    expected = dense(nn.functional.pad(x, (0, 3)))[..., :5]

    assert torch.allclose(norm(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_over_the_second_axis_it_is_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    flat = wide_norm(WideLayerNorm, 5, 8, bias=bias).double()
    scramble_(flat)
    norm = wide_norm(WideLayerNorm2d, 5, 8, bias=bias).double()
    norm.load_state_dict(flat.state_dict())
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)

    assert torch.allclose(norm(x), flat(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [WideLayerNorm, WideLayerNorm2d])
def test_at_its_dense_width_it_is_a_plain_layer_norm(kind: type[WideLayerNorm]) -> None:
    x = torch.randn(2, 6, 6, 6)
    norm, plain = wide_norm(kind, 6, 6), (nn.LayerNorm(6) if kind is WideLayerNorm else LayerNorm2d(6))

    torch.testing.assert_close(norm(x), plain(x))


def test_what_becomes_one_is_what_is_known_to_be_one() -> None:
    from timm.layers.norm import LayerNorm2d as Timm2d
    from torchvision.models.convnext import LayerNorm2d as Vision2d

    assert wide(nn.LayerNorm) is wide(WideLayerNorm) is WideLayerNorm
    assert wide(Timm2d) is wide(Vision2d) is wide(WideLayerNorm2d) is WideLayerNorm2d
    assert wide(LayerNorm2d) is wide(nn.GroupNorm) is wide(nn.RMSNorm) is None


class Block(nn.Module):
    """Tokens [b, n, 8]: an embedding, a pre-norm block with a gate instead of attention, a final norm, a head."""

    def __init__(self, norm: Any = nn.LayerNorm, bias: bool = True) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, stride=2)
        self.position = nn.Parameter(torch.randn(1, 16, 8))
        self.norm1, self.norm2 = norm(8, bias=bias), norm(8, bias=bias)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.down(nn.functional.gelu(self.up(self.norm1(x))))
        y: Tensor = self.head(self.norm2(x).mean(1))
        return y


def convnext() -> Any:
    """A ConvNeXt of two blocks from torchvision, with norms over [b, c, h, w] and over [b, h, w, c]."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    torch.manual_seed(0)
    return ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=4)


CNX = torch.zeros(1, 3, 16, 16)


def slim_of(model: nn.Module, example: Tensor) -> tuple[Masks, Slimmed]:
    """Half of every channel that may leave is gone; exactly, without masks over what reads them."""
    scramble_(model)
    groups = prunable(channel_groups(model, example, freedoms=NORMS), prune_skip=True)
    masks = half_dead(model, groups)
    return masks, slimmed(model, masks, example=example, round_to=1)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_channels_of_a_transformer_leave_through_its_norms(bias: bool) -> None:
    model = Block(bias=bias).eval()

    masks, result = slim_of(model, IMAGE)

    assert {group.name: (group.size, group.skip) for group in masks.groups} == {"embed": (8, True), "up": (12, False)}
    small = result.model
    assert small.get_parameter("position").shape == (1, 16, 4)
    assert small.get_parameter("down.weight").shape == (4, 6)
    assert result.plan.attributes["norm1"] == {"normalized_shape": (4,), "dense_width": 8}
    for name in ("norm1", "norm2"):
        assert type(small.get_submodule(name)) is WideLayerNorm
        assert small.get_parameter(f"{name}.weight").shape == (4,)
        assert type(model.get_submodule(name)) is nn.LayerNorm  # the network that was slimmed stays as it was


def test_channels_of_a_convnext_leave_through_its_norms() -> None:
    model = convnext().eval()

    masks, result = slim_of(model, CNX)

    kinds = {type(module) for module in result.model.modules() if isinstance(module, nn.LayerNorm)}
    assert kinds == {WideLayerNorm, WideLayerNorm2d}
    assert {name: width for name, width in masks.widths().items() if name.startswith("features.0")} == {
        "features.0.0": 4
    }
    assert result.certificate["max_rel"] <= 1e-10


def test_they_do_not_by_default() -> None:
    groups = {group.name: group for group in channel_groups(Block(), IMAGE)}

    assert groups["embed"].pinned == "meets LayerNorm over channels"
    assert groups["up"].pinned is None
    assert Chase().freedoms == Freedoms(norms=False, heads=False)


def test_a_setting_of_the_method_lets_them() -> None:
    method = Chase(sparsity=0.2, channel_sparsity=0.2, prune_skip=True, prune_norms=True, round_to=1)

    masks = initial_masks(Block(), method, example=IMAGE, groups=None, seed=0)

    assert method.freedoms == NORMS
    assert set(masks.alive) == {"embed", "up"}


def own(width: int) -> nn.Module:
    return LayerNorm2d(width)


@pytest.mark.parametrize(
    ("between", "norm", "reason"),
    [
        (lambda x: x.sigmoid(), lambda: wide_kind_2d()(8), "meets LayerNorm over channels"),
        (lambda x: x + 1, lambda: wide_kind_2d()(8), "meets LayerNorm over channels"),
        (lambda x: x, lambda: own(8), "meets LayerNorm over channels"),
        (lambda x: x.relu(), lambda: wide_kind_2d()(8, elementwise_affine=False), "meets LayerNorm over channels"),
        (lambda x: x, lambda: nn.LayerNorm([8, 8, 8]), "meets LayerNorm over channels"),
        (lambda x: x.relu(), lambda: wide_kind_2d()(8), None),
    ],
    ids=["constant", "number", "own class", "no weights", "over space too", "zero"],
)
def test_only_zeros_that_arrive_at_a_known_norm_leave(between: Any, norm: Any, reason: str | None) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(3, 8, 1), norm(), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.norm(between(self.first(x))))
            return y

    groups = {group.name: group for group in channel_groups(Net(), IMAGE, freedoms=NORMS)}

    assert groups["first"].pinned == reason


def wide_kind_2d() -> Any:
    from torchvision.models.convnext import LayerNorm2d as Vision2d

    return Vision2d


def test_a_norm_that_lost_channels_once_may_lose_more() -> None:
    model = Block().eval()
    once = slim_of(model, IMAGE)[1].model
    groups = prunable(channel_groups(once, IMAGE, freedoms=NORMS), prune_skip=True)
    pinned = {group.name: group.pinned for group in channel_groups(once, IMAGE, freedoms=NORMS)}

    assert [group.name for group in groups] == ["up"]
    assert pinned["embed"] is not None  # its arithmetic is spelled out, so nothing knows what it may lose


@pytest.mark.parametrize(("make", "example"), [(Block, IMAGE), (convnext, CNX)], ids=["transformer", "convnext"])
def test_a_plan_and_a_state_dict_bring_it_back(make: Any, example: Tensor) -> None:
    model = make().eval()
    fresh = copy.deepcopy(model)
    result = slim_of(model, example)[1]

    rebuild_(fresh, result.plan.to_dict())
    fresh.load_state_dict(result.model.state_dict())

    x = torch.randn(3, *example.shape[1:])
    assert torch.equal(fresh.eval()(x), result.model(x))
    assert repr(fresh) == repr(result.model)


@pytest.mark.parametrize("named", [True, False], ids=["constructor", "program"])
def test_a_file_brings_it_back(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "block", Block)
    model = Block().eval()
    masks, result = slim_of(model, IMAGE)
    spec = {"name": "block", "settings": {}} if named else None

    save_slim(tmp_path / "slim.pt", result, masks, dense=model, input=InputSpec(shape=(3, 8, 8)), model=spec)

    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(load_network(tmp_path / "slim.pt").model(x), result.model(x))


def test_such_a_network_is_exported(tmp_path: Path) -> None:
    result = slim_of(Block().eval(), IMAGE)[1]

    artifact = export(result.model, tmp_path / "model.onnx", example=IMAGE)

    x = torch.randn(5, 3, 8, 8)
    with open_runtime(artifact.path) as runtime:
        torch.testing.assert_close(runtime.run(x), result.model(x), rtol=1e-4, atol=1e-4)
