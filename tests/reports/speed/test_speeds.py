"""What a benchmark's rows say: the summary, the table, the page, the mirror."""

import dataclasses
import importlib.util
import re
import sys
from datetime import timedelta

import numpy as np
import pytest

from trans4init.reports.formats import number, significant
from trans4init.reports.mirror.speeds import mirror_speeds
from trans4init.reports.mirror.store import Store
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import Results
from trans4init.reports.speed.page import write_speed_page
from trans4init.reports.speed.speeds import (
    BASELINE_NOTE,
    COLOUR_NOTE,
    MISSING_NOTE,
    STUDY,
    THREADS_NOTE,
    Spread,
    Work,
    speeds,
)
from trans4init.reports.speed.table import print_speeds
from trans4init.reports.statistics import Interval


@pytest.fixture
def make_speed(make_record):
    """A record of one implementation: its times by round in ms, or why it has none."""

    def make(implementation, times, *, size="length 64", length=64, session="one", error="", missing=False, **special):
        found = [Measurement(metrics.LATENCY, time, step) for step, time in enumerate(times)]
        found += [Measurement(metrics.CONTENDED, float(step == 1), step) for step in range(len(times))]
        found += [
            Measurement(metrics.LEAST_FLOP, 2e9),
            Measurement(metrics.LEAST_BYTES, 1e6),
            Measurement(metrics.MATMUL_RATE, 1e12),
            Measurement(metrics.COPY_RATE, 1e10),
            Measurement(metrics.PEAK_MEMORY, 2**20),
            Measurement(metrics.TOKENS_PER_CALL, 100.0),
        ]
        return make_record(
            run_id=f"bench-{implementation}-{size}-{session}",
            study=STUDY,
            spec_hash=session,
            cell=CellKey("twice", implementation),
            task="doubling",
            model=size,
            parameters={"length": length},
            phase="throughput",
            status="failed" if error else "ok",
            error=error,
            card=None,
            measurements=tuple(found) if times else (Measurement(metrics.LATENCY, None),),
            notes={BASELINE_NOTE: "slow"} | ({MISSING_NOTE: error} if missing else {}),
            **special,
        )

    return make


@pytest.fixture
def records(make_speed):
    return [
        make_speed("slow", [8.0, 16.0, 8.0, 8.0, 16.0, 8.0]),
        make_speed("quick", [4.0, 4.0, 4.0, 4.0, 4.0, 4.0]),
        make_speed("gone", [], error="needs a GPU", missing=True),
        make_speed("broken", [], error="Traceback\nRuntimeError: no"),
        make_speed("slow", [16.0, 16.0, 16.0], size="length 128", length=128),
        make_speed("quick", [8.0, 8.0, 8.0], size="length 128", length=128),
    ]


def test_times_ratios_and_limits_are_those_of_the_rows(records):
    [suite] = speeds(records)
    assert (suite.suite, suite.baseline, suite.matmul_rate, suite.copy_rate) == ("doubling", "slow", 1e12, 1e10)
    case = suite.cases[0]
    assert (case.rounds, case.contended, case.least_milliseconds) == (6, 1, 2.0)  # 2e9 FLOP take longer than 1e6 bytes
    by_name = {speed.implementation: speed for speed in case.speeds}
    assert by_name["slow"].ratio is None
    quick = by_name["quick"]
    assert quick.milliseconds.median == 4.0
    assert quick.ratio == 2.0  # the median of 2, 4, 2, 2, 4 and 2, round by round
    assert quick.share_of_limit == 0.5
    assert (quick.work.rate, quick.work.unit) == (25_000, "tokens/s")
    assert (quick.flop_rate, quick.byte_rate) == (5e11, 2.5e8)
    assert (by_name["gone"].status, by_name["gone"].error) == ("missing", "needs a GPU")
    assert (by_name["broken"].status, by_name["broken"].error) == ("failed", "RuntimeError: no")


@pytest.fixture
def distinct(make_record):
    """A baseline and another implementation of one case, no two of whose numbers are equal."""

    def make(implementation, times, contended, **values):
        rows = [Measurement(metrics.LATENCY, time, step) for step, time in enumerate(times)]
        rows += [Measurement(metrics.CONTENDED, float(step in contended), step) for step in range(len(times))]
        rows += [Measurement(metrics.INTERRUPTED, 1.0, step) for step in range(len(times))]
        rows += [Measurement(getattr(metrics, name), value) for name, value in values.items()]
        return make_record(
            run_id=f"bench-{implementation}",
            study=STUDY,
            spec_hash="session-1",
            cell=CellKey("operator-1", implementation),
            task="suite-1",
            model="size-1",
            parameters={"length": 64.0, "width": 8.0},
            phase="throughput",
            card=None,
            measurements=tuple(rows),
            notes={BASELINE_NOTE: "slow", THREADS_NOTE: "3", COLOUR_NOTE: f"colour of {implementation}"},
        )

    machine = {"LEAST_FLOP": 3e9, "LEAST_BYTES": 7e6, "MATMUL_RATE": 1.1e12, "COPY_RATE": 1.3e10}
    slow = make("slow", SLOW, {1}, PEAK_MEMORY=5e6, FIRST_CALL_TIME=0.7, TOKENS_PER_CALL=170.0, **machine)
    quick = make("quick", QUICK, {1, 4}, PEAK_MEMORY=2e6, FIRST_CALL_TIME=0.9, TOKENS_PER_CALL=190.0, **machine)
    return [slow, quick]


SLOW = [11.0, 12.5, 13.0, 14.5, 16.0, 17.5, 19.0, 21.5]
QUICK = [5.0, 6.0, 6.5, 5.5, 8.0, 7.0, 9.5, 7.5]


def test_every_field_of_a_suite_a_case_and_a_speed(distinct):
    [suite] = speeds(distinct)
    [case] = suite.cases
    slow, quick = case.speeds
    assert {field.name: getattr(suite, field.name) for field in dataclasses.fields(suite)} == {
        "suite": "suite-1",
        "baseline": "slow",
        "session": "session-1",
        "machine": "a processor, 2 cores",
        "settings": "torch 2.13.0, 3 threads",
        "commit": "abc",
        "matmul_rate": 1.1e12,
        "copy_rate": 1.3e10,
        "cases": (case,),
        "records": tuple(distinct),
    }
    least = 1e3 * max(3e9 / 1.1e12, 7e6 / 1.3e10)
    assert {field.name: getattr(case, field.name) for field in dataclasses.fields(case)} == {
        "operator": "operator-1",
        "size": "size-1",
        "shape": {"length": 64.0, "width": 8.0},
        "speeds": (slow, quick),
        "rounds": 8,
        "contended": 2,
        "flop": 3e9,
        "bytes": 7e6,
        "least_milliseconds": pytest.approx(least),
    }
    ratios = np.array(SLOW) / np.array(QUICK)
    low, high = min(ratios), max(ratios)  # one further in, of eight, would hold the median in .93 of samples
    median = float(np.median(QUICK))
    assert {field.name: getattr(quick, field.name) for field in dataclasses.fields(quick)} == {
        "implementation": "quick",
        "status": "ok",
        "error": "",
        "milliseconds": Spread(median, float(np.quantile(QUICK, 0.25)), float(np.quantile(QUICK, 0.75))),
        "ratio": pytest.approx(np.median(ratios)),
        "ratio_interval": Interval(pytest.approx(low), pytest.approx(high)),
        "first_call_seconds": 0.9,
        "peak_bytes": 2e6,
        "work": Work(pytest.approx(1e3 * 190 / median), "tokens/s"),
        "flop_rate": pytest.approx(3e12 / median),
        "byte_rate": pytest.approx(7e9 / median),
        "share_of_limit": pytest.approx(least / median),
        "colour": "colour of quick",
    }
    assert (slow.milliseconds.median, slow.ratio, slow.ratio_interval) == (np.median(SLOW), None, None)


def test_every_column_of_the_page(distinct, tmp_path):
    distinct = [dataclasses.replace(record, notes={BASELINE_NOTE: "slow"}) for record in distinct]
    page = write_speed_page(tmp_path, Results(tuple(distinct))).read_text(encoding="utf-8")
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    ]
    headings, slow, quick = ([re.sub(r"<[^>]*>", " ", cell).split() for cell in row] for row in rows)
    headings = [" ".join(heading) for heading in headings]
    [suite] = speeds(distinct)
    speed = suite.cases[0].speeds[1]
    ends = speed.ratio_interval
    expected = {
        "case": "",
        "implementation": "quick",
        "ms": number(np.median(QUICK), 4),
        "quartiles": f"{number(np.quantile(QUICK, 0.25))}–{number(np.quantile(QUICK, 0.75))}",
        "× slow [95 %]": f"{number(speed.ratio)} [{number(ends.low)}, {number(ends.high)}]",
        "GFLOP/s": number(3e3 / np.median(QUICK)),
        "GB/s": number(7 / np.median(QUICK)),
        "of matmul": f"{100 * 3e12 / np.median(QUICK) / 1.1e12:.0f} %",
        "of copy": f"{100 * 7e9 / np.median(QUICK) / 1.3e10:.0f} %",
        "of limit": f"{100 * 1e3 * 3e9 / 1.1e12 / np.median(QUICK):.0f} %",
        "MiB": f"{2e6 / 2**20:.1f}",
        "work": f"{1e3 * 190 / np.median(QUICK):,.0f} tokens/s".replace(",", " "),
        "first call, s": "0.9",
        "rounds (contended)": "8 (2)",
    }
    assert dict(zip(headings, (" ".join(cell) for cell in quick), strict=True)) == expected
    assert (slow[0], slow[1], slow[4]) == (["operator-1", "size-1"], ["slow"], ["–"])


def test_the_newest_measurement_of_a_suite_counts(records, make_speed):
    later = max(record.created_at for record in records) + timedelta(hours=1)
    [suite] = speeds([*records, make_speed("slow", [1.0], session="two", created_at=later)])
    assert suite.session == "two"
    on_gpu = dataclasses.replace(records[0].environment, accelerator="a GPU")
    other = dataclasses.replace(records[0], environment=on_gpu, run_id="other")
    assert len(speeds([*records, other])) == 2


@pytest.mark.parametrize("rich", [True, False])
def test_the_table_fits_a_hundred_columns_and_names_everything(records, capsys, monkeypatch, rich):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    print_speeds(speeds(records))
    shown = capsys.readouterr().out
    for said in (
        "needs a GPU: gone",
        "failed: RuntimeError: no",
        "2.00 [2.00, 4.00]",
        "25,000 tok/s",
        "1 of 6 rounds contended",
        "50%",
    ):
        assert said in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("rounds", [5, 6])
def test_a_ratio_of_few_rounds_has_no_interval(make_speed, rounds):
    [suite] = speeds([make_speed("slow", [8.0] * rounds), make_speed("quick", [4.0] * rounds)])
    [quick] = [speed for speed in suite.cases[0].speeds if speed.implementation == "quick"]
    assert quick.ratio == 2.0
    assert (quick.ratio_interval is None) == (rounds < 6)  # 2 / 2^6 is less than 5 %


def test_a_ratio_without_an_interval_is_printed_without(make_speed, capsys):
    [suite] = speeds([make_speed("slow", [8.0, 8.0]), make_speed("quick", [4.0, 2.0])])
    [quick] = [speed for speed in suite.cases[0].speeds if speed.implementation == "quick"]
    assert (quick.ratio, quick.ratio_interval) == (3.0, None)
    print_speeds([suite])
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  quick")]
    assert line.split()[3] == "3.00"
    assert "[" not in line


def test_what_is_nearer_to_the_copy_rate_is_given_in_bytes(make_speed, capsys):
    def bound_by(least_bytes):
        record = make_speed("slow", [8.0, 8.0, 8.0])
        kept = [m for m in record.measurements if m.metric not in (metrics.LEAST_BYTES, metrics.TOKENS_PER_CALL)]
        return dataclasses.replace(record, measurements=(*kept, Measurement(metrics.LEAST_BYTES, least_bytes)))

    for least_bytes, said in ((1e6, "250 GFLOP/s"), (8e7, "10 GB/s")):  # of 1000 GFLOP/s and of 10 GB/s
        print_speeds(speeds([bound_by(least_bytes)]))
        assert said in capsys.readouterr().out


def test_a_long_list_of_what_is_missing_is_there_to_its_end(make_speed, capsys):
    names = [f"implementation number {number}" for number in range(9)]
    records = [make_speed("slow", [8.0]), *(make_speed(name, [], error="needs a GPU", missing=True) for name in names)]
    print_speeds(speeds(records))
    shown = capsys.readouterr().out
    assert "; ".join(names) in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 100


def test_a_name_that_is_too_long_takes_no_figure_away(make_speed, capsys):
    print_speeds(speeds([make_speed("slow", [8.0]), make_speed("an implementation with a long name", [1234.5])]))
    [line] = [line for line in capsys.readouterr().out.splitlines() if "implementation" in line]
    assert line.split()[-1] == "1.0"
    assert "1234 " in line


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(999.6, 3, "1,000"), (9999.7, 4, "10,000"), (999.4, 3, "999"), (1234.5, 4, "1234"), (0.01234, 3, "0.0123")],
)
def test_a_figure_has_its_digits_and_no_exponent(value, digits, said):
    assert significant(value, digits) == said


def test_the_page_draws_growth_where_something_grew_and_memory_where_it_was_counted(records, tmp_path):
    def drawn(some):
        text = write_speed_page(tmp_path, Results(tuple(some))).read_text()
        return "Growth with length" in text, "<!-- above the inputs -->" in text

    def uncounted(record):
        kept = tuple(m for m in record.measurements if m.metric != metrics.PEAK_MEMORY)
        return dataclasses.replace(record, measurements=kept)

    assert drawn(records) == (True, True)
    assert drawn(map(uncounted, records)) == (True, False)
    assert drawn([records[0], records[5]]) == (False, True)  # two lengths, each of another implementation


def test_the_page_asks_nothing_of_a_network_and_is_the_same_again(records, tmp_path):
    page = write_speed_page(tmp_path, Results(tuple(records)))
    text = page.read_text()
    assert "Growth with length" in text
    assert "roofline" in text
    assert "missing: needs a GPU" in text
    assert not re.search(r'(src|href)="https?:', text)
    assert write_speed_page(tmp_path, Results(tuple(records))).read_text() == text


def test_mlflow_has_one_run_for_each_time_a_suite_was_measured(records, make_speed, tmp_path):
    records = [*records, make_speed("slow", [1.0], session="two")]
    assert mirror_speeds(tmp_path, records) == (2, [])
    assert mirror_speeds(tmp_path, records) == (0, [])
    client = Store(tmp_path).client
    experiment = client.get_experiment_by_name("bench")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"  # shown as runs, not as chats
    values = next(run.data.metrics for run in runs if run.data.tags["trans4init.session"] == "one")
    assert values["twice/length 64/quick/ms"] == 4.0
    assert values["twice/length 64/quick/ratio"] == 2.0
    assert values["twice/length 64/quick/MiB"] == 1.0
    assert values["machine/matmul GFLOP per s"] == 1000.0
    assert values["machine/contended share of rounds"] == pytest.approx(2 / 9)
    assert values["machine/copy GB per s"] == 10.0


def test_every_tag_parameter_and_metric_of_a_suite_in_mlflow(distinct, tmp_path):
    assert mirror_speeds(tmp_path, distinct) == (1, [])
    client = Store(tmp_path).client
    [run] = client.search_runs([client.get_experiment_by_name("bench").experiment_id])
    assert (
        run.data.tags.items()
        >= {
            "trans4init.session": "session-1",
            "suite": "suite-1",
            "device": "a processor, 2 cores",
            "commit": "abc",
            "mlflow.runName": "suite-1 abc",
        }.items()
    )
    assert run.data.params == {"suite": "suite-1", "device": "a processor, 2 cores", "commit": "abc"}
    ratios = np.array(SLOW) / np.array(QUICK)
    assert run.data.metrics == pytest.approx(
        {
            "operator-1/size-1/slow/ms": np.median(SLOW),
            "operator-1/size-1/slow/MiB": 5e6 / 2**20,
            "operator-1/size-1/quick/ms": np.median(QUICK),
            "operator-1/size-1/quick/ratio": np.median(ratios),
            "operator-1/size-1/quick/MiB": 2e6 / 2**20,
            "machine/matmul GFLOP per s": 1100.0,
            "machine/copy GB per s": 13.0,
            "machine/contended share of rounds": 2 / 8,
        }
    )


def test_machines_without_a_gpu_are_told_apart_by_their_processors(make_speed):
    here = make_speed("slow", [8.0])
    other = dataclasses.replace(here.environment, processor="another", cores=64, versions={"torch": "2.13"})
    there = dataclasses.replace(here, environment=other, notes=dict(here.notes) | {THREADS_NOTE: "64"})
    found = speeds([here, there])
    assert len(found) == 2
    assert (found[1].machine, found[1].settings) == ("another, 64 cores", "torch 2.13, 64 threads")
