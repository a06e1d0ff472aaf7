"""The verdict: four words, said only when the seeds allow it."""

import numpy as np
import pytest

from trans4init.reports.records.schema import CellKey
from trans4init.reports.statistics import equivalence_test, sign_flip_test, smallest_visible_effect, visible_factor
from trans4init.reports.study_report.verdict import PairedRuns, judge

MARGIN = 0.05


def pair(differences, *, reference=2.0, lost=(), reference_lost=(), name="arm"):
    """Runs whose paired differences are those given, plus seeds that were lost on either side."""
    count = len(differences)
    values = {seed: reference + difference for seed, difference in enumerate(differences)}
    base = dict.fromkeys(range(count), reference)
    for extra, seed in enumerate((*lost, *reference_lost)):
        values[count + extra] = None if seed in lost else reference
        base[count + extra] = reference if seed in lost else None
    return PairedRuns(CellKey("f", name), values, base)


def verdict(runs, **options):
    [comparison] = judge([runs], **{"comparisons": 1, "margin": MARGIN, "higher_is_better": False} | options)
    return comparison


NOISE = [0.003, -0.002, 0.001, -0.004, 0.002, 0.0, -0.001, 0.004, -0.003, 0.001]


def shifted(by):
    return [value + by for value in NOISE]


@pytest.mark.parametrize(
    ("differences", "higher_is_better", "word"),
    [
        (shifted(0.2), False, "worse"),
        (shifted(-0.2), False, "better"),
        (shifted(0.2), True, "better"),
        (shifted(-0.2), True, "worse"),
        (NOISE, False, "equivalent"),
        ([value * 100 for value in NOISE], False, "inconclusive"),
        (shifted(0.02), False, "equivalent"),
    ],
)
def test_the_four_words(differences, higher_is_better, word):
    assert verdict(pair(differences), higher_is_better=higher_is_better).verdict == word


def test_a_certain_difference_inside_the_margin_is_said_to_be_both():
    assert "certain" in verdict(pair(shifted(0.02))).reason


def test_below_the_seed_floor_there_are_numbers_and_no_verdict():
    found = verdict(pair(shifted(0.2)[:8]), comparisons=8)
    assert found.verdict == "no verdict"
    assert "a verdict on 8 comparisons needs at least 9 pairs, not 8" in found.reason
    assert found.mean == pytest.approx(np.mean(shifted(0.2)[:8]))
    assert found.interval is not None


def test_holm_counts_every_planned_comparison():
    """p = 2/2^10 survives alone and among 8, but not among 30."""
    runs = pair(shifted(0.2))
    assert verdict(runs, comparisons=8).verdict == "worse"
    assert verdict(runs, comparisons=8).p_different == pytest.approx(8 * 2 / 2**10)
    assert verdict(runs, comparisons=30).verdict == "no verdict"


def test_both_p_values_are_adjusted_over_all_comparisons():
    """Three cells whose raw p values differ in both tests: each is multiplied by its rank of the planned four."""
    runs = [pair(shifted(0.2)), pair([0.03 * value / 0.003 + 0.01 for value in NOISE]), pair(shifted(0.047))]
    raw = [list(run.differences().values()) for run in runs]
    different, equivalent = ([test(values) for values in raw] for test in (sign_flip_test, within_margin))
    assert len(set(equivalent)) == 3
    found = judge(runs, comparisons=4, margin=MARGIN, higher_is_better=False)
    for p_values, adjusted in (
        (different, [comparison.p_different for comparison in found]),
        (equivalent, [comparison.p_equivalent for comparison in found]),
    ):
        ranked, largest = sorted(zip(p_values, adjusted, strict=True)), 0.0
        for rank, (p, after) in enumerate(ranked):
            largest = max(largest, min(1.0, (4 - rank) * p))
            assert after == pytest.approx(largest)


def within_margin(differences):
    return equivalence_test(differences, MARGIN)


def test_equivalence_that_is_certain_alone_is_not_among_many():
    """p is 7/1024 alone; 7/1024 · 8 is over 5 %, so eight comparisons don't call it equivalent."""
    differences = [0.0, 0.1, 0.02, 0.04, 0.01, 0.03, 0.02, 0.01, 0.0, 0.02]
    alone = within_margin(differences)
    assert alone < 0.05 < 8 * alone
    assert verdict(pair(differences), comparisons=1).verdict == "equivalent"
    assert verdict(pair(differences), comparisons=8).verdict == "inconclusive"


def test_the_visible_effect_is_of_as_many_comparisons_as_the_test():
    """More runs than were planned are as many comparisons: Holm, the seed floor and the visible effect agree."""
    runs = [pair(shifted(0.2)) for _ in range(5)]
    found = judge(runs, comparisons=1, margin=MARGIN, higher_is_better=False)
    assert [comparison.visible for comparison in found] == pytest.approx([smallest_visible_effect(NOISE, 5)] * 5)
    assert found == judge(runs, comparisons=5, margin=MARGIN, higher_is_better=False)
    assert found[0].visible > 1.1 * smallest_visible_effect(NOISE, 1)
    assert verdict(pair(NOISE[:8]), comparisons=8).visible is None


def normal_study(generator, *, arms=8, seeds=10, shifts=()):
    """Cells of a study whose arms share a reference; `shifts` are the true differences of the first cells."""
    reference = generator.normal(size=seeds)
    runs = []
    for arm in range(arms):
        values = generator.normal(size=seeds) + (shifts[arm] if arm < len(shifts) else 0.0)
        pairs = (dict(enumerate(map(float, values))), dict(enumerate(map(float, reference))))
        runs.append(PairedRuns(CellKey("f", str(arm)), *pairs))
    return runs


def test_an_adjusted_interval_excludes_zero_exactly_where_the_adjusted_p_is_small():
    """With effects of all sizes, so that Holm finds some by stepping down alone; and they hold the truth together."""
    generator, stepped, held = np.random.default_rng(3), 0, 0
    shifts, studies = (6.0, 4.0, 3.0, 2.6, 2.2), 150
    for _ in range(studies):
        found = judge(normal_study(generator, shifts=shifts), comparisons=8, margin=1e-9, higher_is_better=False)
        for comparison in found:
            assert comparison.interval_adjusted.excludes(0) == (comparison.p_different < 0.05)
            # found with fewer comparisons than were planned: Bonferroni's interval would hold 0
            stepped += (
                comparison.p_different < 0.05 and comparison.interval_adjusted.low < comparison.interval.low < 0.6
            )
        truths = (*shifts, 0, 0, 0)
        held += all(not c.interval_adjusted.excludes(truth) for c, truth in zip(found, truths, strict=True))
    assert stepped > 0
    assert held / studies >= 0.9


def test_a_level_for_a_look_counts_in_floor_word_and_interval():
    differences = [0.1 + 0.01 * index for index in range(9)]
    assert verdict(pair(differences), comparisons=8).verdict == "worse"
    found = verdict(pair(differences), comparisons=8, level=0.025)
    assert found.verdict == "no verdict"
    assert "needs at least 10 pairs" in found.reason
    assert found.interval_adjusted is None


def test_only_pairs_count():
    runs = PairedRuns(CellKey("f", "a"), {0: 1.0, 1: 2.0, 2: None}, {1: 1.5, 2: 1.0, 3: 9.0})
    assert runs.differences() == {1: 0.5}
    assert runs.lost() == (2,)


def test_without_pairs_there_is_a_reason():
    found = verdict(PairedRuns(CellKey("f", "a"), {}, {0: 1.0}))
    assert (found.verdict, found.reason, found.mean) == ("no verdict", "no pair of finished runs", None)


@pytest.mark.parametrize(("shift", "word"), [(-0.2, "better"), (0.0, "equivalent")])
def test_an_arm_that_lost_runs_is_not_flattered_by_those_left(shift, word):
    found = verdict(pair(shifted(shift), lost=(1,)))
    assert found.verdict == "inconclusive"
    assert f"1 of 11 runs ended without a value; the 10 pairs left would say {word}" in found.reason
    assert found.lost == (10,)


def test_an_arm_that_lost_runs_can_still_be_worse():
    assert verdict(pair(shifted(0.2), lost=(1,))).verdict == "worse"


def test_a_reference_that_lost_runs_is_not_flattered_either():
    found = verdict(pair(shifted(0.2), reference_lost=(1,)))
    assert found.verdict == "inconclusive"
    assert "reference" in found.reason
    assert verdict(pair(shifted(-0.2), reference_lost=(1,))).verdict == "better"


def share_of_false_words(draw, words=("better", "worse"), margin=1e-9, studies=120):
    """How many studies of eight arms have one of these words, with differences drawn by `draw(arms, seeds)`."""
    alarms = 0
    for _ in range(studies):
        runs = [pair(list(differences), name=str(arm)) for arm, differences in enumerate(draw((8, 10)))]
        found = judge(runs, comparisons=8, margin=margin, higher_is_better=False)
        alarms += any(comparison.verdict in words for comparison in found)
    return alarms / studies


def test_false_alarms_over_eight_comparisons_stay_under_five_percent():
    """Eight arms that do nothing, many times over: how often is any of them called better or worse?"""
    generator = np.random.default_rng(0)
    bound = 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5  # three standard errors of the simulation
    assert share_of_false_words(lambda size: generator.normal(0, 0.1, size)) <= bound
    assert share_of_false_words(lambda size: generator.standard_t(3, size)) <= bound


def test_bad_landings_make_no_false_words_where_several_cells_show_them():
    """One run in ten lands 5 higher, and the others .5 lower: no mean differs. The sign-flip test alone is wrong."""
    generator = np.random.default_rng(1)

    def draw(size):
        return 0.3 * generator.normal(size=size) + 5 * (generator.random(size) < 0.1) - 0.5

    assert share_of_false_words(draw) <= 0.12
    alone = [min(sign_flip_test(list(row)) for row in draw((8, 10))) * 8 < 0.05 for _ in range(60)]
    assert np.mean(alone) > 0.6
    assert share_of_false_words(lambda size: draw(size) + 0.5, ("equivalent",), margin=0.45) <= 0.2


def test_a_run_that_landed_far_off_is_named_and_supposed_elsewhere():
    far = [*shifted(-0.2)[:9], 5.0]
    found = judge([pair(far), pair(far[::-1]), pair(shifted(-0.2))], comparisons=3, margin=1e-9, higher_is_better=False)
    assert [comparison.outliers for comparison in found] == [(9,), (0,), ()]
    assert [comparison.supposed for comparison in found] == [False, False, True]
    assert [comparison.verdict for comparison in found] == ["inconclusive"] * 3
    assert "the sign test was asked too" in found[0].reason
    assert "as if one more run had landed as far off" in found[2].reason
    lone = judge([pair(far), pair(shifted(-0.2))], comparisons=2, margin=1e-9, higher_is_better=False)
    assert lone[1].verdict == "better"


def test_tests_that_disagree_on_the_direction_give_no_word():
    """The mean lies above 0 and the median certainly below: neither is the better answer."""
    differences = [-0.01 - 0.0001 * index for index in range(24)] + [10.0 + index for index in range(6)]
    found = verdict(pair(differences), margin=1e-9)
    assert found.verdict == "inconclusive"
    assert not found.interval_adjusted.excludes(0)


def test_a_visible_effect_is_found_as_often_as_it_says():
    """In one arm of eight, judged with all that `judge` asks."""
    generator, found, studies = np.random.default_rng(2), 0, 200
    planted = visible_factor(10, 8) * 2**0.5
    for _ in range(studies):
        runs = normal_study(generator, shifts=(planted,))
        found += judge(runs, comparisons=8, margin=1e-9, higher_is_better=False)[0].verdict == "worse"
    assert found / studies == pytest.approx(0.8, abs=0.085)
