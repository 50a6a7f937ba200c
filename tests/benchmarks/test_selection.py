from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chase.benchmarks.selection import Selection, main, ways


@pytest.fixture(scope="module")
def selection() -> Selection:
    return Selection.of("vgg8", density=0.3, keep=0.1)


@pytest.mark.parametrize("name", ["exact", "topk"])
def test_the_exact_ways_keep_the_largest_living_weights(name: str, selection: Selection) -> None:
    ways(selection)[name]()

    assert selection.kept == selection.keep
    scores = {key: weight.abs() * selection.masks[key] for key, weight in selection.weights.items()}
    lowest = min(scores[key][mask != 0].min() for key, mask in selection.result.items() if mask.any())
    assert all((scores[key][mask == 0] <= lowest).all() for key, mask in selection.result.items())


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_bisection_keeps_as_many_to_its_tolerance(tolerance: float, selection: Selection) -> None:
    selection.bisected(tolerance)

    assert abs(selection.kept - selection.keep) <= tolerance * selection.keep
    assert not any(((mask != 0) & (selection.masks[key] == 0)).any() for key, mask in selection.result.items())


def test_the_report_has_a_row_for_each_way(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    main(["--out", str(tmp_path / "s.json"), "--model", "cifar-resnet20", "--seconds", "0.1"])
    torch.set_num_threads(threads)

    found = json.loads((tmp_path / "s.json").read_text())
    assert [row["way"] for row in found["rows"]] == ["exact", "bisected to 1e-3", "bisected to 1e-4", "topk"]
    assert all(row["cpu_ms"] > 0 for row in found["rows"])
    assert found["keep"] == round(0.1 * found["weights"])
    assert found["rows"][0]["off_by"] == 0
