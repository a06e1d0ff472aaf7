"""The machine's state is recorded while rounds are measured; a GPU's by a fake nvidia-smi."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trans4init.bench.measuring.conditions import Conditions, GpuSample, GpuSampler, Observer, read_sample
from trans4init.bench.measuring.rounds import Round, seconds_waited
from trans4init.bench.measuring.worker import Measured
from trans4init.bench.records import contended_rounds
from trans4init.bench.suite import Case

QUIET = "1980, 41, Not Active, Not Active, Not Active, Not Active, Not Active"
HOT = "1200, 88, Not Active, Not Active, Active, Active, Not Active"
NVIDIA_SMI = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *{refused}*) echo 'Field is not a valid field to query.'; exit 2;; esac
case "$*" in *--loop-ms=*) ;; *) echo '{first}'; exit 0;; esac
while true; do cat {said}; sleep 0.02; done
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a fake nvidia-smi on the path that repeats the line in the file `said`; returns the log of its arguments."""

    def install(line, refused="nothing"):
        (tmp_path / "said").write_text(line + "\n")
        program = tmp_path / "nvidia-smi"
        values = {"log": tmp_path / "log", "said": tmp_path / "said", "refused": refused, "first": QUIET}
        program.write_text(NVIDIA_SMI.format(**values))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "log"

    return install


def first_conditions(observer):
    """Return the observer's conditions as soon as it has had a sample."""
    end = time.monotonic() + 60
    while (conditions := observer.close()).clock is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return conditions


def test_a_line_is_clock_temperature_and_reasons():
    assert read_sample(QUIET) == GpuSample(1980.0, 41.0, ())
    assert read_sample(HOT) == GpuSample(1200.0, 88.0, ("sw_thermal_slowdown", "hw_thermal_slowdown"))
    assert read_sample(QUIET.replace("1980", "[N/A]")) == GpuSample(None, 41.0, ())
    assert read_sample("Unable to determine the device handle") is None


def test_a_throttled_gpu_is_seen_while_it_is(nvidia_smi, tmp_path):
    nvidia_smi(HOT)
    with Observer("0") as observer:
        hot = first_conditions(observer)
        (tmp_path / "said").write_text(QUIET + "\n")
        end = time.monotonic() + 60
        while (quiet := first_conditions(observer)).throttled:  # a stretch with samples from before
            assert time.monotonic() < end
    assert (hot.clock, hot.temperature) == (1200.0, 88.0)
    assert hot.throttled == "sw_thermal_slowdown, hw_thermal_slowdown"
    assert (quiet.clock, quiet.temperature, quiet.throttled) == (1980.0, 41.0, "")


def test_an_older_driver_is_asked_in_its_words(nvidia_smi):
    log = nvidia_smi(HOT, refused="clocks_event_reasons")
    with Observer("GPU-1") as observer:
        assert first_conditions(observer).throttled
    assert "clocks_throttle_reasons.hw_slowdown" in log.read_text()
    assert "--id=GPU-1" in log.read_text()


def test_it_ends_with_the_measurement(nvidia_smi):
    nvidia_smi(QUIET)
    with Observer("0") as observer:
        process = observer._sampler._process
        assert process.poll() is None
    assert process.poll() is not None


def test_where_nvidia_smi_is_missing_or_refuses_nothing_is_known(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(QUIET, refused="query-gpu")
    assert GpuSampler("0").take() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with Observer("0") as observer:
        conditions = observer.close()
    assert (conditions.clock, conditions.temperature, conditions.throttled) == (None, None, "")


def test_without_a_gpu_the_processor_is_seen():
    with Observer() as observer:
        conditions = observer.close()
    assert conditions.load is None or conditions.load >= 0
    assert conditions.clock is None or conditions.clock > 100
    assert conditions.throttled == ""


def test_rounds_that_were_throttled_or_shared_are_marked():
    quiet = Conditions(0.01, 1.0, 1980.0, 40.0, "")
    shared = Conditions(0.5, 3.0, 1980.0, 40.0, "")
    hot = Conditions(0.01, 1.0, 1200.0, 90.0, "hw_slowdown")
    measured = Measured(
        Case("twice"), {}, {number: Round(number, conditions) for number, conditions in enumerate((quiet, shared, hot))}
    )
    assert contended_rounds(measured) == {1, 2}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux says for how long a thread has waited")
def test_the_time_that_is_waited_for_a_processor_is_what_another_process_takes_of_it():
    [mine, *_] = allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {mine})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        began, ran, waited = time.perf_counter(), time.thread_time(), seconds_waited()
        while time.perf_counter() < began + 1:
            pass
        elapsed, ran, waited = time.perf_counter() - began, time.thread_time() - ran, seconds_waited() - waited
        assert waited > 0.1
        assert waited == pytest.approx(elapsed - ran, abs=0.1 * elapsed)  # a thread runs or waits
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, allowed)
