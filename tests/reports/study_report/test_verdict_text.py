"""The verdict in words: what was asked, its controls, and what limits it; numbers as pages write them."""

import pytest

from trans4init.ablations.slots.arms import get_arm, list_arms
from trans4init.reports.formats import bounds, interval, number, signed, value
from trans4init.reports.records.metrics import VALIDATION_LOSS, at_context
from trans4init.reports.records.schema import CellKey, Measurement, StudyCard
from trans4init.reports.statistics import Estimate, Interval
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.verdict_text import VerdictText, verdict_text

ANALYTIC = CellKey("sinusoidal", "analytic")
TUNED = CellKey("sinusoidal", "learned-fine-tuned", "siren")
FROM_SCRATCH = CellKey("sinusoidal", "learned-from-scratch", "siren")
NONE = CellKey("sinusoidal", "none")
FAR = at_context(VALIDATION_LOSS, 4)


@pytest.fixture
def say(make_record):
    """The words on a study whose cells differ from analytic by so much, at the trained context and far beyond."""

    def words(*cells, seeds=10, left_out=(), lost=()):
        card = StudyCard(
            "s",
            "?",
            "validation_loss",
            0.05,
            ANALYTIC,
            (ANALYTIC, *(c for c, _, _ in cells)),
            10,
            "c",
            "t",
            tuple(get_arm(arm).description() for arm in list_arms()),
            margins=((FAR.name, 0.1),),
            controls_left_out=left_out,
        )
        records = []
        for cell, near, far in ((ANALYTIC, 0.0, 0.0), *cells):
            for seed in range(seeds):
                noise = seed / 1000 * (cell != ANALYTIC)
                value = None if cell in lost else 2 + near + noise
                rows = [Measurement(VALIDATION_LOSS, value, 1)]
                rows += [] if far is None else [Measurement(FAR, 3 + far + noise, 1)]
                records.append(make_record(cell=cell, seed=seed, measurements=tuple(rows), card=card))
        return verdict_text(summarise(records))

    return words


def test_the_verdict_is_on_the_fitted_nets_and_the_rest_are_controls(say):
    text = say((TUNED, -0.2, -0.2), (NONE, 0.3, 0.3))
    assert text.verdict.startswith(
        "Against analytic sinusoidal, over 10 paired seeds: learned-fine-tuned · siren is better"
    )
    assert "(validation loss −0.1955 [−0.19" in text.verdict
    assert text.controls == "none worse (+0.3045)."
    assert text.limits == ""


def test_a_net_that_was_not_fitted_is_a_control(say):
    text = say((TUNED, -0.2, -0.2), (FROM_SCRATCH, -0.4, -0.4))
    assert "from-scratch" not in text.verdict
    assert text.controls == "learned-from-scratch · siren better (−0.3955)."


def test_a_verdict_that_another_metric_contradicts_is_limited(say):
    text = say((TUNED, -0.2, 0.3), (NONE, 0.3, -0.3))
    assert text.limits.startswith("The verdict is about validation loss alone: learned-fine-tuned · siren is worse in ")
    assert "validation loss 4x (+0.3045 [" in text.limits
    assert ", none is better in validation loss 4x (−0.2955 [" in text.limits  # controls too: a reader takes them along


GAINED = CellKey("sinusoidal", "gained")
TABLE = CellKey("sinusoidal", "free-table")


def test_a_gain_is_that_of_the_function_only_where_every_control_is_beaten(say):
    text = say((TUNED, -0.4, 0.0), (TABLE, -0.1, 0.0), (GAINED, -0.3, 0.0), (NONE, 0.3, 0.0))
    assert text.cause == (
        "learned-fine-tuned · siren is better because it learned the function: it beats every control, the most of its "
        "gain has gained, 75%."
    )


def test_a_gain_is_that_of_the_function_only_if_all_controls_were_run(say):
    text = say((TUNED, -0.4, 0.0), (GAINED, -0.3, 0.0), left_out=("scaled", "free-table"))
    assert text.cause == (
        "learned-fine-tuned · siren beats every control that was compared, the most of its gain has gained, 75%; that "
        "it is better because it learned the function is open without scaled, free-table."
    )
    unknown = say((TUNED, -0.4, 0.0), (GAINED, 0.3, 0.0), left_out=None).cause
    assert unknown == (
        "learned-fine-tuned · siren beats every control that was compared, none of which gains anything; that it is "
        "better because it learned the function is open since the results don't say which were left out."
    )


def test_a_control_whose_runs_have_no_value_is_not_beaten(say):
    text = say((TUNED, -0.4, 0.0), (GAINED, -0.3, 0.0), (TABLE, 0.0, 0.0), lost=(TABLE,))
    assert text.cause.endswith("is open without free-table.")
    text = say((TUNED, -0.4, 0.0), (GAINED, -0.3, 0.0), lost=(GAINED,))
    assert text.cause == (
        "Why learned-fine-tuned · siren is better is open: the study has no control to compare it with."
    )


def test_a_control_that_is_not_beaten_is_named_with_its_share_the_cheapest_first(say):
    text = say((TUNED, -0.3, 0.0), (FROM_SCRATCH, -0.5, 0.0), (TABLE, -0.3, 0.0), (GAINED, -0.6, 0.0))
    assert text.cause == (
        "That learned-fine-tuned · siren is better is not shown to come of the function: it does not beat gained (202% "
        "of the gain); nor does it beat free-table, learned-from-scratch · siren."
    )


def test_without_controls_the_cause_is_open_and_without_a_gain_there_is_none(say):
    assert (
        say((TUNED, -0.3, 0.0)).cause
        == "Why learned-fine-tuned · siren is better is open: the study has no control to compare it with."
    )
    assert say((TUNED, 0.3, 0.0), (GAINED, 0.3, 0.0)).cause == ""


def test_a_difference_is_also_told_as_a_share_of_what_leaving_the_function_out_costs(say):
    text = say((TUNED, -0.2, 0.0), (NONE, 0.3, 0.3))
    assert "(validation loss −0.1955 [" in text.verdict
    assert "], −64% of what leaving the function out costs)" in text.verdict
    assert "leaving" not in say((TUNED, -0.2, 0.0), (NONE, 0.0, 0.0)).verdict  # that costs nothing


def test_paragraphs_have_headings_and_the_verdict_needs_none_in_plain_text():
    text = VerdictText("It is better.", limits="In one metric alone.")
    assert text.paragraphs() == {"Verdict": "It is better.", "Limits": "In one metric alone."}
    assert text.lines() == ["It is better.", "Limits: In one metric alone."]
    assert VerdictText("").lines() == []


def test_what_the_arm_cannot_do_limits_nothing(say):
    assert say((TUNED, -0.2, None)).limits == ""


def test_a_study_without_fitted_nets_judges_every_cell(say):
    text = say((NONE, 0.3, 0.3))
    assert "none is worse (validation loss +0.3045" in text.verdict
    assert text.controls == ""


def test_below_the_seed_floor_there_are_numbers_and_no_verdict(say):
    assert (
        "learned-fine-tuned · siren has no verdict yet (validation loss −0.1990"
        in say((TUNED, -0.2, 0), seeds=3).verdict
    )


def test_a_study_that_has_only_begun_and_a_folder_of_fits(make_record):
    begun = summarise([make_record(phase="tune", run_id="t", trial=0)])
    assert verdict_text(begun).verdict.endswith("learned-frozen · fourier-mlp has no result yet.")
    assert verdict_text(summarise([make_record(phase="fit", card=None)])) == VerdictText("")


def test_numbers_as_pages_write_them():
    assert [number(x) for x in (None, 0.0, 1.23456, 12345.6, 1e-4, 3e7)] == [
        "–",
        "0",
        "1.23",
        "12346",
        "1.00e-04",
        "3.00e+07",
    ]
    assert (signed(-0.5), signed(0.5), signed(None)) == ("−0.5000", "+0.5000", "–")
    estimate = Estimate(1.5, Interval(1.25, 1.75), 10)
    assert (value(estimate, 2), bounds(estimate, 2), interval(estimate.interval)) == (
        "1.50",
        "[1.25, 1.75]",
        "[+1.2500, +1.7500]",
    )
    assert (value(None), bounds(None), interval(None)) == ("–", "", "–")
