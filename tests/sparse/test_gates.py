"""Gates: the gradient for a gate on each channel, from the gradients of parameters alone."""

from __future__ import annotations

import pytest
import torch
from small_training import ResidualNet, backward, batch, loss_of, seeded, small_mlp
from torch import Tensor, nn

from chase.slimming import channel_groups
from chase.slimming.groups import Group
from chase.sparse.gates import Gates, scales


def group_named(net: nn.Module, name: str) -> Group:
    return next(group for group in channel_groups(net, batch(0)[0][:1]) if group.name == name)


def gate_gradient(net: nn.Module, module: str, step: int) -> Tensor:
    """∂L/∂g at g = 1 of a gate behind `module`, by autograd."""
    target = net.get_submodule(module)
    size = batch(0)[0].new_ones(net.get_parameter(f"{module}.weight").shape[0]).requires_grad_()
    shape = (1, -1, 1, 1) if isinstance(target, nn.BatchNorm2d | nn.Conv2d) else (1, -1)
    hook = target.register_forward_hook(lambda module, args, out: out * size.view(shape))
    (found,) = torch.autograd.grad(loss_of(net, step), [size])
    hook.remove()
    return found


@pytest.mark.parametrize(("group", "gated"), [("conv1", "norm1"), ("wide", "wide")])
def test_the_gradient_is_that_of_a_gate_behind_the_norm_or_the_layer(group: str, gated: str) -> None:
    net = seeded(ResidualNet).double()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    net.float()
    gates = Gates([group_named(net, group)], net)
    expected = torch.stack([gate_gradient(net, gated, step) for step in (1, 2)])
    for step in (1, 2):
        net.zero_grad()
        backward(loss_of(net, step))
        gates.add()

    first, second = gates.means(group)

    assert first is not None
    assert second is not None
    torch.testing.assert_close(first, expected.abs().mean(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(second, expected.square().mean(0), rtol=1e-3, atol=1e-6)


def test_coupled_rows_share_one_gate() -> None:
    """Units of the residual stream are made by stem and conv2: gradients add up before they are squared."""
    net = seeded(ResidualNet)
    gates = Gates([group_named(net, "stem")], net)
    backward(loss_of(net, 1))
    parts = [net.get_submodule(name) for name in ("norm0", "norm2")]
    expected = torch.zeros(8)
    for norm in parts:
        for parameter in norm.parameters():
            assert parameter.grad is not None
            expected += parameter.detach() * parameter.grad
    gates.add()

    torch.testing.assert_close(gates.means("stem")[1], expected.square())


def test_scales_are_means_over_the_norms_and_missing_without_one() -> None:
    net = seeded(ResidualNet)
    with torch.no_grad():
        net.get_parameter("norm0.weight").copy_(torch.arange(8.0))
        net.get_parameter("norm2.weight").copy_(-2 * torch.arange(8.0))

    assert torch.equal(scales(group_named(net, "stem"), dict(net.named_parameters())), 1.5 * torch.arange(8.0))  # type: ignore[arg-type]
    mlp = seeded(small_mlp)
    assert scales(group_named(mlp, "1"), dict(mlp.named_parameters())) is None


def test_nothing_is_known_before_the_first_step_and_after_a_reset() -> None:
    net = seeded(small_mlp)
    gates = Gates([group_named(net, "1")], net)

    assert gates.means("1") == (None, None)
    backward(loss_of(net, 1))
    gates.add()
    again = Gates([group_named(net, "1")], net)
    again.load_state_dict(gates.state_dict())
    for ours, theirs in zip(gates.means("1"), again.means("1"), strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)
    gates.reset()
    assert gates.means("1") == (None, None)
