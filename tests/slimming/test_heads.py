"""Whole attention heads leave, where a module takes their number from what is declared to follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import half_dead, scramble_
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from chase.slimming import FOLLOWERS, Freedoms, Group, channel_groups, prunable, slimmed
from chase.slimming.surgery import tensors_of
from chase.sparse import Chase, Masks

HEADS = Freedoms(heads=True)
EXAMPLE = torch.zeros(1, 5, 6)
HEAD = 3
"""Channels of a head; there are four heads."""


class Attention(nn.Module):
    """Self-attention over tokens [b, n, 6] with heads of 3; its projections say how many there are."""

    def __init__(self, heads: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.heads, width = heads, heads * HEAD
        self.q, self.k, self.v = (nn.Linear(6, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], self.heads, HEAD)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y: Tensor = self.out(mixed)
        return y


class Fused(nn.Module):
    """The same with one projection for all three, as timm has it; `order` is where [3, heads, 3] go."""

    def __init__(self, heads: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.heads, width = heads, heads * HEAD
        self.qkv, self.out = nn.Linear(6, 3 * width, bias=bias), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        y: Tensor = self.out(mixed)
        return y


class Indexed(Fused):
    """The same, where the three are taken by their numbers, and the queries are scaled and added to."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        parts = self.qkv(x).view(b, n, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(parts[0] * 2, parts[1], parts[2].relu())
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(b, n, self.heads * HEAD))
        return y


KINDS: list[Any] = [Attention, Fused, Indexed]


def heads(module: Any) -> dict[str, Any]:
    return {"heads": module.out.weight.shape[1] // HEAD}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Attention, Fused):  # a child of Fused follows as well
        monkeypatch.setitem(FOLLOWERS, kind, heads)


def groups_of(model: nn.Module, freedoms: Freedoms = HEADS) -> dict[str, Group]:
    return {group.name: group for group in channel_groups(model, EXAMPLE, freedoms=freedoms)}


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_heads_leave_exactly(kind: Any, bias: bool) -> None:
    model = kind(bias=bias).eval()
    scramble_(model)
    (group,) = prunable(channel_groups(model, EXAMPLE, freedoms=HEADS))

    assert group.size == 4
    masks = Masks.dense(model, (group,))
    masks.alive[group.name][torch.tensor([0, 2])] = False
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)

    left = torch.tensor([3, 4, 5, 9, 10, 11])  # the channels of heads 1 and 3
    ours, theirs = tensors_of(result.model), tensors_of(model)
    assert torch.equal(ours["out.weight"], theirs["out.weight"][:, left])
    if kind is Attention:
        for name in ("q.weight", "k.weight", "v.weight"):
            assert torch.equal(ours[name], theirs[name][left])
    else:
        assert torch.equal(ours["qkv.weight"], theirs["qkv.weight"].view(3, 12, 6)[:, left].reshape(18, 6))
    assert result.plan.attributes[""] == {"heads": 2}
    assert result.certificate["max_rel"] <= 1e-10


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_head_is_left_when_all_die(kind: Any) -> None:
    model = kind().eval()
    scramble_(model)
    (group,) = prunable(channel_groups(model, EXAMPLE, freedoms=HEADS))
    masks = Masks.dense(model, (group,))
    masks.alive[group.name][:] = False

    result = slimmed(model, masks, example=EXAMPLE, round_to=1)

    assert tensors_of(result.model)["out.weight"].shape == (4, HEAD)
    assert result.plan.attributes[""] == {"heads": 1}


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", KINDS)
def test_heads_stay_by_default(kind: Any) -> None:
    groups = groups_of(kind(), Freedoms())

    assert all(group.pinned for group in groups.values())
    assert "is part of an attention head" in {group.pinned for group in groups.values()}
    assert Chase(prune_heads=True).freedoms == HEADS


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_heads_that_nobody_declared_holds_them(kind: Any) -> None:
    model = kind().eval()
    scramble_(model)
    groups = channel_groups(model, EXAMPLE, freedoms=HEADS)

    assert prunable(groups, prune_skip=True) == ()
    slimmed(model, half_dead(model, ()), example=EXAMPLE, round_to=1)  # nothing leaves, nothing breaks


@pytest.mark.usefixtures("declared")
def test_a_head_that_is_read_one_channel_at_a_time_stays_whole() -> None:
    """The width of a head scales its scores, so its channels are no units of their own."""
    (group,) = prunable(channel_groups(Attention(), EXAMPLE, freedoms=HEADS))

    assert {part.tensor: len(part.positions) for part in group.slices if part.tensor == "out.weight"} == {
        "out.weight": 12
    }
    positions = next(part for part in group.slices if part.tensor == "out.weight")
    assert positions.units.tolist() == [unit for unit in range(4) for _ in range(HEAD)]


class Stock(nn.Module):
    """torch's own attention, whose number of heads is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.attention = nn.Linear(6, 12), nn.MultiheadAttention(12, 4, batch_first=True)
        self.up, self.out = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        y: Tensor = self.out(self.up(self.attention(x, x, x, need_weights=False)[0]).relu())
        return y


@pytest.mark.parametrize("freedoms", [Freedoms(), HEADS], ids=["default", "heads"])
def test_torchs_own_attention_stays_and_what_lies_behind_it_leaves(freedoms: Freedoms) -> None:
    model = Stock().eval()
    scramble_(model)
    groups = groups_of(model, freedoms)

    assert [name for name, group in groups.items() if group.pinned is None] == ["attention.out_proj", "up"]
    assert groups["attention"].pinned == "is split by unflatten in attention into sizes that do not follow its width"
    masks = half_dead(model, prunable(tuple(groups.values())))
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)
    assert tensors_of(result.model)["out.weight"].shape == (4, 5)
    assert tensors_of(result.model)["attention.in_proj_weight"].shape == (36, 12)


def test_timms_attention_loses_heads() -> None:
    from timm.layers.attention import Attention as Timm

    torch.manual_seed(0)
    model = Timm(6, num_heads=2, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm).eval()
    model = nn.Sequential(model, nn.Linear(6, 4)).eval()
    scramble_(model)

    groups = groups_of(model)
    heads = groups["0.qkv"]
    assert (heads.size, heads.pinned) == (2, None)
    masks = half_dead(model, (heads,))
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)

    assert tensors_of(result.model)["0.qkv.weight"].shape == (9, 6)
    assert tensors_of(result.model)["0.q_norm.weight"].shape == (3,)
    assert result.plan.attributes["0"] == {"attn_dim": 3, "num_heads": 1}
