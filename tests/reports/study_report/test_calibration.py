"""Calibration counts what it says, on values whose distribution is known."""

import numpy as np
import pytest
from scipy import stats

from trans4init.reports.study_report.calibration import Count, as_markdown, calibrate, whole_path
from trans4init.reports.study_report.verdict import PairedRuns, judge


@pytest.fixture(scope="module")
def counts():
    values = list(np.random.default_rng(0).normal(3, 0.1, 500))
    return calibrate([*values, None], draws=60)


def test_words_on_normal_values_keep_their_promises(counts):
    false, plain, corrected, visible, larger, equal = counts
    assert false.share() <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5
    assert plain.share() == pytest.approx(0.95, abs=0.04)
    assert corrected.share() >= 0.9
    assert visible.share() == pytest.approx(0.8, abs=0.17)
    assert larger.share() >= 0.85
    assert equal.share() >= 0.9
    assert [count.total for count in counts] == [60, 480, 60, 60, 60, 480]


def test_the_interval_of_a_share_is_exact():
    for happened, total in ((0, 20), (3, 20), (20, 20)):
        expected = stats.binomtest(happened, total).proportion_ci(method="exact")
        found = Count("x", happened, total, "").interval()
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_pool_too_small_for_a_study_is_refused():
    with pytest.raises(ValueError, match="a study takes 90 trainings, and the pool has 3"):
        calibrate([1.0, 2.0, 3.0], draws=1)


def test_the_page_has_a_row_for_each_count(counts, make_record):
    study = judge(
        [PairedRuns(make_record().cell, {s: 3.0 + s / 99 for s in range(9)}, dict.fromkeys(range(9), 2.0))],
        comparisons=1,
        margin=0.01,
        higher_is_better=False,
    )
    [whole] = whole_path([study, ()])
    assert (whole.happened, whole.total) == (1, 2)
    page = as_markdown([*counts, whole], make_record(), 501)
    assert "501 trainings" in page
    assert page.count("| at ") + page.count("| 95 % |") + page.count("| 75 to 85 % |") == len(counts) + 1
