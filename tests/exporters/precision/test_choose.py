from __future__ import annotations

import pytest
import torch
from precision_networks import Block, HandmadeNorm, Overflow, blocks, images, stretch_
from torch import nn

from chase.errors import ParityError, RecipeError
from chase.exporters.parity import GATES, Gate, compare, reference
from chase.exporters.precision import in_half

HALF, BF16 = torch.float16, torch.bfloat16
PLAIN = nn.Identity()


def pair() -> nn.Sequential:
    """The first convolution of block 2 gives what fp16 cannot hold; the second one makes it small again."""
    model = blocks(PLAIN, PLAIN, PLAIN)
    block = model[2]
    assert isinstance(block, Block)
    stretch_(block, 1e7)
    return model


FAULTS = {
    "none": (blocks(PLAIN, PLAIN), ()),
    "overflow": (blocks(PLAIN, Overflow(), PLAIN), ("2.between",)),
    "handmade norm": (blocks(PLAIN, HandmadeNorm()), ("2.between",)),
    "two": (blocks(Overflow(), PLAIN, HandmadeNorm()), ("1.between", "3.between")),
    "pair": (pair(), ("2.first", "2.second")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_exactly_the_layers_that_fp16_breaks_stay_in_fp32(fault: str) -> None:
    model, broken = FAULTS[fault]
    x = images(4, size=8)
    told = []

    module, kept = in_half(
        model, x[:1], HALF, samples=x, gate=GATES["fp16"], progress=lambda done, total, what: told.append(done)
    )

    assert kept == broken
    assert GATES["fp16"].failure(compare(reference(model, x), reference(module, x), name="it")) is None
    assert told == list(range(1, len(told) + 1))


def test_bf16_has_the_range_of_fp32() -> None:
    model, _ = FAULTS["two"]
    x = images(4, size=8)

    _, kept = in_half(model, x[:1], BF16, samples=x, gate=GATES["bf16"])

    assert kept == ()


def test_layers_that_the_user_names_stay_too() -> None:
    model, _ = FAULTS["overflow"]
    x = images(4, size=8)

    module, kept = in_half(model, x[:1], HALF, samples=x, gate=GATES["fp16"], keep_fp32=["3.*", "0"])

    assert kept == ("0", "2.between", "3.first", "3.second")
    assert module.state_dict()["3.first.weight"].dtype == torch.float32
    assert module.state_dict()["1.first.weight"].dtype == HALF


def test_what_was_searched_for_exceeds_its_gate_by_a_margin() -> None:
    model = blocks(PLAIN, PLAIN)
    x = images(4, size=8)
    plain, _ = in_half(model, x[:1], HALF, samples=x, gate=Gate())
    snr = compare(reference(model, x), reference(plain, x), name="it").snr_db
    assert snr is not None

    module, kept = in_half(model, x[:1], HALF, samples=x, gate=Gate(snr_db=snr + 2))

    assert 0 < len(kept) < 10
    found = compare(reference(model, x), reference(module, x), name="it").snr_db
    assert found is None or found >= snr + 2


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(RecipeError, match="no layer matches '2.betwen'; did you mean '2.between'"):
        in_half(
            FAULTS["overflow"][0],
            images(1, size=8),
            HALF,
            samples=images(2, size=8),
            gate=Gate(),
            keep_fp32=["2.betwen"],
        )


def test_a_gate_that_fp32_itself_misses_is_told() -> None:
    x = images(2, size=8)

    with pytest.raises(ParityError, match="not even all 9 layers kept in fp32 meet the gate"):
        in_half(blocks(PLAIN, PLAIN), x[:1], HALF, samples=x, gate=Gate(max_rel=-1.0))
