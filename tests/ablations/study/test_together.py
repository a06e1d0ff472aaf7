"""Studies whose runs are trained together: the same runs, and the log says which are not, and why."""

import dataclasses

import pytest
from rich.console import Console

from trans4init.ablations.study import trained_runs
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.run import Options, run_study
from trans4init.ablations.study.together import Alike, begun_arrays
from trans4init.ablations.study.trained_runs import NotTogetherError, run_array, run_request
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey
from trans4init.reports.records.store import load_results

ANALYTIC = CellKey("sinusoidal", "analytic")
LONGER = ("steps = 6", "steps = 60")


@pytest.fixture
def run(tiny_study, tmp_path, monkeypatch):
    """Runs the tiny study with its text changed; returns its records by id, and what was printed."""

    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: None)

    def run_it(name, *changes, size=None):
        monkeypatch.chdir(tmp_path)
        path, folder = tiny_study(LONGER, *changes), tmp_path / "runs" / name
        console = Console(width=200, record=True)
        assert (
            run_study(load_study(str(path)), Options(str(path), "again", folder, "inline", array_size=size), console)
            == 0
        )
        records = load_results(folder / "results").records
        return {r.run_id: r for r in records if r.phase in ("tune", "evaluate")}, console.export_text()

    return run_it


def rows(record):
    return {(m.metric.name, m.step): m.value for m in record.measurements if m.metric.name != "wall_time"}


def test_runs_of_an_array_are_those_that_are_made_one_by_one(run):
    """But for rounding, in float32; each says with how many it was trained."""
    fewer = (("low = 1e-3, high = 1e-1", "low = 5e-3, high = 2e-2"), ("seeds = 2", "seeds = 3"))
    together, _ = run("together", *fewer)
    by_itself, _ = run("alone", *fewer, size=1)
    assert together.keys() == by_itself.keys()
    for run_id, record in together.items():
        other = by_itself[run_id]
        assert rows(record) == pytest.approx(rows(other), rel=5e-3, abs=5e-3)
        assert {**record.notes, "array": ""} == {**other.notes, "array": ""}
        assert (record.status, record.parameters) == (other.status, other.parameters)
    assert {(record.phase, record.notes["array"]) for record in together.values()} == {("tune", "2"), ("evaluate", "3")}
    assert not any("array" in record.notes for record in by_itself.values())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ((("context = 8", "context = 8\ndropout = 0.1"),), "dropout draws random numbers, which members can't share"),
        ((("batch = 2", "batch = 2\npatience = 9"),), "since patience ends each run at a step of its own"),
        (
            (("trials = 2", 'trials = 2\nobjectives = ["validation_loss", "training_throughput"]'),),
            "tuning weighs their speed",
        ),
    ],
)
def test_what_cant_be_trained_together_is_run_alone_and_the_log_says_why(run, changes, why):
    records, output = run("alone", *changes)
    assert why in " ".join(output.split())
    alone = {record.phase for record in records.values() if "array" not in record.notes}
    assert alone == ({"tune"} if "speed" in why else {"tune", "evaluate"})


@pytest.fixture
def study(tiny_study, tmp_path):
    spec = load_study(str(tiny_study(LONGER)))
    return ResolvedStudy(spec, spec.task.fingerprint(), capture(), tmp_path / "runs", "")


def requests(study, count=3):
    return [study.evaluate_request(ANALYTIC, seed, 0, {"learning_rate": 0.01}) for seed in range(count)]


def test_an_array_that_is_slower_is_given_back_before_anything_is_trained(study, monkeypatch):
    monkeypatch.setattr(trained_runs, "_seconds", lambda *steps: [3.3, 1.0])
    with pytest.raises(NotTogetherError, match=r"analytic are made one by one: steps of 3 together take 1.10 times"):
        run_array(study, requests(study), lambda *told: None)
    monkeypatch.setattr(trained_runs, "_seconds", lambda *steps: [2.9, 1.0])
    assert [record.status for record in run_array(study, requests(study), lambda *told: None)] == ["ok"] * 3


def test_a_fault_of_an_array_is_left_to_single_runs(study, monkeypatch):
    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: None)
    monkeypatch.setattr(trained_runs, "train_array", lambda *_, **__: 1 / 0)
    with pytest.raises(NotTogetherError, match=r"failed together \(ZeroDivisionError: .*\) and are made one by one"):
        run_array(study, requests(study), lambda *told: None)
    full = MemoryError()
    monkeypatch.setattr(trained_runs, "train_array", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(NotTogetherError, match="3 runs of analytic don't fit into memory") as raised:
        run_array(study, requests(study), lambda *told: None)
    assert raised.value.smaller


def test_a_run_that_diverges_in_an_array_is_recorded_as_alone(study, monkeypatch):
    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: None)
    wild = dataclasses.replace(requests(study)[0], parameters={"learning_rate": 1e30})
    kept = {}
    records = run_array(study, [wild, *requests(study)[1:]], lambda *told: None, kept.__setitem__)
    alone = run_request(study, wild, lambda *told: None)
    assert [record.status for record in records] == ["diverged", "ok", "ok"]
    assert (records[0].error, records[0].last("validation_loss")) == (alone.error, None)
    assert set(kept) <= {record.run_id for record in records[1:]}
    assert not list((study.folder / "checkpoints").glob("array-*"))


def test_an_array_that_was_killed_is_found_and_goes_on_without_a_probe(study, monkeypatch):
    wanted = requests(study)
    path = trained_runs._checkpoint(study, wanted)

    class KilledError(BaseException):
        pass

    def killed(step, steps, loss):
        if step == 60:
            raise KilledError

    plain = trained_runs.train_array
    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: None)
    monkeypatch.setattr(
        trained_runs, "train_array", lambda *given, **named: plain(*given, checkpoint_seconds=0, **named)
    )
    with pytest.raises(KilledError):
        run_array(study, wanted, killed)
    (path.parent / "array-damaged.safetensors").write_bytes(b"?")
    said = []
    assert begun_arrays(path.parent, said.append) == [[request.run_id for request in wanted]]
    assert said == ["array-damaged.safetensors was damaged and is removed; the runs that it was of begin anew."]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: 1 / 0)
    steps = []
    resumed = run_array(study, wanted, lambda step, *_: steps.append(step))
    assert min(steps) > 30
    assert not path.exists()
    monkeypatch.setattr(trained_runs, "_check_faster", lambda members, cell: None)
    whole = run_array(study, wanted, lambda *told: None)
    assert [rows(record) for record in resumed] == [rows(record) for record in whole]
    path.write_bytes(b"?")
    with pytest.raises(NotTogetherError, match=r"failed together \(InputError: .* is not a checkpoint"):
        run_array(study, wanted, lambda *told: None)


def test_runs_are_alike_that_differ_in_seeds_rates_and_decays_alone(study):
    said = []
    alike = Alike([study], said.append)
    [first, *_] = requests(study)

    def other(**changes):
        return dataclasses.replace(first, **changes)

    assert alike.key(first) is not None
    assert alike.key(first) == alike.key(other(seed=7)) == alike.key(other(parameters={"learning_rate": 0.02}))
    assert alike.key(first) == alike.key(other(parameters={"weight_decay": 0.5, "slot_learning_rate_ratio": 2.0}))
    for changes in (
        {"phase": "tune"},
        {"cell": CellKey("sinusoidal", "none")},
        {"parameters": {"beta2": 0.9}},
        {"parameters": {"model.width": 16}},
    ):
        assert alike.key(other(**changes)) != alike.key(first)
    assert alike.key(other(phase="fit")) is None
    assert alike.key(other(phase="throughput")) is None
    assert not said
