"""What a study stated before its first evaluation run, and what is said where it departs from that."""

import dataclasses

import pytest

from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.tables import cards_from_table, cards_table
from trans4init.reports.study_report.plan import changes
from trans4init.reports.study_report.summary import summarise

EXTRA = CellKey("sinusoidal", "free-table")


@pytest.fixture
def planned(card):
    """A card that departs from what it stated by the fields given."""

    def depart(**now):
        stated = dataclasses.replace(card, cells=(*card.cells, EXTRA), seeds=10)
        return dataclasses.replace(stated, stated=stated.plan(), **now)

    return depart


def test_a_study_that_does_what_it_stated_is_silent(planned, card):
    assert changes(planned()) == ()
    assert changes(card) == ()  # of results from before, nothing is known


def test_arms_that_were_dropped_are_named_and_still_corrected_for(planned, card, make_record):
    dropped = planned(cells=card.cells)
    assert changes(dropped) == (
        "Arms dropped after runs were made: free-table. The words are still corrected for them.",
    )
    assert (card.words(), dropped.words()) == (1, 2)
    records = [
        make_record(cell=cell, seed=seed, value=2 + (cell != card.reference) * 0.5)
        for cell in card.cells
        for seed in range(10)
    ]
    p_values = [summarise(records, of).cells[1].comparison.p_different for of in (card, dropped)]
    assert p_values == [2 / 2**10, 2 * 2 / 2**10]


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"seeds": 20}, "Extended after a look: 10 seeds were stated before the first run, 20 are judged."),
        ({"seeds": 5}, "Judged before its end: 10 seeds were stated, and 5 are judged."),
        ({"cells": (CellKey("sinusoidal", "none"),)}, "Arms added after runs were made: none."),
        (
            {"margins": (("far", 0.1),)},
            "What gets a word was changed after runs were made: validation_loss within ±0.05 before, "
            "validation_loss within ±0.05, far within ±0.1 now.",
        ),
    ],
)
def test_each_departure_is_said(planned, now, sentence):
    assert any(line.startswith(sentence) for line in changes(planned(**now))), changes(planned(**now))


def test_planned_looks_are_no_departure_and_share_the_level(card, make_record):
    """p is 2/2^6 with six seeds: certain at .05, but not at half of it, which two looks leave for each."""
    looking = dataclasses.replace(card, looks=(6, 12), seeds=12)
    first = dataclasses.replace(looking, seeds=6, stated=looking.plan())
    assert changes(first) == ()
    records = [
        make_record(cell=cell, seed=seed, value=2 + (cell != card.reference) * (0.5 + seed / 100))
        for cell in card.cells
        for seed in range(6)
    ]
    words = [summarise(records, of).cells[1].comparison.verdict for of in (dataclasses.replace(card, seeds=6), first)]
    assert words == ["worse", "no verdict"]


def test_a_look_before_the_end_is_said_unless_it_is_planned(card):
    running = dataclasses.replace(card, seeds=10)
    [sentence] = changes(running, finished=9)
    assert sentence.startswith("Judged before its end: of 10 seeds only 9 have been run in every cell.")
    assert changes(running, finished=10) == ()
    assert changes(dataclasses.replace(running, looks=(9, 10)), finished=9) == ()


def test_another_number_of_trials_is_said(planned, card):
    tuned = dataclasses.replace(card, trials=8)
    more = dataclasses.replace(tuned, trials=20, stated=tuned.plan())
    assert changes(more) == ("Tuned anew after runs were made: with 20 trials, and 8 were stated.",)


def test_a_card_keeps_its_plan(planned):
    card = planned(margins=(("far", 0.1),), looks=(5, 10), seeds=5)
    assert cards_from_table(cards_table([card]))[0] == card
