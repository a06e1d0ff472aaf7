"""Roles: what each cell of a study is for, and the controls in the order of their cost."""

import dataclasses

import pytest

from trans4init.ablations.slots.arms import get_arm, list_arms
from trans4init.reports.records.roles import controls, role
from trans4init.reports.records.schema import ArmDescription, CellKey

ANALYTIC = CellKey("sinusoidal", "analytic")
TABLE = CellKey("learned-table", "free-table")
OTHER = CellKey("alibi", "analytic")


@pytest.fixture
def everything(card):
    """The card of a study with every arm, in the order of the registry, and two baselines."""
    arms = [get_arm(arm) for arm in list_arms()]
    cells = [CellKey("sinusoidal", arm.name, "siren" if arm.uses_net else "") for arm in arms]
    return dataclasses.replace(
        card, cells=(*cells, TABLE, OTHER), arms=tuple(arm.description() for arm in arms), reference=ANALYTIC
    )


def test_the_first_three_arms_are_the_question_and_the_others_controls(everything):
    roles = {cell: role(everything, cell) for cell in everything.cells}
    assert roles.pop(ANALYTIC) == "reference"
    asked = [cell.arm for cell, what in roles.items() if what == "question"]
    assert asked == ["learned-frozen", "learned-fine-tuned"]
    assert {what for cell, what in roles.items() if cell.arm not in asked} == {"control"}


def test_controls_come_the_cheapest_first(everything):
    own = [cell.arm for cell in controls(everything) if cell.function == "sinusoidal"]
    assert own == [
        "scaled", "gained", "linear", "matched", "free-table", "corrected", "shuffled", "random-frozen",
        "learned-from-scratch", "frozen-exact-gradient", "none",
    ]  # fmt: skip


def test_a_cell_of_another_function_is_a_control(everything):
    assert role(everything, TABLE) == role(everything, OTHER) == "control"
    assert {TABLE, OTHER} <= set(controls(everything))


def test_no_two_arms_have_the_same_cost_colour_or_mark(everything):
    arms = [arm for arm in everything.arms if arm.role == "control"]
    assert len({arm.cost_rank for arm in arms}) == len(arms)
    for look in ("colour", "symbol"):
        assert len({getattr(arm, look) for arm in everything.arms}) == len(everything.arms)


def test_a_card_without_roles_goes_by_what_is_fitted(everything):
    """As cards were written before arms had roles; arms without a stated cost are in the card's order, last."""
    silent = [dataclasses.replace(arm, role=None, cost_rank=ArmDescription.cost_rank) for arm in everything.arms]
    old = dataclasses.replace(everything, arms=tuple(silent))
    asked = [cell.arm for cell in old.cells if role(old, cell) == "question"]
    assert asked == ["learned-frozen", "learned-fine-tuned", "frozen-exact-gradient", "shuffled"]
    assert list(controls(old)) == [cell for cell in old.cells if role(old, cell) == "control"]
