"""The moving average of a network's weights."""

from __future__ import annotations

import torch
from small_training import ResidualNet, seeded

from chase.average import Average


def test_each_update_moves_the_average_by_its_share() -> None:
    net = seeded(ResidualNet)
    average = Average(net, 0.75)
    start = average.module.state_dict()["fc.weight"].clone()

    for value in (1.0, 3.0):
        with torch.no_grad():
            net.get_parameter("fc.weight").fill_(value)
            net.get_buffer("norm1.running_var").fill_(value)
            net.get_buffer("norm1.num_batches_tracked").add_(1)
        average.update()

    state = average.module.state_dict()
    assert torch.allclose(state["fc.weight"], 0.5625 * start + 0.1875 * 1 + 0.25 * 3)
    assert torch.allclose(state["norm1.running_var"], torch.tensor(0.5625 + 0.1875 + 0.75))
    assert state["norm1.num_batches_tracked"] == 2
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
