"""The definitions of all tables: complete, consistent, and the same trainings where they should be."""

from __future__ import annotations

from functools import cache

import pytest

from chase.benchmarks.paper import TABLES
from chase.benchmarks.paper.beyond import HALF
from chase.benchmarks.paper.blocks import cifar, imagenet, trained_by
from chase.benchmarks.paper.measures import prunability, table15_macs
from chase.benchmarks.paper.scales import SCALES, differences
from chase.benchmarks.paper.table import Table, Training
from chase.recipe import Recipe, read
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.methods import METHODS
from chase.sparse.plan import plan

BEYOND = {"methods", "criteria", "baselines", "improvements", "compaction"}
PAPER = [name for name in TABLES if name not in BEYOND]


@cache
def built(name: str) -> Table:
    return TABLES[name]()


def recipes(table: Table) -> list[Recipe]:
    return [cell.training.recipe for cell in table.cells if cell.training]


def training(table: str, row: str, column: str) -> Training:
    (cell,) = [cell for cell in built(table).cells if (cell.row, cell.column) == (row, column)]
    assert cell.training is not None
    return cell.training


def test_every_table_and_figure_of_the_paper_is_there() -> None:
    tables = [f"table{number}" for number in (2, 3, 4, 5, 6, 7, 8, 12, 14, 15)]

    assert [*tables, "figure2", "figure3", "figure4", "figure5"] == PAPER


@pytest.mark.parametrize("name", TABLES)
def test_every_recipe_is_valid_and_survives_as_plain_data(name: str) -> None:
    for recipe in recipes(built(name)):
        assert Recipe.from_dict(recipe.to_dict(), source=name) == recipe


@pytest.mark.parametrize("name", TABLES)
def test_no_cell_is_defined_twice(name: str) -> None:
    places = [(cell.row, cell.column) for cell in built(name).cells]

    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_printed_numbers_and_figures_say_that_they_have_none(name: str) -> None:
    table = built(name)
    printed = any(cell.paper for cell in table.cells)

    assert printed == name.startswith("table")
    assert name not in PAPER or printed or "The figure has no printed numbers." in table.notes


@pytest.mark.parametrize("name", TABLES)
def test_full_is_the_recipe_itself(name: str) -> None:
    for recipe in recipes(built(name)):
        assert SCALES["full"].recipe(recipe) == recipe


def test_the_recipes_of_tables_9_and_10_are_those_that_are_shipped() -> None:
    at = {"sparsity": 0.9, "channel_sparsity": 0.5}

    for model, name in (("VGG-19", "vgg19"), ("ResNet-50", "resnet50")):
        for data in ("CIFAR-10", "CIFAR-100"):
            shipped = Recipe.from_dict(read(f"{data.replace('-', '').lower()}-{name}"))
            assert training("table3", f"{model}: Chase (S_c = 0.5)", f"{data} 90 %").recipe == shipped
            assert trained_by(cifar(model, data), "chase", **at).recipe == shipped
    assert training("table4", "Chase (S_c = 0.4)", "90 % accuracy").recipe == imagenet()
    assert training("table4", "Chase 1.5× (S_c = 0.4)", "90 % accuracy").recipe == imagenet(longer=True)


@pytest.mark.parametrize(("names", "row"), [("GACP + SM + GE", "Chase (S_c = 0.5)"), ("SM + GE", "Chase (S_c = 0)")])
@pytest.mark.parametrize("model", ["VGG-19", "ResNet-50"])
def test_all_switches_of_figure_4_together_are_chase(model: str, names: str, row: str) -> None:
    for column in ("CIFAR-10 90 %", "CIFAR-100 98 %"):
        ablation = training("figure4", f"{model}: RigL + {names}", column)
        assert ablation == training("table3", f"{model}: {row}", column)


def test_figure_4_without_switches_is_rigl_but_for_when_it_explores() -> None:
    method = training("figure4", "VGG-19: RigL", "CIFAR-10 90 %").recipe.method
    chosen = ("prune", "grow", "scope", "allocation", "soft_bound", "drop_fraction", "decay", "distribution")

    assert {name: getattr(method, name) for name in chosen} == {name: getattr(METHODS["rigl"], name) for name in chosen}
    assert not method.prunes_channels


def test_figure_5_also_starts_from_a_dense_network_that_was_trained() -> None:
    made = training("figure5", "initial sparsity 0.0, pretrained", "accuracy")

    assert made.recipe == training("figure5", "initial sparsity 0.0", "accuracy").recipe
    assert made.before["start_from"].recipe.method == METHODS["dense"]


@pytest.mark.parametrize("model", ["VGG-19", "ResNet-50"])
def test_compacted_and_masked_differ_in_nothing_else(model: str) -> None:
    masked, compacted = (training("compaction", f"{model}: {name}", "accuracy") for name in ("masked", "compacted"))

    assert differences(masked.recipe, compacted.recipe) == {"training.compact": ("off", "auto")}


def test_tables_6_and_8_meet_at_one_setting() -> None:
    for model in ("VGG-19", "ResNet-50"):
        for column in ("90 %", "95 %", "98 %"):
            at_beta = training("table6", f"{model}: β = 0.5", column)
            assert at_beta == training("table8", f"{model}: ΔT = 4000", column)


def test_every_method_is_trained_and_every_criterion_is_tried_at_once_and_gradually() -> None:
    at_once = {cell.measure.name for cell in built("table2").cells}

    assert {recipe.method.name for recipe in recipes(built("methods"))} == set(METHODS)
    assert {recipe.method.criterion for recipe in recipes(built("criteria"))} == set(CHANNEL_SCORES)
    assert {prunability(name, share).name for name in CHANNEL_SCORES for share in (0.1, 0.2, 0.3)} <= at_once


def test_baselines_are_as_long_as_chase_and_execute_as_many_macs() -> None:
    cells = [cell for cell in built("baselines").cells if cell.training]

    for cell in cells:
        assert cell.training is not None
        recipe = cell.training.recipe
        assert recipe.training.epochs == 160
        if not cell.row.endswith(("Dense", "Chase (S_c = 0.5)")):
            assert (recipe.method.executed_macs, recipe.method.channel_sparsity) == (HALF, 0.0)


def test_one_shot_pruning_is_a_single_event_and_iterative_pruning_is_many() -> None:
    for when, least, most in (("one-shot", 1, 1), ("iterative", 4, 50)):
        method = training("baselines", f"ResNet-50: fpgm, {when}, fine-tuned", "accuracy").recipe.method
        events = [event for event in plan(method, 160 * 390) if event.removes_channels]
        assert least <= len(events) <= most


def test_table_15_counted_again_leaves_what_facts_say() -> None:
    found = table15_macs()

    assert found["executed"] == pytest.approx(0.6777, abs=5e-5)
    assert found["theoretical"] == pytest.approx(0.2300, abs=5e-4)
    assert found["dense"] == pytest.approx(4089.184256)
