"""The table of trained models: a line for a recipe, its seeds together, the test split alone."""

import pytest

from trans4init.reports.documents.trained_table import trained_table
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement

TESTED = metrics.of_group(metrics.ACCURACY, "test")


@pytest.fixture
def trained(make_record):
    """A run of a recipe: validated to 0.9, tested to what is given, in so many seconds."""

    def make(seed, tested, *, seconds=None, task="scan", split="length", position="rope", steps=2000):
        found = [Measurement(metrics.ACCURACY, 0.9, steps), Measurement(TESTED, tested, steps)]
        found += [] if seconds is None else [Measurement(metrics.PROCESSOR_TIME, seconds, steps)]
        return make_record(
            run_id=f"train-{task}-{split}-{position}-{seed}",
            study="train",
            cell=CellKey(position, "analytic"),
            task=task,
            seed=seed,
            card=None,
            measurements=(*found, Measurement(metrics.PERPLEXITY, 2.0 + seed, steps)),
            spec={"task": {"name": task, "source": "generated", "split": split}, "training": {"steps": steps}},
        )

    return make


def lines(records, *wanted):
    return [line.strip("| ").split(" | ") for line in trained_table(records, wanted).splitlines()[2:]]


def test_a_line_has_the_seeds_of_a_recipe_and_what_they_were_tested_to(trained):
    runs = [trained(1, 0.75, seconds=95.4), trained(0, 0.5, seconds=126.0)]
    assert lines(runs, "bleu", "accuracy") == [
        ["scan length", "decoder", "rope", "2,000", "accuracy 0.5 to 0.75 (2 seeds)", "95 s to 2.1 min"]
    ]


def test_recipes_are_told_apart_by_data_position_and_steps(trained):
    runs = [trained(0, 0.5), trained(0, 0.25, position="none"), trained(0, 1.0, split="simple"), trained(0, 1, steps=9)]
    assert [(line[0], line[2], line[3], line[4]) for line in lines(runs, "accuracy")] == [
        ("scan length", "none", "2,000", "accuracy 0.25"),
        ("scan length", "rope", "2,000", "accuracy 0.5"),
        ("scan length", "rope", "9", "accuracy 1"),
        ("scan simple", "rope", "2,000", "accuracy 1"),
    ]


def test_what_sums_up_a_training_stands_where_there_is_no_test_of_it(trained):
    assert lines([trained(0, 0.5), trained(3, 0.5)], "perplexity")[0][4] == "perplexity 2 to 5 (2 seeds)"


def test_a_test_that_failed_to_give_a_number_is_not_replaced_by_validation(trained):
    assert lines([trained(0, None)], "accuracy")[0][4] == ""
