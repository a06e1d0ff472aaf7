"""pytest on a suite: what pytest-benchmark stores, what is printed, and what is left after an interruption."""

import json
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from trans4init.bench.replay import ReplayClock
from trans4init.reports.records import metrics
from trans4init.reports.records.store import load_results
from trans4init.reports.speed.speeds import speeds

SLOW = """

@SUITE.implementation("slow")
def slow(inputs):
    if len(inputs) > 1000:
        with open("asleep", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    return lambda: inputs * 2
"""


def test_the_clock_takes_as_long_as_it_is_told():
    clock = ReplayClock()
    clock.load([0.5, 2.0])
    times = []
    for _ in range(2):
        start = clock()
        clock.tick()
        times.append(clock() - start)
    assert times == [0.5, 2.0]


def test_pytest_benchmark_keeps_the_samples_that_are_in_the_rows(suite_file, run_benchmark, tmp_path):
    ledger = tmp_path / "ledger.json"
    code, output = run_benchmark(suite_file(), "--quick", f"--benchmark-json={ledger}")
    assert code == 0, output
    tests = {test["params"]["implementation"]: test for test in json.loads(ledger.read_text())["benchmarks"]}
    records = {r.cell.arm: r for r in load_results(tmp_path / "out" / "results").records if r.task == "doubling"}
    assert set(tests) == set(records) == {"times", "plus"}
    assert {test["params"]["case"] for test in tests.values()} == {"double 1k"}  # so that it can be grouped by
    for name, record in records.items():
        rows = [m.value for m in record.measurements if m.metric.name == metrics.LATENCY.name]
        assert [1e3 * seconds for seconds in tests[name]["stats"]["data"]] == pytest.approx(rows)
        facts = tests[name]["extra_info"]
        assert facts["least_bytes"] == 8e3
        assert set(facts["machine_rates"]) == {"matmul", "copy"}
        assert facts["bytes_per_s"] == pytest.approx(8e3 / tests[name]["stats"]["median"])
        assert facts["of_copy_rate"] == pytest.approx(facts["bytes_per_s"] / facts["machine_rates"]["copy"])
        assert facts["threads"] == 1
        assert len(facts["conditions"]) == len(tests[name]["stats"]["data"])
        assert set(facts["conditions"]["0"]) == {"others_share", "load", "clock", "temperature", "throttled"}
        assert record.phase == "throughput"
        assert record.study == "bench"


def test_trouble_is_said_in_the_table_and_counted_by_the_exit_code(suite_file, trouble, run_benchmark, tmp_path):
    quick_trouble = trouble.split('@SUITE.implementation("dying")')[0]
    code, output = run_benchmark(suite_file(quick_trouble), "--quick", "--benchmark-quiet", "-q")
    assert code == 1
    for line in ("needs a GPU: absent", "oom: all 3 GiB are gone", "failed: RuntimeError: no such luck"):
        assert line in output
    assert "times as fast as “times”" in output
    table = output[output.index("machine on") : output.index("results  ")]
    assert max(map(len, table.splitlines())) <= 100
    [doubling] = [
        suite for suite in speeds(load_results(tmp_path / "out" / "results").records) if suite.suite != "machine"
    ]
    [case] = doubling.cases
    status = {speed.implementation: speed.status for speed in case.speeds}
    assert status == {
        "times": "ok", "plus": "ok", "wrong": "failed", "absent": "missing", "raising": "failed", "hungry": "oom",
        "hungry on the processor": "oom",
    }  # fmt: skip


@pytest.mark.parametrize(("word", "passed"), [("--benchmark-only", 1), ("--benchmark-skip", 0)])
def test_pytest_benchmark_knows_them_for_benchmarks(suite_file, run_benchmark, word, passed):
    code, output = run_benchmark(suite_file(), "--quick", word, "-k", "plus", "-W", "error")
    assert code == 0, output
    assert f"{passed} passed" in output if passed else "1 skipped" in output


def test_results_that_can_not_be_written_end_it_with_one_sentence(suite_file, run_benchmark, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, output = run_benchmark(suite_file(), "--quick", "-q")
    assert code == 1
    assert "can't be written to: Not a directory." in output
    assert "Traceback" not in output


def test_ctrl_c_keeps_what_was_measured(suite_file, start_benchmark, tmp_path):
    process = start_benchmark(suite_file(SLOW))
    end = time.monotonic() + 200
    while len(list((tmp_path / "out" / "results").glob("*.parquet"))) < 3:  # the two rates, and the first case
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2, output
    kept = [record for record in load_results(tmp_path / "out" / "results").records if record.task == "doubling"]
    assert [(record.model, record.status) for record in kept] == [("1k", "ok")] * 3
    assert "results" in output


def test_a_worker_ends_with_the_process_that_waits_for_it(suite_file, start_benchmark, tmp_path):
    process = start_benchmark(suite_file(SLOW))
    end = time.monotonic() + 200
    while not (asleep := tmp_path / "asleep").exists() or not asleep.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.kill()
    end = time.monotonic() + 30  # without being told, it would go on for 60
    while Path(f"/proc/{asleep.read_text()}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.communicate()


def test_a_second_benchmark_stops_with_one_sentence(suite_file, run_benchmark, tmp_path):
    with FileLock(tmp_path / "trans4init-bench.lock"):
        code, output = run_benchmark(suite_file(), "--quick", "-q")
    assert code == 1
    assert "another benchmark is measuring on this machine; wait until it ends." in output
    assert not (tmp_path / "out").exists()


def test_side_by_side_implementations_are_checked_and_nothing_is_timed_or_kept(suite_file, run_benchmark, tmp_path):
    """pytest-benchmark is disabled under pytest-xdist as it is by --benchmark-disable. Another benchmark goes on."""
    wrong = """

@SUITE.implementation("wrong")
def wrong(inputs):
    return lambda: inputs * 3
"""
    with FileLock(tmp_path / "trans4init-bench.lock"):
        code, output = run_benchmark(suite_file(wrong), "--quick", "-n", "2", "-q")
    assert code == 1
    assert "wrong result, so no time: it is not twice the input" in output
    assert "1 failed, 2 passed" in output
    assert "times as fast" not in output
    assert not (tmp_path / "out").exists()


def test_no_case_begins_when_the_time_is_up(suite_file, run_benchmark, tmp_path):
    code, output = run_benchmark(suite_file(), "--minutes", "0", "-rs")
    assert code == 0
    assert "left out: the minutes are over" in output


def test_it_measures_where_little_is_installed(suite_file, run_benchmark, tmp_path):
    """Without the packages that only studies and reports need, all records are written, without a table."""
    absent = ["mlflow", "optuna", "rich", "pydantic", "tyro", "scipy", "sklearn", "jinja2", "matplotlib", "plotly"]
    block = f"import sys\nfor name in {absent}:\n    sys.modules[name] = None\n"
    (tmp_path / "blocker.py").write_text(block)
    file = suite_file(block)
    code, output = run_benchmark(file, "--quick")
    assert code == 0, output
    assert {r.status for r in load_results(tmp_path / "out" / "results").records} == {"ok"}
