"""Executors send the same events, whether a run happens in this process, in its own or on a cluster."""

import dataclasses
import importlib.util
import os
import pickle
import sys
from types import SimpleNamespace

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.executors import choose
from trans4init.ablations.study.executors.protocol import Advanced, Died, Finished
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.worker import PRELOAD, StudyWorker
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey

ANALYTIC = CellKey("sinusoidal", "analytic")
CLOCKED = ("wall_time",)


@pytest.fixture
def study(tiny_study, tmp_path):
    spec = load_study(str(tiny_study()))
    return ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs" / "tiny", "")


def make_executor(name, study, workers):
    return choose.make_executor(name, StudyWorker((study,), elsewhere=name == "ray"), workers, PRELOAD)


def play(executor, *submissions):
    events = []
    for requests in submissions:
        executor.submit(requests)
    assert executor.running() == len(submissions)
    while executor.running():
        executor.wait(events.append, timeout=60)
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
    steps = [event.step for event in events if isinstance(event, Advanced)]
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
    from trans4init.ablations.study import trained_runs

    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(trained_runs, "_train", greedy)
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
        executor.wait(events.append, timeout=60)
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


@dataclasses.dataclass(frozen=True)
class Wish:
    """Is a request that is no study's."""

    run_id: str


def test_the_server_of_workers_imports_a_module_that_is_there():
    """A name that can't be imported would be passed over in silence, and every run would import torch itself."""
    assert importlib.util.find_spec(PRELOAD) is not None


def test_executors_know_nothing_of_what_they_run():
    """Any callable and any request with an id will do; the records come back as they are."""

    def work(requests, send):
        send(Advanced(requests, 1, 2, 0.5))
        send(Finished(requests, tuple(request.run_id.upper() for request in requests)))

    events = play(choose.make_executor("inline", work, 1, "unused"), (Wish("a"), Wish("b")), (Wish("c"),))
    assert [event.records for event in events if isinstance(event, Finished)] == [("A", "B"), ("C",)]
    assert [event.requests for event in events if isinstance(event, Advanced)] == [(Wish("a"), Wish("b")), (Wish("c"),)]


def test_a_run_on_another_machine_records_that_machine(study, monkeypatch):
    there = dataclasses.replace(study.environment, processor="the node's")
    monkeypatch.setattr("trans4init.ablations.study.worker.capture", lambda: there)
    for elsewhere, processor in ((False, study.environment.processor), (True, "the node's")):
        events = []
        StudyWorker((study,), elsewhere)((study.evaluate_request(ANALYTIC, 0, 0, {}),), events.append)
        assert events[-1].records[0].environment.processor == processor


class FakeRay:
    """Stands in for what the executor uses of Ray: everything that goes to the cluster or comes back is pickled."""

    class exceptions:  # noqa: N801  Ray's name
        class RayError(Exception):
            pass

    def __init__(self):
        self.lost = 0

    def is_initialized(self):
        return "RAY_ADDRESS" not in os.environ

    def init(self, **options):
        raise ConnectionError("Failed to connect")

    def cluster_resources(self):
        return {"CPU": 3.0}

    def put(self, thing):
        return pickle.dumps(thing)

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=lambda *values: (function, *map(self._sent, values)))

    def _sent(self, value):
        return value if isinstance(value, bytes) else pickle.dumps(value)

    def wait(self, references, num_returns, timeout):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if self.lost:
            self.lost -= 1
            raise self.exceptions.RayError("node gone")
        function, *values = reference
        return pickle.loads(pickle.dumps(function(*map(pickle.loads, values))))

    def cancel(self, reference, force):
        pass


def test_on_ray_a_run_comes_back_whole_or_as_a_death(study, monkeypatch):
    """Without Ray itself: what is sent can be pickled, and a lost worker costs its own run alone."""
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    executor = make_executor("ray", study, 1)
    assert executor.capacity == 3
    requests = [(study.evaluate_request(ANALYTIC, seed, 0, {}),) for seed in (0, 1)]
    fake.lost = 1
    died, finished = play(executor, *requests)
    assert (died.requests, died.reason) == (requests[0], "the run's worker was lost: node gone")
    [inline] = [e for e in play(make_executor("inline", study, 1), requests[1]) if isinstance(e, Finished)]
    assert found(finished.records[0]) == found(inline.records[0])


def test_a_cluster_that_is_not_there_is_refused(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    with pytest.raises(InputError, match="no Ray cluster can be used at nowhere:1: Failed to connect"):
        make_executor("ray", study, 1)


def test_an_executor_that_cannot_be_had_is_refused(study, monkeypatch):
    with pytest.raises(InputError, match="unknown executor 'threads'; there are: inline, process, ray"):
        make_executor("threads", study, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'trans4init\[cluster\]'"):
        make_executor("ray", study, 1)
