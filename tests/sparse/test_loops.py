"""The Sparsifier inside other people's loops: closures, clipping, accumulation, scalers, wrappers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_training import (
    OPTIMIZERS,
    SMALL_MODELS,
    Optimizer,
    assert_nothing_masked_lives,
    backward,
    batch,
    loss_of,
    plain_step,
    same_weights,
    seeded,
)
from torch import Tensor, nn

from chase.sparse import Chase, RigL, Sparsifier, make
from chase.sparse.sparsifier import unwrap

METHOD = Chase(sparsity=0.7, update_every=2, channel_sparsity=0.5, channel_every=3, round_to=1)
STEPS = 8
Step = Callable[[nn.Module, Optimizer, Sparsifier, int], None]


def train(
    step: Step, optimizer: str = "momentum", *, method: Any = METHOD, steps: int = STEPS
) -> tuple[nn.Module, Sparsifier]:
    net = seeded(SMALL_MODELS["mlp"])
    opt = OPTIMIZERS[optimizer](net.parameters())
    sparse = Sparsifier(net, opt, method, steps=steps, example=batch(0)[0][:1])
    for number in range(1, steps + 1):
        step(net, opt, sparse, number)
        assert_nothing_masked_lives(sparse)
    return net, sparse


def plain(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
    plain_step(net, opt, number)


def with_closure(keyword: bool) -> Step:
    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        def closure() -> float:
            opt.zero_grad()
            loss = loss_of(net, number)
            backward(loss)
            return float(loss.detach())

        returned = opt.step(closure=closure) if keyword else opt.step(closure)
        assert isinstance(returned, float)

    return step


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_a_closure_gives_the_weights_of_the_plain_loop(optimizer: str, keyword: bool) -> None:
    ours, sparse = train(plain, optimizer)
    theirs, other = train(with_closure(keyword), optimizer)

    assert sparse.masks.removed == other.masks.removed == 14
    assert same_weights(ours, theirs)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    def accumulate(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        opt.zero_grad()
        images, labels = batch(number)
        for half in (slice(0, 2), slice(2, 4)):
            backward(nn.functional.cross_entropy(net(images[half]), labels[half]) / 2)
        opt.step()

    ours, sparse = train(plain, "sgd")
    theirs, other = train(accumulate, "sgd")

    assert other.step == STEPS
    for name, mask in sparse.masks.weights.items():
        assert torch.equal(mask, other.masks.weights[name])
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def masked_norm(net: nn.Module, masks: dict[str, Tensor]) -> Tensor:
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return torch.cat([(grad * masks.get(name, 1)).flatten() for name, grad in grads.items()]).pow(2).sum().sqrt()


def test_clipping_after_mask_gradients_sees_the_sparse_network_and_growth_the_dense_gradient() -> None:
    method = METHOD.with_(channel_sparsity=0.0)

    def clip(masked: bool) -> Step:
        def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
            opt.zero_grad()
            backward(loss_of(net, number))
            expected = masked_norm(net, sparse.masks.weights if masked else {})
            if masked:
                sparse.mask_gradients()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 1e9)
            torch.testing.assert_close(norm, expected)
            opt.step()

        return step

    clipped, early = train(clip(masked=True), method=method)
    unclipped, late = train(clip(masked=False), method=method)
    ordinary, _ = train(plain, method=method)

    assert early.masks.nonzero == late.masks.nonzero
    assert same_weights(clipped, unclipped)
    assert same_weights(clipped, ordinary)  # so the events grew by the same, dense gradients


def test_gradients_masked_early_now_and_then_change_nothing() -> None:
    def sometimes(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        opt.zero_grad()
        backward(loss_of(net, number))
        if number in (1, 4):
            sparse.mask_gradients()
        opt.step()

    assert same_weights(train(sometimes)[0], train(plain)[0])


def test_gradients_masked_early_are_still_dense_for_the_coming_event() -> None:
    method = make("rigl", sparsity=0.8, update_every=1, drop_fraction=0.5, scope="global", stop=1.0)

    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        before = {name: mask.clone() for name, mask in sparse.masks.weights.items()}
        opt.zero_grad()
        backward(loss_of(net, number))
        sparse.mask_gradients()
        opt.step()
        grown = sum(int((mask > before[name]).sum()) for name, mask in sparse.masks.weights.items())
        if number == 1:
            # by masked gradients, zero outside, only pruned weights could come back
            assert grown > 0

    train(step, method=method)


def test_a_scaler_skips_an_overflow_and_the_masks_stay() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    seen: list[tuple[int, bool]] = []

    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        before = copy.deepcopy(net.state_dict())
        opt.zero_grad()
        backward(scaler.scale(loss_of(net, number)))
        if number == 4:
            next(net.parameters()).grad.view(-1)[0] = float("inf")  # type: ignore[union-attr]
        scaler.step(opt)
        scaler.update()
        same = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        seen.append((sparse.step, same))

    net, sparse = train(step)

    assert seen == [(1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (7, False)]
    assert scaler.get_scale() == 512.0
    assert all(p.isfinite().all() for p in net.parameters())
    assert sparse.masks.removed == 14


def test_a_fused_optimizer_under_a_scaler_never_grows_where_the_gradient_overflowed() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    method = make("static", sparsity=0.9).with_(update_every=2, soft_bound=0.2)
    poisoned: dict[str, Tensor] = {}

    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        before = {name: mask.clone() for name, mask in sparse.masks.weights.items()}
        opt.zero_grad()
        backward(scaler.scale(loss_of(net, number)))
        if number == 2:
            for name, mask in before.items():
                poisoned[name] = (mask == 0) & (torch.arange(mask.numel()).view_as(mask) % 5 == 0)
                net.get_parameter(name).grad[poisoned[name]] = float("nan")  # type: ignore[index]
        scaler.step(opt)
        scaler.update()
        if number == 2:
            grown = {name: mask > before[name] for name, mask in sparse.masks.weights.items()}
            assert sum(int(g.sum()) for g in grown.values()) > 0
            assert not any((grown[name] & poisoned[name]).any() for name in grown)

    net, _ = train(step, "sgd-fused", method=method)

    assert all(p.isfinite().all() for p in net.parameters())


GATHERING = {
    "snfs": make("snfs", sparsity=0.7, update_every=2),
    "mest": make("mest", sparsity=0.7, update_every=2, stop=1.0),
    "taylor": METHOD.with_(criterion="taylor"),
    "group-fisher": METHOD.with_(criterion="group-fisher"),
}


@pytest.mark.parametrize("name", GATHERING)
def test_scaled_gradients_are_taken_at_their_true_size(name: str) -> None:
    """A fused optimizer unscales inside its kernel, so that gradients are still scaled when they are looked at."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)

    def scaled(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        opt.zero_grad()
        backward(scaler.scale(loss_of(net, number)))
        scaler.step(opt)
        scaler.update()

    ours, theirs = train(scaled, "sgd-fused", method=GATHERING[name]), train(plain, "sgd-fused", method=GATHERING[name])

    assert scaler.get_scale() > 1024.0
    for layer, mask in theirs[1].masks.weights.items():
        assert torch.equal(ours[1].masks.weights[layer], mask), layer


def test_an_overflow_does_not_stay_in_what_is_gathered() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        opt.zero_grad()
        backward(scaler.scale(loss_of(net, number)))
        if number == 3:
            for parameter in net.parameters():
                parameter.grad.fill_(float("inf"))  # type: ignore[union-attr]
        scaler.step(opt)
        scaler.update()

    for name in ("snfs", "taylor"):
        _, sparse = train(step, "sgd-fused", method=GATHERING[name])
        state = sparse.state_dict()
        gathered = [*state["gradients"].values(), *((state["pruner"]["gates"] or {}).get("first", {}).values())]
        assert gathered
        assert all(value.isfinite().all() for value in gathered)


@pytest.mark.parametrize("model", SMALL_MODELS)
def test_a_compiled_model_trains_to_the_same_weights(model: str) -> None:
    def run(compiled: bool) -> nn.Module:
        net = seeded(SMALL_MODELS[model])
        shell: Any = torch.compile(net, backend="eager") if compiled else net
        opt = OPTIMIZERS["momentum"](shell.parameters())
        sparse = Sparsifier(shell, opt, METHOD, steps=STEPS, example=batch(0)[0][:1])
        for number in range(1, STEPS + 1):
            plain_step(shell, opt, number)
        assert sparse.model is net
        assert sparse.masks.channel_sparsity == 0.5
        return net

    assert same_weights(run(compiled=True), run(compiled=False))


class Parallel(nn.Module):
    """Forwards to `module`, as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


def test_a_parallel_wrapper_trains_to_the_same_weights_under_plain_names() -> None:
    inner = seeded(SMALL_MODELS["mlp"])
    outer = Parallel(inner)
    opt = OPTIMIZERS["momentum"](outer.parameters())
    sparse = Sparsifier(outer, opt, METHOD, steps=STEPS, example=batch(0)[0][:1])
    for number in range(1, STEPS + 1):
        plain_step(outer, opt, number)

    assert list(sparse.masks.weights) == ["1.weight", "3.weight", "5.weight"]
    assert same_weights(inner, train(plain)[0])


def test_wrappers_are_taken_off_however_deep() -> None:
    net = seeded(SMALL_MODELS["mlp"])
    shell: Any = torch.compile(Parallel(net), backend="eager")

    assert unwrap(shell) is net
    assert unwrap(Parallel(Parallel(net))) is net
    assert unwrap(net) is net


def test_a_model_with_more_than_a_part_called_module_is_no_wrapper() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    whole = Whole()

    assert unwrap(whole) is whole


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("an ordinary step waits for the device")


@pytest.mark.parametrize("optimizer", ["momentum", "sgd-fused"])
def test_an_ordinary_step_reads_nothing_back(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = seeded(SMALL_MODELS["residual"])
    opt = OPTIMIZERS[optimizer](net.parameters())
    sparse = Sparsifier(net, opt, METHOD.with_(update_every=4, channel_every=2), steps=20, example=batch(0)[0][:1])
    for number in (1, 2):
        plain_step(net, opt, number)
    assert sparse.masks.removed > 0
    assert sparse.step + 1 not in sparse.events

    backward(loss_of(net, 3))
    for name in ("item", "cpu", "__bool__", "__int__", "__float__", "tolist", "numpy", "nonzero", "is_nonzero"):
        monkeypatch.setattr(Tensor, name, refuse)
    sparse.mask_gradients()
    opt.step()
    monkeypatch.undo()

    assert sparse.step == 3
    assert_nothing_masked_lives(sparse)


@pytest.mark.parametrize("model", SMALL_MODELS)
@pytest.mark.parametrize("optimizer", ["sgd-fused", "adamw-fused"])
def test_a_step_that_a_cuda_graph_has_captured_stays_right_after_events(model: str, optimizer: str) -> None:
    def memory() -> dict[str, int]:
        state = {
            f"{key} of {name}": value for name, each in parameters.items() for key, value in opt.state[each].items()
        }
        masks = {f"mask of {name}": mask for name, mask in sparse.masks.weights.items()}
        return {name: tensor.data_ptr() for name, tensor in (parameters | state | masks).items()}

    net = seeded(SMALL_MODELS[model])
    parameters, opt = dict(net.named_parameters()), OPTIMIZERS[optimizer](net.parameters())
    sparse = Sparsifier(net, opt, METHOD.with_(update_every=2, channel_every=3), steps=20, example=batch(0)[0][:1])
    plain_step(net, opt, 0)
    captured = memory()

    for number in range(1, 20):
        plain_step(net, opt, number)

    assert memory() == captured
    assert sparse.masks.removed > 0
    net.zero_grad()
    backward(loss_of(net, 20))
    for name, mask in sparse.masks.vectors(net).items():  # it does not mask these, whose channels have died since
        gradient = parameters[name].grad
        assert gradient is not None
        assert not gradient[mask == 0].any(), name


def test_parameters_without_gradients_are_left_alone() -> None:
    def step(net: nn.Module, opt: Optimizer, sparse: Sparsifier, number: int) -> None:
        opt.zero_grad()
        if number != 2:
            backward(loss_of(net, number))
        opt.step()

    net = seeded(SMALL_MODELS["mlp"])
    frozen = net.get_parameter("1.weight").requires_grad_(False)
    opt = OPTIMIZERS["momentum"](p for p in net.parameters() if p.requires_grad)
    sparse = Sparsifier(net, opt, RigL(sparsity=0.5, update_every=2), steps=4)
    for number in range(1, 5):
        step(net, opt, sparse, number)

    assert_nothing_masked_lives(sparse)
    assert sparse.masks.nonzero == round(0.5 * sparse.masks.total)
    assert frozen.grad is None
