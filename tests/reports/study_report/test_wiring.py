"""Every field of a summary and every column of a report holds the quantity that it is named after.

The study of this file has no two quantities with the same value. What is expected is computed here from the raw numbers
by other means: NumPy, SciPy and arithmetic, not the functions that reports use.
"""

import dataclasses
import functools
import itertools
import re
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import special

from trans4init.reports.formats import bounds, limits, number, signed, value
from trans4init.reports.formats import interval as interval_text
from trans4init.reports.records import metrics
from trans4init.reports.records.metrics import over_region
from trans4init.reports.records.schema import ArmDescription, CellKey, Measurement, Metric
from trans4init.reports.records.store import load_results, write_run
from trans4init.reports.records.tuning_design import TunedRange, TuningDesign
from trans4init.reports.statistics import Estimate, Interval, visible_factor
from trans4init.reports.study_report.fidelity import FidelityRow
from trans4init.reports.study_report.figures import accuracy_against_speed
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.speed import SpeedRatio, throughput_session
from trans4init.reports.study_report.summary import CellSummary, Curve, Summary, summarise
from trans4init.reports.study_report.tunings import Budgets, Tunings
from trans4init.reports.study_report.verdict import Comparison

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
TUNED = CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp")
TABLE = CellKey("learned-table", "free-table")
CELLS = (ANALYTIC, FROZEN, TUNED, TABLE)
SEEDS, MARGIN, FAR_MARGIN, COMPARISONS = 8, 0.05, 0.06, 6  # three cells, two metrics with a margin
ROUNDS_PER_BUILD = 2
TUNING_SEEDS = (1000, 1001)
RATES = TunedRange("rate", 0.9, 9.0)
"""At 1.0, the best rate of the first cell, is its low edge."""

FAR = metrics.at_context(metrics.VALIDATION_LOSS, 2)
ONCE = (
    FAR,
    metrics.ACCURACY,
    metrics.PERPLEXITY,
    metrics.OUTPUT_DIFFERENCE_MAX,
    metrics.OUTPUT_DIFFERENCE_RMS,
    metrics.SLOT_DRIFT_MAX,
    metrics.SLOT_DRIFT_RMS,
    metrics.WALL_TIME,
    metrics.PROCESSOR_TIME,
    metrics.PARAMETERS,
    metrics.PARAMETERS_ADDED,
    metrics.in_slot(metrics.SLOT_INPUT_LOW, "position"),
    metrics.in_slot(metrics.SLOT_INPUT_HIGH, "position"),
)
SIZES = (metrics.PARAMETERS, metrics.PARAMETERS_ADDED)
LOSS = "validation loss"
SHIFT = {ANALYTIC: 0.0, FROZEN: 0.003, TUNED: -0.2, TABLE: 0.3}
"""What a cell adds to the loss of the reference, so that equivalent, better and worse all occur."""


@pytest.fixture(scope="module")
def numbers():
    """Raw values by cell, seed and metric; by cell, metric and round; by fit, region and quantity: no two alike."""
    generator, counts = np.random.default_rng(0), itertools.count(1000, 37)
    base = generator.uniform(2, 2.5, SEEDS)
    evaluated = {}
    for cell in CELLS:
        for seed in range(SEEDS):
            noise = generator.normal(0, 0.002)
            row = {metrics.VALIDATION_LOSS: {10: generator.uniform(3, 4), 20: base[seed] + SHIFT[cell] + noise}}
            row[metrics.TRAINING_LOSS] = {10: generator.uniform(4, 5), 20: generator.uniform(1, 2)}
            for metric in ONCE:
                row[metric] = {20: generator.uniform(0.1, 0.9)}
            row[FAR] = {20: base[seed] + 1 - SHIFT[cell] + generator.normal(0, 0.002)}
            evaluated[cell, seed] = row
        for metric in SIZES:  # the same in every run of a cell
            count = float(next(counts))
            for seed in range(SEEDS):
                evaluated[cell, seed][metric] = {0: count}
    pace = {
        (cell, metric): {number: generator.uniform(*span) for number in range(rounds)}
        for cell in CELLS
        for metric, rounds, span in (
            (metrics.TRAINING_THROUGHPUT, 18, (1000, 2000)),
            (metrics.FORWARD_THROUGHPUT, 17, (5000, 9000)),
        )
    }
    del pace[TUNED, metrics.TRAINING_THROUGHPUT][16]  # three different numbers of rounds
    del pace[TUNED, metrics.TRAINING_THROUGHPUT][17]
    quantities = ("max_error", "rms_error", "relative_error", "derivative_max_error", "derivative_rms_error")
    errors = {
        (net, region, quantity): generator.uniform(0.001, 0.9)
        for net in ("fourier-mlp", "siren")
        for region in ("0..7", "8..15")
        for quantity in quantities
    }
    costs = {
        (net, metric): float(next(counts)) if metric.unit.startswith(("count", "FLOP")) else generator.uniform(1, 90)
        for net in ("fourier-mlp", "siren")
        for metric in (
            metrics.NET_PARAMETERS,
            metrics.NET_FLOPS,
            metrics.CALL_TIME,
            metrics.FOLDED_CALL_TIME,
            metrics.ANALYTIC_CALL_TIME,
            metrics.FIT_TIME,
            metrics.FIT_LOSS,
        )
    }
    return evaluated, pace, errors, costs


@pytest.fixture
def records(numbers, make_record, card):
    """The runs of the study: evaluations, a throughput session, two fits, tuning, and one run that failed."""
    evaluated, pace, errors, costs = numbers
    arms = tuple(ArmDescription(cell.arm, f"{cell.arm} holds", f"{cell.arm} moves") for cell in CELLS)
    design = TuningDesign(TUNING_SEEDS, (RATES,))
    card = dataclasses.replace(
        card,
        cells=CELLS,
        margin=MARGIN,
        margins=((FAR.name, FAR_MARGIN),),
        seeds=SEEDS + 1,
        arms=arms,
        tuning=design,
    )

    def rows(values):
        return tuple(Measurement(metric, v, step) for metric, by_step in values.items() for step, v in by_step.items())

    runs = [
        make_record(cell=cell, seed=seed, measurements=rows(row), parameters={"rate": settings_of(cell)})
        for (cell, seed), row in evaluated.items()
    ]
    latest = max(record.created_at for record in runs) + timedelta(hours=1)
    runs += [
        make_record(
            cell=cell,
            phase="throughput",
            run_id=f"throughput-{cell}",
            measurements=rows({metric: by_round for (of, metric), by_round in pace.items() if of == cell}),
            notes={"session": "one", "rounds_per_build": str(ROUNDS_PER_BUILD)},
            created_at=latest,
        )
        for cell in CELLS
    ]
    for net in ("fourier-mlp", "siren"):
        values = {over_region(what, region): {0: e} for (of, region, what), e in errors.items() if of == net}
        values |= {metric: {0: cost} for (of, metric), cost in costs.items() if of == net}
        fitted = make_record(
            cell=CellKey("sinusoidal", "", net),
            phase="fit",
            run_id=f"fit-{net}",
            measurements=rows(values),
            notes={"fitted_on": "8..15"},
        )
        runs.append(fitted)
    for cell, n, seed in itertools.product(CELLS, range(5), TUNING_SEEDS):
        trial = {"trial": n, "seed": seed, "value": trial_loss(cell, n, seed), "parameters": {"rate": rate(cell, n)}}
        runs.append(make_record(cell=cell, phase="tune", run_id=f"tune-{cell}-{n}-{seed}", **trial))
    lost = (Measurement(metrics.VALIDATION_LOSS, None, 20),)
    lost_run = make_record(cell=TABLE, seed=SEEDS, status="diverged", error="nan", measurements=lost)
    runs.append(dataclasses.replace(lost_run, parameters={"rate": settings_of(TABLE)}))
    return [dataclasses.replace(run, card=card) for run in runs]


def settings_of(cell):
    return float(CELLS.index(cell) + 1)


def rate(cell, trial):
    return settings_of(cell) + trial - 2  # the third trial is the best


def trial_loss(cell, trial, seed):
    return 0.5 + abs(trial - 2) + 0.1 * CELLS.index(cell) + (seed - 1000) * (0.01 + trial / 100)


def tuned(cell):
    """The means of the cell's trials, by number."""
    return [np.mean([trial_loss(cell, trial, seed) for seed in TUNING_SEEDS]) for trial in range(5)]


def last(numbers, cell, metric):
    """The values of a cell at the end of training, by seed."""
    return np.array([numbers[0][cell, seed][metric][20 if metric not in SIZES else 0] for seed in range(SEEDS)])


def mean(values):
    """The mean with the interval of those that the test doesn't reject."""
    return Estimate(pytest.approx(values.mean()), not_rejected(values, 0.05), len(values))


def interval_of(pair):
    return Interval(pytest.approx(pair[0]), pytest.approx(pair[1]))


def not_rejected(values, level):
    """Both ends are means of some of the values: try them all."""
    subsets = (values[list(kept)] for kept in itertools.product((False, True), repeat=len(values)) if any(kept))
    kept = [m for m in (subset.mean() for subset in subsets) if p_different(values - m) >= level]
    return interval_of((min(kept), max(kept)))


def interval_as_text(expected):
    return interval_text(Interval(expected.low.expected, expected.high.expected))


def flips(values):
    """The means that the differences would have with every choice of signs."""
    return signs(len(values)) @ values / len(values)


@functools.cache
def signs(count):
    return np.array(list(itertools.product((1, -1), repeat=count)))


def p_different(values):
    return np.mean(np.abs(flips(values)) >= abs(values.mean()) - 1e-12)


def p_equivalent(values, margin):
    above, below = values + margin, values - margin
    return max(np.mean(flips(above) >= above.mean() - 1e-12), np.mean(flips(below) <= below.mean() + 1e-12))


def step_down(p_values):
    """Holm's adjustment, written as its definition."""
    order = np.argsort(p_values, kind="stable")
    return [
        min(1.0, max((len(p_values) - rank) * p_values[order[rank]] for rank in range(list(order).index(i) + 1)))
        for i in range(len(p_values))
    ]


def compared(numbers, metric):
    """For each cell but the reference, all numbers of its comparison."""
    differences = {cell: last(numbers, cell, metric) - last(numbers, ANALYTIC, metric) for cell in CELLS[1:]}
    margin, others = FAR_MARGIN if metric == FAR else MARGIN, [1.0] * (COMPARISONS - len(differences))
    raw = [p_different(values) for values in differences.values()]
    different = step_down([*raw, *others])
    equivalent = step_down([p_equivalent(values, margin) for values in differences.values()] + others)
    spread = np.exp(special.gammaln((SEEDS - 1) / 2) - special.gammaln(SEEDS / 2))
    return {
        cell: {
            "cell": cell,
            "pairs": SEEDS,
            "lost": (SEEDS,) if cell == TABLE else (),
            "mean": pytest.approx(values.mean()),
            "interval": mean(values).interval,
            "interval_adjusted": not_rejected(values, 0.05 / COMPARISONS),
            "p_different": pytest.approx(p),
            "p_equivalent": pytest.approx(q),
            "visible": pytest.approx(
                visible_factor(SEEDS, COMPARISONS) * values.std(ddof=1) * ((SEEDS - 1) / 2) ** 0.5 * spread
            ),
            "differences": pytest.approx(dict(enumerate(values))),
            "skewed": False,
            "outliers": (),
            "supposed": False,
        }
        for (cell, values), p, q in zip(differences.items(), different, equivalent, strict=False)
    }


WORDS = {FROZEN: "equivalent", TUNED: "better", TABLE: "worse"}
FAR_WORDS = {FROZEN: "equivalent", TUNED: "worse", TABLE: "better"}


def speed(numbers, cell, metric):
    """The geometric mean over builds of the median ratio to the reference; too few builds for an interval."""
    rounds, reference = numbers[1][cell, metric], numbers[1][ANALYTIC, metric]
    ratios = np.array([rounds[number] / reference[number] for number in rounds])
    builds = [ratios[start : start + ROUNDS_PER_BUILD] for start in range(0, len(ratios), ROUNDS_PER_BUILD)]
    logs = np.log([np.median(build) for build in builds])
    plain, corrected = not_rejected(logs, 0.05), not_rejected(logs, 0.05 / (len(CELLS) - 1))
    plain, corrected = (interval_of(np.exp([ends.low.expected, ends.high.expected])) for ends in (plain, corrected))
    return SpeedRatio(pytest.approx(np.exp(logs.mean())), plain, len(builds), corrected)


def curve_of(numbers, cell):
    loss = np.array([list(numbers[0][cell, seed][metrics.VALIDATION_LOSS].values()) for seed in range(SEEDS)])
    return Curve(
        (10, 20), *(pytest.approx(tuple(sums)) for sums in (loss.mean(axis=0), loss.min(axis=0), loss.max(axis=0)))
    )


def test_no_two_quantities_of_the_fixture_are_equal(numbers):
    evaluated, pace, errors, costs = numbers
    values = [v for row in evaluated.values() for m, by_step in row.items() if m not in SIZES for v in by_step.values()]
    values += [v for by_round in pace.values() for v in by_round.values()] + [*errors.values(), *costs.values()]
    values += [evaluated[cell, 0][metric][0] for cell in CELLS for metric in SIZES]
    assert len(set(values)) == len(values)


def test_every_field_of_a_cell(numbers, records):
    cells = summarise(records).cells
    near, far = compared(numbers, metrics.VALIDATION_LOSS), compared(numbers, FAR)
    assert [cell.cell for cell in cells] == list(CELLS)
    for summary in cells:
        cell = summary.cell
        expected = {
            "cell": cell,
            "label": {TABLE: "learned-table (free-table)"}.get(cell, f"{cell.arm} · {cell.net}".removesuffix(" · ")),
            "runs": SEEDS + (cell == TABLE),
            "metric": mean(last(numbers, cell, metrics.VALIDATION_LOSS)),
            "comparison": near.get(cell),
            "others": {metric.name: mean(last(numbers, cell, metric)) for metric in (FAR, metrics.ACCURACY)},
            "elsewhere": {FAR.name: far[cell]} if cell in far else {},
            "described": {}
            if cell == ANALYTIC
            else {"accuracy": mean(last(numbers, cell, metrics.ACCURACY) - last(numbers, ANALYTIC, metrics.ACCURACY))},
            "share_of_none": None,
            "gain": None,
            "training_speed": speed(numbers, cell, metrics.TRAINING_THROUGHPUT),
            "forward_speed": speed(numbers, cell, metrics.FORWARD_THROUGHPUT),
            "tokens_per_second": np.median(list(numbers[1][cell, metrics.TRAINING_THROUGHPUT].values())),
            "parameters": last(numbers, cell, metrics.PARAMETERS)[0],
            "parameters_added": last(numbers, cell, metrics.PARAMETERS_ADDED)[0],
            "output_difference": last(numbers, cell, metrics.OUTPUT_DIFFERENCE_MAX).max(),
            "drift": mean(last(numbers, cell, metrics.SLOT_DRIFT_RMS)),
            "settings": {"rate": settings_of(cell)},
            "tuning": tuned(cell),
            "curve": curve_of(numbers, cell),
            "tunings": Tunings(),
            "budgets": Budgets((), None),
            "run_ids": tuple(f"evaluate-{cell}-{seed}".replace(" · ", "-") for seed in range(SEEDS + (cell == TABLE))),
        }
        assert expected.keys() == {field.name for field in dataclasses.fields(CellSummary)}
        assert [trial.number for trial in summary.tuning.trials] == [2, 1, 3, 0, 4]
        assert [trial.mean for trial in summary.tuning.trials] == pytest.approx(np.sort(expected["tuning"]))
        assert [edge.end for edge in summary.tuning.edges] == ["low"] * (cell == ANALYTIC)
        for name in expected.keys() - {"comparison", "elsewhere", "tuning"}:
            assert getattr(summary, name) == expected[name], (cell, name)
        assert (summary.comparison is None) == (cell == ANALYTIC)
        assert summary.elsewhere.keys() == expected["elsewhere"].keys()
        for numbers_of, found in ((near, summary.comparison), (far, summary.elsewhere.get(FAR.name))):
            for name, expectation in numbers_of.get(cell, {}).items():
                assert getattr(found, name) == expectation, (cell, name)


def test_a_comparison_has_no_other_fields(numbers):
    known = {*compared(numbers, FAR)[FROZEN], "verdict", "reason"}
    assert known == {field.name for field in dataclasses.fields(Comparison)}


def test_verdicts_are_those_of_the_planted_differences(numbers, records):
    """One run of the table diverged, which can't make it better: the far metric's verdict is not given."""
    cells = {cell.cell: cell for cell in summarise(records).cells}
    assert {cell: cells[cell].comparison.verdict for cell in CELLS[1:]} == WORDS
    far = FAR_WORDS | {TABLE: "inconclusive"}
    assert {cell: cells[cell].elsewhere[FAR.name].verdict for cell in CELLS[1:]} == far


def test_every_field_of_the_summary(numbers, records):
    low, high = (last(numbers, ANALYTIC, m) for m in ONCE[-2:])
    expected = {
        "card": records[0].card,
        "metric": metrics.VALIDATION_LOSS,
        "cells": pytest.approx,
        "fidelity": pytest.approx,
        "failures": tuple(record for record in records if record.status == "diverged"),
        "environments": (records[0].environment,),
        "tuning_trials": 5,
        "pruned": 0,
        "runs": len(records),
        "inputs": {"position": (low.min(), high.max())},
        "notes": (
            "Judged before its end: of 9 seeds only 8 have been run in every cell. Words that come by looking until "
            "they do are wrong more often than 5 %; plan [evaluation] looks.",
            "The best setting is at the edge of its range for analytic (rate 1): a better one may lie beyond.",
        ),
        "session": throughput_session(records, records[0].card),  # which has tests of its own
        "error_budget": None,
        "times": None,
    }
    summary = summarise(records)
    assert expected.keys() == {field.name for field in dataclasses.fields(Summary)}
    for name in expected.keys() - {"cells", "fidelity"}:  # these have tests of their own
        assert getattr(summary, name) == expected[name], name
    assert summary.other_metrics() == (FAR.name, "accuracy")


def test_every_field_of_a_row_of_fidelity(numbers, records):
    _, _, errors, costs = numbers
    expected = [
        FidelityRow(
            function="sinusoidal",
            net=net,
            region=region,
            fitted=region == "8..15",
            errors={what: error for (of, where, what), error in errors.items() if (of, where) == (net, region)},
            costs={metric.name: cost for (of, metric), cost in costs.items() if of == net},
            leads=region == "0..7",
            fits=1,
            spreads={},
        )
        for net in ("fourier-mlp", "siren")
        for region in ("0..7", "8..15")
    ]
    assert list(summarise(records).fidelity) == expected
    assert {field.name for field in dataclasses.fields(FidelityRow)} == set(vars(expected[0]))


def test_a_study_records_the_largest_and_the_rms_of_each_change_under_their_own_names(finished_study):
    """Of many values that are not all alike, the largest is above the root mean square."""
    runs = load_results(finished_study.folder / "runs" / "tiny" / "results").records
    pairs = {
        (run.run_id, largest.name): (run.last(largest.name), run.last(rms.name))
        for run in runs
        for largest, rms in (
            (metrics.OUTPUT_DIFFERENCE_MAX, metrics.OUTPUT_DIFFERENCE_RMS),
            (metrics.SLOT_DRIFT_MAX, metrics.SLOT_DRIFT_RMS),
        )
        if run.phase == "evaluate" and run.cell.arm.startswith("learned-")
    }
    assert len(pairs) == 2 * 2 * 2  # two arms, two seeds, two quantities
    for key, (largest, rms) in pairs.items():
        assert 1.05 * rms < largest < 100 * rms, key


class Tables(HTMLParser):
    """Collects the tables of a page: rows of cells' texts."""

    def __init__(self, text):
        super().__init__()
        self.rows, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = []
        if tag == "br" and self._cell is not None:
            self._cell.append(" ")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)


@pytest.fixture
def tables(records, tmp_path):
    """The rows of report.md and of report.html, each by its column's heading and the first words of the row."""
    for record in records:
        write_run(record, tmp_path / "results")
    report = write_report(tmp_path)
    lines = report.markdown.read_text(encoding="utf-8").splitlines()
    markdown = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|") and "---" not in line
    ]
    return by_column(markdown), by_column(Tables(report.html.read_text(encoding="utf-8")).rows)


def by_column(rows):
    """Tables one after the other, each with a line of headings: what stands where, by heading and row."""
    found, headings, label = {}, (), ""
    for row in rows:
        if row[0] in ("arm", "net → function", "slot", "run", "tuned arm", "trial of"):
            headings = row
            continue
        label = row[0] or label.split(" / ")[0]
        key = f"{label} / {row[1]}" if headings[0] in ("net → function", "trial of") else row[0]
        label = key
        found |= {(key, heading): text for heading, text in zip(headings[1:], row[1:], strict=True)}
    return found


def plain(estimate):
    """An estimate without pytest.approx around its numbers, for the functions that write it."""
    return Estimate(estimate.value.expected, plain_ends(estimate.interval), estimate.count)


def plain_ends(interval):
    return interval and Interval(interval.low.expected, interval.high.expected)


def with_bounds(estimate, digits=4):
    shown = f"{value(plain(estimate), digits)} {bounds(plain(estimate), digits)}"
    return f"{shown} {limits(plain_ends(estimate.corrected), digits)}" if isinstance(estimate, SpeedRatio) else shown


def test_every_column_of_the_tables_of_arms(numbers, records, tables):
    near, far = compared(numbers, metrics.VALIDATION_LOSS), compared(numbers, FAR)
    markdown, page = tables
    for summary in summarise(records).cells:
        cell, label = summary.cell, summary.label

        def difference(comparison):
            return f"{signed(comparison['mean'].expected)} {interval_text(plain_ends(comparison['interval']))}"

        loss = with_bounds(mean(last(numbers, cell, metrics.VALIDATION_LOSS)))
        training = with_bounds(speed(numbers, cell, metrics.TRAINING_THROUGHPUT), 3)
        forward = with_bounds(speed(numbers, cell, metrics.FORWARD_THROUGHPUT), 3)
        far_loss = with_bounds(mean(last(numbers, cell, FAR)), 3)
        word = summary.elsewhere[FAR.name].verdict if cell in far else ""
        far_difference = f"{difference(far[cell])} {word}" if cell in far else ""
        pace = np.median(list(numbers[1][cell, metrics.TRAINING_THROUGHPUT].values()))
        size, added = (f"{last(numbers, cell, metric)[0]:,.0f}".replace(",", " ") for metric in SIZES)
        change = number(last(numbers, cell, metrics.OUTPUT_DIFFERENCE_MAX).max(), 2)
        drift = number(last(numbers, cell, metrics.SLOT_DRIFT_RMS).mean(), 2)
        accuracy = with_bounds(mean(last(numbers, cell, metrics.ACCURACY)), 3)
        described = plain(mean(last(numbers, cell, metrics.ACCURACY) - last(numbers, ANALYTIC, metrics.ACCURACY)))
        more = f"{signed(described.value)} {interval_text(described.interval)}" if cell in near else ""
        expected = {
            "seeds": f"{SEEDS}/{SEEDS + 1}",
            "validation loss [95 %]": loss,
            "difference from analytic [95 %]": difference(near[cell]) if cell in near else "–",
            "training speed [95 %] [corrected]": training,
            "validation loss 2x": far_loss + (f"; {far_difference}" if far_difference else ""),
            "accuracy": f"{accuracy}; {more}" if more else accuracy,
            "parameters in the slot": added,
            "output change at insertion": change,
            "drift (RMS)": drift,
        }
        assert {heading: markdown[label, heading] for heading in expected} == expected
        assert markdown[label, "verdict"].split(":")[0] == WORDS.get(cell, "–")
        differences = expected["difference from analytic [95 %]"]
        if cell in near:
            differences += interval_as_text(near[cell]["interval_adjusted"])
        on_page = {
            "seeds": f"{SEEDS}/{SEEDS + 1}",
            "validation loss mean [95 % interval]": loss.replace(" ", ""),
            "difference from analytic paired mean [95 % interval] [corrected]": f"{difference(near[cell])} "
            f"{interval_text(plain_ends(near[cell]['interval_adjusted']))}"
            if cell in near
            else "–",
            "smallest visible difference": number(near[cell]["visible"].expected, 2) if cell in near else "–",
            "training speed × analytic [95 %] [corrected]": training,
            "validation loss 2x": f"{far_loss} {far_difference}",
            "accuracy": f"{accuracy} {more}",
            "forward speed × analytic [95 %] [corrected]": forward,
            "tokens/s in training": f"{pace:,.0f}".replace(",", " "),
            "parameters": size,
            "of them in the slot": added,
            "output change at insertion": change,
            "drift from the function (RMS)": drift,
            "settings of the best of its 5 trials": f"rate {number(settings_of(cell), 2)}",
        }
        found = {heading: page[label, heading] for heading in on_page}
        squeezed = [{name: text.replace(" ", "") for name, text in row.items()} for row in (found, on_page)]
        assert squeezed[0] == squeezed[1]
        assert page[label, "verdict"].startswith(WORDS.get(cell, "what the others are compared with"))
        assert page[label, "the slot holds"] == f"{cell.arm} holds"
        assert page[label, "training moves"] == f"{cell.arm} moves"
        gaps = [trial_loss(cell, 1, seed) - trial_loss(cell, 2, seed) for seed in TUNING_SEEDS]
        gap = f"{signed(np.mean(gaps))} {interval_text(Interval(min(gaps), max(gaps)))}"
        tuning = {"best trial": "2", "its mean": number(tuned(cell)[2], 5), "runner-up": "1"}
        edge = "rate 1" if cell == ANALYTIC else "–"
        of_tuning = {"its difference [lowest, highest seed]": gap, "at the edge of its range": edge}
        assert {heading: markdown[label, heading] for heading in tuning | of_tuning} == tuning | of_tuning
        assert {heading: page[label, heading] for heading in tuning} == tuning
        shown_gap = page[label, "its difference from the best mean [lowest, highest seed]"]
        assert shown_gap.replace(" ", "") == gap.replace(" ", "")
        assert page[label, "at the edge of its range"] == (f"{edge} (low end)" if cell == ANALYTIC else "–")
        for trial in range(5):
            losses = [trial_loss(cell, trial, seed) for seed in TUNING_SEEDS]
            row = {
                "settings": f"rate {number(rate(cell, trial), 4)}",
                "standard deviation": number(np.std(losses, ddof=1), 2),
                "by seed": " ".join(number(loss, 5) for loss in losses),
            }
            for table, mean_column in ((markdown, "mean over tuning seeds"), (page, f"{LOSS} mean over tuning seeds")):
                whole = row | {mean_column: number(np.mean(losses), 5)}
                assert {heading: table[f"{label} / {trial}", heading] for heading in whole} == whole
    trials = {*tuning, *of_tuning, *row, "its difference from the best mean [lowest, highest seed]", "trial"}
    trials |= {"mean over tuning seeds", f"{LOSS} mean over tuning seeds"}
    known = {heading for _, heading in markdown} | {heading for _, heading in page}
    fidelity = {"inputs", "largest error", "RMS error", "relative error", "of the derivative", "parameters"}
    fidelity |= {"largest error of the derivative", "FLOP/input", "µs/call", "µs/call folded", "fit, s"}
    rest = {"verdict", "the slot holds", "training moves", "lowest input", "highest input", "status", "why"}
    assert known == set(expected) | set(on_page) | fidelity | rest | trials


def test_every_column_of_the_tables_of_fidelity_and_inputs(numbers, tables):
    _, _, errors, costs = numbers
    markdown, page = tables
    for net, region in itertools.product(("fourier-mlp", "siren"), ("0..7", "8..15")):
        fitted = region == "8..15"
        row = f"{net} → sinusoidal / {region}{' (fitted)' if fitted else ''}"
        columns = {
            "largest error": "max_error",
            "RMS error": "rms_error",
            "relative error": "relative_error",
            "of the derivative": "derivative_max_error",
        }
        shown = {heading: number(errors[net, region, quantity]) for heading, quantity in columns.items()}
        assert {heading: markdown[row, heading] for heading in shown} == shown
        shown["largest error of the derivative"] = shown.pop("of the derivative")
        counts = {"parameters": metrics.NET_PARAMETERS, "FLOP/input": metrics.NET_FLOPS}
        times = {"µs/call": metrics.CALL_TIME, "µs/call folded": metrics.FOLDED_CALL_TIME, "fit, s": metrics.FIT_TIME}
        for heading, metric in counts.items():
            shown[heading] = f"{costs[net, metric]:,.0f}".replace(",", " ") if fitted else ""
        for heading, metric in times.items():
            shown[heading] = number(costs[net, metric]) if fitted else ""
        assert {heading: page[row, heading] for heading in shown} == shown
    low, high = (last(numbers, ANALYTIC, metric) for metric in ONCE[-2:])
    assert page["position", "lowest input"] == number(low.min())
    assert page["position", "highest input"] == number(high.max())


def test_the_figure_of_accuracy_against_speed_has_training_speed_and_the_judged_metric(numbers, records):
    figure = accuracy_against_speed(summarise(records))
    for cell, trace in zip(CELLS, figure.data, strict=True):
        training = speed(numbers, cell, metrics.TRAINING_THROUGHPUT)
        loss = mean(last(numbers, cell, metrics.VALIDATION_LOSS))
        for (place,), bars, expected in ((trace.x, trace.error_x, training), (trace.y, trace.error_y, loss)):
            assert place == expected.value
            assert place + bars.array[0] == expected.interval.high
            assert place - bars.arrayminus[0] == expected.interval.low


def test_a_metric_of_another_unit_has_no_comparison(records):
    """The margin is in the judged metric's unit."""
    percent = Metric("other", "%", higher_is_better=False)
    changed = [
        dataclasses.replace(record, measurements=(*record.measurements, Measurement(percent, 1.5 + record.seed, 20)))
        for record in records
    ]
    for cell in summarise(changed).cells:
        assert cell.others["other"].value == pytest.approx(np.mean(1.5 + np.arange(SEEDS + (cell.cell == TABLE))))
        assert "other" not in cell.elsewhere
