"""All forms of masks do the same."""

from __future__ import annotations

import pytest
import torch

from chase.benchmarks import mask_forms
from chase.benchmarks.mask_forms import FORMS, forms_of

GRADIENTS = (torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([5.0, -6.0, 7.0]))
MASKS = (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0, 1.0]))


@pytest.mark.parametrize("name", sorted(FORMS.keys() - {"zeroing"}))
def test_every_form_leaves_what_the_masks_leave(name: str) -> None:
    gradients = [gradient.clone() for gradient in GRADIENTS]

    FORMS[name](gradients, MASKS)()

    assert torch.equal(gradients[0], torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert torch.equal(gradients[1], torch.tensor([0.0, -6.0, 7.0]))


def test_zeroing_touches_everything() -> None:
    gradients = [gradient.clone() for gradient in GRADIENTS]

    mask_forms.zeroing(gradients, MASKS)()

    assert not any(gradient.any() for gradient in gradients)


def test_forms_work_on_copies() -> None:
    for run in forms_of(GRADIENTS, MASKS).values():
        run()

    assert torch.equal(GRADIENTS[1], torch.tensor([5.0, -6.0, 7.0]))
