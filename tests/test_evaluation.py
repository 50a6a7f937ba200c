from __future__ import annotations

import torch
from small_recipes import recipe

from chase.data import load_data
from chase.evaluation import evaluate
from chase.session import Session


def test_evaluate_counts_what_is_right_and_leaves_the_mode() -> None:
    data = load_data("synthetic", shape=[1, 8, 8], train=96, test=32)
    session = Session(recipe(), data, torch.device("cpu"))
    images, labels = next(data.test.batches(32))
    session.model.eval()
    with torch.inference_mode():
        expected = 100 * int((session.model(images).argmax(1) == labels).sum()) / 32
    session.model.train()

    assert evaluate(session.model, data.test, device=session.device, batch_size=5) == expected
    assert session.model.training
