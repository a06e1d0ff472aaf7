"""Executors: the same events, whether a run happens here, in a process or on a cluster."""

import importlib.util

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors.choose import make_executor
from trans4init.ablations.study.executors.protocol import Died, Finished, Progress
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import load_study
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey

ANALYTIC = CellKey("sinusoidal", "analytic")
CLOCKED = ("wall_time",)


@pytest.fixture
def study(tiny_study, tmp_path):
    spec = load_study(str(tiny_study()))
    return ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs" / "tiny", "")


def play(executor, *submissions):
    events = []
    for requests in submissions:
        executor.submit(requests)
    assert executor.running() == len(submissions)
    while executor.running():
        executor.wait(events.append, timeout=5)
    executor.stop()
    return events


def found(record):
    return [(m.metric.name, m.step, m.value) for m in record.measurements if m.metric.name not in CLOCKED]


@pytest.mark.parametrize(
    "name",
    [
        "inline",
        "process",
        pytest.param(
            "ray", marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
        ),
    ],
)
def test_every_executor_hands_back_the_same_records(study, name):
    wanted = [(study.evaluate_request(ANALYTIC, seed, 0, {"learning_rate": 0.02}),) for seed in (0, 1)]
    events = play(make_executor(name, study, 2), *wanted)
    records = {event.requests[0].seed: event.records[0] for event in events if isinstance(event, Finished)}
    assert set(records) == {0, 1}
    [inline] = [e for e in play(make_executor("inline", study, 1), wanted[1]) if isinstance(e, Finished)]
    assert found(records[1]) == found(inline.records[0])
    assert records[0].parameters == {"learning_rate": 0.02}
    assert records[0].status == "ok"


@pytest.mark.parametrize("name", ["inline", "process"])
def test_progress_is_told(study, name):
    events = play(make_executor(name, study, 1), (study.evaluate_request(ANALYTIC, 0, 0, {}),))
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == [2, 4, 6]
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("name", ["inline", "process"])
def test_a_throughput_session_is_one_submission_and_many_records(study, name):
    requests = tuple(study.throughput_requests())[:1]
    [event] = [e for e in play(make_executor(name, study, 1), requests) if isinstance(e, Finished)]
    assert [record.phase for record in event.records] == ["throughput"]
    assert event.records[0].notes["session"]


@pytest.mark.parametrize("name", ["inline", "process"])
def test_a_run_that_raises_is_a_failed_record_with_its_traceback(study, name):
    """A net that needs a fit, and no checkpoint: what a bug in a run looks like."""
    request = study.evaluate_request(CellKey("sinusoidal", "learned-frozen", "fourier-mlp"), 0, 0, {})
    [event] = [e for e in play(make_executor(name, study, 1), (request,)) if isinstance(e, Finished)]
    [record] = event.records
    assert record.status == "failed"
    assert "Traceback" in record.error
    assert "holds no fitted net" in record.error
    assert record.last("validation_loss") is None


def test_running_out_of_memory_is_a_status_of_its_own(study, monkeypatch):
    import trans4init.ablations.study.work as work

    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(work, "_train", greedy)
    request = study.evaluate_request(ANALYTIC, 0, 0, {})
    [event] = [e for e in play(make_executor("inline", study, 1), (request,)) if isinstance(e, Finished)]
    assert event.records[0].status == "oom"


def test_a_process_that_ends_without_a_word_is_noticed(study):
    executor = make_executor("process", study, 1)
    executor.submit((study.evaluate_request(ANALYTIC, 0, 0, {}),))
    [(_, process)] = executor._runs.values()
    process.kill()
    events = []
    while executor.running():
        executor.wait(events.append, timeout=5)
    assert isinstance(events[-1], Died)
    assert "SIGKILL" in events[-1].reason


def test_stop_leaves_no_process(study):
    executor = make_executor("process", study, 2)
    for seed in (0, 1):
        executor.submit((study.evaluate_request(ANALYTIC, seed, 0, {}),))
    processes = [process for _, process in executor._runs.values()]
    executor.stop()
    assert executor.running() == 0
    assert not any(process.is_alive() for process in processes)


def test_an_executor_that_cannot_be_had_is_refused(study, monkeypatch):
    with pytest.raises(InputError, match="executor 'threads' is not one of inline, process, ray"):
        make_executor("threads", study, 1)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'trans4init\[cluster\]'"):
        make_executor("ray", study, 1)
