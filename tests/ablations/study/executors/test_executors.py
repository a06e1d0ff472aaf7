"""Executors send the same events, whether a run happens in this process, in its own or on a cluster."""

import dataclasses
import importlib.util
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trans4init.ablations.errors import FaultError, InputError
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
    [(_, process, _)] = executor._runs.values()
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
    processes = [process for _, process, _ in executor._runs.values()]
    executor.stop()
    assert executor.running() == 0
    assert not any(process.is_alive() for process in processes)


@dataclasses.dataclass(frozen=True)
class Wish:
    """Is a request that is no study's."""

    run_id: str

    def begun_anew(self, why):
        return self


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


class Reference:
    """Stands for what is in a cluster's store, pickled, or for a task that is still to run."""

    def __init__(self, content=None, task=None):
        self.content, self.task = content, task


class FakeRay:
    """Stands in for what the executor uses of Ray: everything that goes to the cluster or comes back is pickled."""

    class exceptions:  # noqa: N801  Ray's name
        class RayError(Exception):
            pass

    def __init__(self, **resources):
        self.lost, self.asked, self.resources = 0, [], {"CPU": 3.0} | resources

    def is_initialized(self):
        return "RAY_ADDRESS" not in os.environ

    def init(self, **options):
        raise ConnectionError("Failed to connect")

    def cluster_resources(self):
        return self.resources

    def put(self, thing):
        return Reference(pickle.dumps(thing))

    def remote(self, **options):
        self.asked.append(options)
        return lambda thing: SimpleNamespace(remote=lambda *values: self._begun(thing, values))

    def _begun(self, thing, values):
        if not isinstance(thing, type):
            return Reference(task=(thing, values))
        actor = thing()
        return SimpleNamespace(
            add=SimpleNamespace(remote=actor.add),
            take=SimpleNamespace(remote=lambda: Reference(pickle.dumps(actor.take()))),
        )

    def wait(self, references, num_returns, timeout):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if isinstance(reference, list):
            return [self.get(one) for one in reference]
        if reference.task is None:
            return pickle.loads(reference.content)
        if self.lost:
            self.lost -= 1
            raise self.exceptions.RayError("node gone\nand more")
        function, values = reference.task
        given = [self.get(value) if isinstance(value, Reference) else value for value in values]
        return pickle.loads(pickle.dumps(function(*given)))

    def cancel(self, reference, force):
        pass


def test_on_ray_a_run_comes_back_whole_or_as_a_death(study, monkeypatch, tmp_path):
    """Without Ray itself: what is sent can be pickled, and a lost worker costs its own run alone."""
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.chdir(tmp_path)  # the worker goes to a folder of its own
    executor = make_executor("ray", study, 1)
    assert executor.capacity == 3
    task, actor = fake.asked
    assert (task["num_cpus"], task["num_gpus"], task["max_retries"]) == (1, 0, 0)
    assert task["memory"] >= 2**29
    assert actor["num_cpus"] == 0
    requests = [(study.evaluate_request(ANALYTIC, seed, 0, {}),) for seed in (0, 1)]
    fake.lost = 1
    died, finished = play(executor, *requests)
    assert (died.requests, died.reason) == (requests[0], "the run's worker was lost: node gone")
    [inline] = [e for e in play(make_executor("inline", study, 1), requests[1]) if isinstance(e, Finished)]
    assert found(finished.records[0]) == found(inline.records[0])


@pytest.mark.parametrize(("share", "capacity", "asked"), [(None, 2, 1), (0.25, 3, 0.25), (0, 3, 0)])
def test_on_ray_runs_share_gpus(study, monkeypatch, share, capacity, asked):
    """Two GPUs and three cores: a run takes a GPU, unless less is asked for."""
    fake = FakeRay(GPU=2.0)
    monkeypatch.setitem(sys.modules, "ray", fake)
    worker = StudyWorker((study,), elsewhere=True, gpus=share)
    assert choose.make_executor("ray", worker, 1, PRELOAD).capacity == capacity
    assert fake.asked[0]["num_gpus"] == asked


def test_on_ray_nothing_but_what_is_sent_is_needed(tiny_study, user_function, monkeypatch, tmp_path):
    """Neither the folder of the study, nor the user's text, nor the user's code: another machine has none of them."""
    user_function(tmp_path / "home" / "mine.py")
    path = tiny_study(("heads = 2", 'heads = 2\nactivation = "home/mine.py:mine"'))
    monkeypatch.chdir(tmp_path)
    spec = load_study(str(path))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs" / "tiny", "")
    worker = StudyWorker((study,), elsewhere=True)
    fit = (study.fit_request("fourier-mlp"),)
    run = (study.evaluate_request(CellKey("sinusoidal", "learned-frozen", "fourier-mlp"), 0, None, {}),)
    here = []
    worker(fit, here.append)
    worker(run, here.append)
    needed, parcel = worker.needs(run), pickle.loads(pickle.dumps(worker.parcel()))
    assert sorted(Path(name).name for name in needed) == ["card.json", "net.safetensors"]
    for file in ("text.txt", "home", "runs"):
        (tmp_path / file).rename(tmp_path / f"gone-{file}")
    there = []
    made = parcel.do(pickle.dumps(fit), {}, there.append)
    assert made.keys() == needed.keys()
    made_again = parcel.do(pickle.dumps(run), needed, there.append)
    assert made_again == {}
    assert [found(event.records[0]) for event in there if isinstance(event, Finished)][1] == [
        found(event.records[0]) for event in here if isinstance(event, Finished)
    ][1]
    assert not (tmp_path / "runs").exists()
    worker.take(made)
    assert {name: (tmp_path / "runs" / "tiny" / name).is_file() for name in made} == dict.fromkeys(made, True)
    with pytest.raises(FaultError, match="which is no fitted net"):
        worker.take({"../../outside": b""})


def test_processes_are_spread_over_places(study):
    """Each worker has the variables of a place that no other has at the time: here one place is no device."""
    worker, places = StudyWorker((study,)), [{"TRANS4INIT_DEVICE": "cpu"}, {"TRANS4INIT_DEVICE": "meta"}]
    wanted = [(study.evaluate_request(ANALYTIC, seed, 0, {}),) for seed in (0, 1)]
    executor = choose.make_executor("process", worker, 2, PRELOAD, places=places)
    records = [event.records[0] for event in play(executor, *wanted) if isinstance(event, Finished)]
    assert sorted(record.status for record in records) == ["failed", "ok"]
    assert "meta" in next(record.error for record in records if record.status == "failed")


def test_a_cluster_that_is_not_there_is_refused(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    for address, said in (("auto", "Failed to connect"), ("127.0.0.1:9", "Connection refused")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=f"no Ray cluster can be used at {address}: {said}"):
            make_executor("ray", study, 1)


def test_an_executor_that_cannot_be_had_is_refused(study, monkeypatch):
    with pytest.raises(InputError, match="unknown executor 'threads'; there are: inline, process, ray"):
        make_executor("threads", study, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'trans4init\[cluster\]'"):
        make_executor("ray", study, 1)
