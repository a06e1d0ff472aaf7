"""Kill it: whatever is killed, whenever, the same command goes on, nothing is torn and nothing is run twice."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from trans4init.reports.records.store import load_results


def results(folder):
    return folder / "runs" / "tiny" / "results"


def values(folder):
    """What the runs found, without what clocks measured and the order they were made in."""
    timed = ("wall_time", "fit_time", "call_time", "folded_call_time", "analytic_call_time")
    return {
        record.run_id: [(m.metric.name, m.step, m.value) for m in record.measurements if m.metric.name not in timed]
        for record in load_results(results(folder)).records
        if record.phase != "throughput"
    }


def slots(folder):
    """What evaluation runs kept of their slots, byte by byte."""
    return {path.name: path.read_bytes() for path in (folder / "runs" / "tiny" / "slots").iterdir()}


def group_members(group):
    """The processes of a process group that are alive."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def wait_for_results(process, folder, count):
    wait_for(lambda: len(list(results(folder).glob("*.parquet"))) >= count or process.poll() is not None)


def wait_for_end_of_group(group):
    wait_for(lambda: not group_members(group), 10)


def children_of(pid):
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for orphans in /proc")
def test_killed_at_any_moment_the_same_command_goes_on(
    finished_study, tiny_study, command, run_command, tmp_path, tries
):
    """Kill the coordinator at several moments, from its start to its last runs."""
    study, chance = tiny_study(), random.Random(0)
    kept = {}
    for enough in tries((0, 1, 4, 9, 15, 21), [number * 22 // 50 for number in range(50)]):
        process = command("run", study)
        wait_for_results(process, tmp_path, enough)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        wait_for_end_of_group(process.pid)  # no worker goes on without its coordinator
        torn = load_results(results(tmp_path)).corrupt if results(tmp_path).exists() else ()
        assert torn == ()
        now = {path: path.stat().st_mtime_ns for path in results(tmp_path).glob("*.parquet")}
        assert kept.items() <= now.items()  # what was finished was not run again
        kept = {path: when for path, when in now.items() if not path.name.startswith("throughput")}
    code, output = run_command("run", study)
    assert code == 0, output
    assert values(tmp_path) == values(finished_study.folder)
    assert slots(tmp_path) == slots(finished_study.folder) != {}
    assert list(results(tmp_path).glob("*.tmp")) == []
    code, output = run_command("run", study)
    assert "Nothing left to run" in output


def workers_of(process):
    """The processes that make runs: children of the server that they are forked from."""
    return [worker for server in children_of(process.pid) for worker in children_of(server)]


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


LONGER = ("steps = 6", "steps = 400"), ("seeds = 2", "seeds = 1"), ("trials = 2", "trials = 1")


def test_a_run_whose_worker_is_killed_is_begun_anew_and_says_so(tiny_study, command, run_command, tmp_path, tries):
    """At random moments, of fits and trainings alike: no result is lost, none is there twice.

    Two results lie between two kills: otherwise one run may be killed three times.
    """
    steps, _, trials = LONGER
    study = tiny_study(steps, ("seeds = 2", f"seeds = {tries(1, 150)}"), trials)
    chance, kills = random.Random(0), 0
    process = command("run", study, "--no-arrays")
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    while kills < tries(2, 200) and process.poll() is None:
        time.sleep(chance.uniform(0, 0.5))
        workers = workers_of(process)
        if workers:
            kill(chance.choice(workers))
            kills += 1
            enough = len(lines) + 3  # the line that says so, and two results
            wait_for(lambda enough=enough: len(lines) >= enough or process.poll() is not None)
    assert process.wait(timeout=900) == 0, "".join(lines)
    reader.join(timeout=10)
    assert kills > 0
    found = load_results(results(tmp_path)).records
    ids = [record.run_id for record in found]
    assert len(set(ids)) == len(ids)
    assert {record.status for record in found} == {"ok"}
    anew = [record.notes["anew"] for record in found if "anew" in record.notes]
    assert sum("begun anew" in line for line in lines) == sum(why.count("SIGKILL") for why in anew) >= 1
    assert "begun anew" in (tmp_path / "runs" / "tiny" / "report.md").read_text()
    code, output = run_command("run", study)
    assert (code, "Nothing left to run" in output) == (0, True)


def test_a_run_whose_worker_is_killed_three_times_is_a_failed_row_and_can_be_retried(
    tiny_study, command, run_command, tmp_path
):
    study = tiny_study(*LONGER)
    process = command("run", study)
    wait_for(lambda: list(results(tmp_path).glob("fit-*.parquet")))  # a fit that fails takes its runs along
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()

    def kill_all():
        for worker in workers_of(process):
            kill(worker)
        return any(": failed (" in line for line in lines) or process.poll() is not None

    wait_for(kill_all, 120)
    assert process.wait(timeout=900) == 1
    reader.join(timeout=10)
    output = "".join(lines)
    assert "failed (the run's process was ended by SIGKILL: perhaps the machine ran out of memory)" in output
    failed = [record for record in load_results(results(tmp_path)).records if record.status == "failed"]
    assert failed
    assert all(record.notes["anew"].count("SIGKILL") == 2 for record in failed)
    assert "ended by SIGKILL" in (tmp_path / "runs" / "tiny" / "report.md").read_text()
    code, output = run_command("run", study)
    assert (code, "Nothing left to run" in output) == (1, True)
    code, output = run_command("run", study, "--retry-failed")
    assert code == 0, output
    assert all(record.status == "ok" for record in load_results(results(tmp_path)).records)


def test_the_first_interrupt_lets_runs_finish_and_the_command_goes_on(tiny_study, command, run_command, tmp_path):
    study = tiny_study(("steps = 6", "steps = 300"))
    process = command("run", study)
    wait_for(lambda: len(list(results(tmp_path).glob("tune-*.parquet"))) >= 2)
    before = len(list(results(tmp_path).glob("*.parquet")))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "Ctrl-C again stops now" in output
    assert f"to continue: trans4init run {study}" in output.splitlines()[-1]
    after = list(results(tmp_path).glob("*.parquet"))
    assert before <= len(after) <= before + 3
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in after}
    code, output = run_command("run", study)
    assert code == 0, output
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


@pytest.mark.alone
def test_the_second_interrupt_stops_at_once(tiny_study, command, tmp_path):
    study = tiny_study(("steps = 6", "steps = 100000"))
    process = command("run", study)
    wait_for(lambda: len(list(results(tmp_path).glob("fit-*.parquet"))) == 1)
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)  # the runs under way, of 100,000 steps, take minutes on any machine
    assert process.returncode == 130, output
    assert list(results(tmp_path).glob("tune-*.parquet")) == []
    assert f"to continue: trans4init run {study}" in output.splitlines()[-1]
    wait_for_end_of_group(process.pid)


def test_an_interrupt_at_the_first_line_ends_all_processes_with_one_sentence(tiny_study, command):
    """The server that workers are forked from may still import torch."""
    study = tiny_study()
    process = command("run", study)
    assert process.stdout.readline() == "fit: fourier-mlp ...\n"
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, f"Stopped; to continue: trans4init run {study}\n")
    wait_for_end_of_group(process.pid)


def test_a_terminated_command_ends_its_workers_and_says_how_to_go_on(tiny_study, command, tmp_path):
    """All processes are told, as service managers do."""
    study = tiny_study(("steps = 6", "steps = 100000"))
    process = command("run", study)
    wait_for(lambda: len(list(results(tmp_path).glob("fit-*.parquet"))) == 1)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert output.splitlines()[-1] == f"Stopped; to continue: trans4init run {study}"
    assert all(record.status == "ok" for record in load_results(results(tmp_path)).records)
    wait_for_end_of_group(process.pid)


def test_a_study_whose_reader_leaves_runs_to_its_end(tiny_study, command, tmp_path):
    process = command("run", tiny_study(("seeds = 2", "seeds = 1"), ("trials = 2", "trials = 1")))
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()


def test_an_interrupt_between_inline_runs_stops_there(tiny_study, command, run_command, tmp_path):
    study = tiny_study(("steps = 6", "steps = 300"))
    process = command("run", study, "--executor", "inline")
    wait_for(lambda: len(list(results(tmp_path).glob("tune-*.parquet"))) >= 1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert all(record.status == "ok" for record in load_results(results(tmp_path)).records)


def test_two_coordinators_do_not_share_a_study(tiny_study, command, run_command, tmp_path):
    study = tiny_study(("steps = 6", "steps = 100000"))
    process = command("run", study)
    wait_for(lambda: len(list(results(tmp_path).glob("fit-*.parquet"))) == 1)
    code, output = run_command("run", study)
    assert code == 1
    assert "another trans4init is at work on runs/tiny" in output
    assert output.count("\n") == 1
    assert process.poll() is None
