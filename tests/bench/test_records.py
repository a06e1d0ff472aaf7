"""Every column of a benchmark's records holds the quantity of its name, in its unit."""

import pytest

from trans4init.bench.measuring.conditions import Conditions
from trans4init.bench.measuring.rounds import Round
from trans4init.bench.measuring.worker import Measured, Timing
from trans4init.bench.records import facts, records
from trans4init.bench.suite import Case, Suite
from trans4init.reports.machine import Environment
from trans4init.reports.speed.speeds import BASELINE_NOTE, COLOUR_NOTE, MISSING_NOTE, THREADS_NOTE

ENVIRONMENT = Environment("3.11.7", "Linux x86_64", "a processor", 2, 8.0, 2000.0, "a GPU", "abc", {})
RATES = {"matmul": 7e9, "copy": 3e9}
CASE = Case("twice", "L=64", {"length": 64}, flop=11e6, bytes=13e6, tokens=640, runs=5)
CONDITIONS = (
    Conditions(0.05, 1.5, 1900.0, 41.0, ""),
    Conditions(0.30, 2.5, 1800.0, 42.0, ""),  # used by others
    Conditions(0.04, 3.5, 1700.0, 43.0, "hw_slowdown"),
    Conditions(0.03, 4.5, 1600.0, 44.0, ""),  # the quick implementation waits for a core
)


@pytest.fixture
def measured():
    """A case of four rounds, in which no two quantities are equal."""
    timings = {
        "slow": Timing("ok", "", 9.0, 4096.0, {number: 0.02 + 0.001 * number for number in range(4)}),
        "quick": Timing("ok", "", 8.0, 2048.0, {number: 0.01 + 0.002 * number for number in range(4)}, {3}),
        "absent": Timing("missing", "needs a GPU"),
        "broken": Timing("failed", "Traceback\nRuntimeError: no"),
        "hungry": Timing("oom", "out of memory"),
    }
    rounds = {number: Round(number, conditions) for number, conditions in enumerate(CONDITIONS)}
    return Measured(CASE, timings, rounds, 4, 6)


@pytest.fixture
def record_of(measured):
    """The records of the case by implementation."""
    suite = Suite("doubling", lambda: [CASE], lambda case: None, lambda *_: "", baseline="slow")
    for name in measured.timings:
        suite.implementation(name, colour="#123456" if name == "quick" else "")(lambda inputs: lambda: None)
    return {record.cell.arm: record for record in records(suite, measured, RATES, ENVIRONMENT, "a session")}


def test_every_metric_has_its_own_quantity_and_unit(record_of):
    columns = {}
    for measurement in record_of["quick"].measurements:
        values = columns.setdefault((measurement.metric.name, measurement.metric.unit), {})
        values[measurement.step] = measurement.value
    assert columns == {
        ("latency", "ms"): pytest.approx({0: 10.0, 1: 12.0, 2: 14.0, 3: 16.0}),
        ("contended", "1"): {0: 0.0, 1: 1.0, 2: 1.0, 3: 1.0},
        ("interrupted", "1"): {0: 0.0, 1: 0.0, 2: 0.0, 3: 1.0},
        ("others_share", "1"): {0: 0.05, 1: 0.30, 2: 0.04, 3: 0.03},
        ("load_average", "processes"): {0: 1.5, 1: 2.5, 2: 3.5, 3: 4.5},
        ("clock", "MHz"): {0: 1900.0, 1: 1800.0, 2: 1700.0, 3: 1600.0},
        ("temperature", "°C"): {0: 41.0, 1: 42.0, 2: 43.0, 3: 44.0},
        ("first_call_time", "s"): {0: 8.0},
        ("peak_memory", "byte"): {0: 2048.0},
        ("least_flop", "FLOP"): {0: 11e6},
        ("least_bytes", "byte"): {0: 13e6},
        ("tokens_per_call", "tokens"): {0: 640.0},
        ("runs_per_call", "runs"): {0: 5.0},
        ("matmul_rate", "FLOP/s"): {0: 7e9},
        ("copy_rate", "byte/s"): {0: 3e9},
    }


def test_a_sample_that_waited_for_a_core_marks_its_own_implementation_alone(record_of):
    assert record_of["slow"].by_step("contended") == {0: 0.0, 1: 1.0, 2: 1.0, 3: 0.0}
    assert record_of["slow"].by_step("interrupted") == dict.fromkeys(range(4), 0.0)


def test_what_a_case_does_not_count_has_no_row(measured, record_of):
    plain = Measured(Case("twice"), measured.timings, measured.rounds, 4, 6)
    suite = Suite("doubling", lambda: [plain.case], lambda case: None, lambda *_: "", baseline="slow")
    first = next(records(suite, plain, {}, ENVIRONMENT, "a session"))
    names = {measurement.metric.name for measurement in first.measurements}
    assert names == {measurement.metric.name for measurement in record_of["slow"].measurements} - {
        "least_flop", "least_bytes", "tokens_per_call", "runs_per_call", "matmul_rate", "copy_rate",
    }  # fmt: skip


def test_a_record_says_what_was_measured_and_how_it_ended(record_of):
    quick = record_of["quick"]
    assert (quick.task, quick.cell.function, quick.model, quick.spec_hash) == ("doubling", "twice", "L=64", "a session")
    assert (quick.study, quick.phase, quick.device) == ("bench", "throughput", "a GPU")
    assert quick.parameters == {"length": 64.0}
    of_all = {BASELINE_NOTE: "slow", THREADS_NOTE: "6", "throttled": "hw_slowdown"}
    assert quick.notes == of_all | {COLOUR_NOTE: "#123456"}
    assert record_of["absent"].notes == of_all | {MISSING_NOTE: "needs a GPU"}
    assert {name: (record.status, record.error) for name, record in record_of.items()} == {
        "slow": ("ok", ""),
        "quick": ("ok", ""),
        "absent": ("failed", "needs a GPU"),
        "broken": ("failed", "Traceback\nRuntimeError: no"),
        "hungry": ("oom", "out of memory"),
    }
    for name in ("absent", "broken", "hungry"):
        [measurement] = record_of[name].measurements
        assert (measurement.metric.name, measurement.value) == ("latency", None)


def test_pytest_benchmark_gets_the_same_quantities(measured):
    extra_info = facts("doubling", measured, "quick", RATES)
    conditions = extra_info.pop("conditions")
    assert conditions[2] == {
        "others_share": 0.04, "load": 3.5, "clock": 1700.0, "temperature": 43.0, "throttled": "hw_slowdown",
    }  # fmt: skip
    assert extra_info == {
        "suite": "doubling",
        "operator": "twice",
        "shape": {"length": 64},
        "threads": 6,
        "least_flop": 11e6,
        "least_bytes": 13e6,
        "flop_per_s": pytest.approx(11e6 / 0.013),
        "bytes_per_s": pytest.approx(13e6 / 0.013),
        "of_matmul_rate": pytest.approx(11e6 / 0.013 / 7e9),
        "of_copy_rate": pytest.approx(13e6 / 0.013 / 3e9),
        "first_call_s": 8.0,
        "peak_bytes": 2048.0,
        "machine_rates": RATES,
        "contended_rounds": [1, 2, 3],
    }
    without = facts("doubling", measured, "absent", {})
    assert {
        without[name] for name in ("flop_per_s", "bytes_per_s", "of_matmul_rate", "of_copy_rate", "peak_bytes")
    } == {None}
    assert without["contended_rounds"] == [1, 2]
