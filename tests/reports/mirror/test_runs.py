"""The MLflow mirror: a view of the results that can be made again at any time, and never stands in the way."""

import dataclasses
import shutil
import sqlite3
from datetime import timedelta

import filelock
import pytest
from mlflow import MlflowClient

from trans4init.reports.mirror import runs, store
from trans4init.reports.mirror.runs import BackgroundMirror, Mirror
from trans4init.reports.mirror.store import MirrorError, Store, tracking_uri
from trans4init.reports.records.metrics import WALL_TIME
from trans4init.reports.records.schema import CellKey, Measurement, Metric
from trans4init.reports.records.store import Results
from trans4init.reports.study_report.verdict_text import VerdictText

FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")

VERDICT = VerdictText("It is better.", controls="None.")


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """MLflow takes seconds to make its tables: they are made once."""
    folder = tmp_path_factory.mktemp("store").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store(folder)
    return folder / "mlflow.db"


@pytest.fixture
def tmp_path(tmp_path, empty_store):
    """A folder of studies with an empty store, whose name has characters with a meaning in addresses of databases."""
    folder = tmp_path / "it's a?%41{x}#b"
    folder.mkdir()
    shutil.copy(empty_store, folder)
    return folder


def sync(folder, records, verdict=VERDICT):
    return runs.sync(folder, Results(tuple(records)), verdict)


def client_of(folder):
    return MlflowClient(tracking_uri=tracking_uri(folder))


def runs_in(folder):
    client = client_of(folder)
    experiments = [e for e in client.search_experiments() if e.name != "Default"]
    return [run for e in experiments for run in client.search_runs([e.experiment_id], max_results=500)]


def split(runs):
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in runs if run not in parents]


def test_one_parent_per_study_and_one_child_per_run(tmp_path, make_record):
    records = [make_record(seed=seed, parameters={"learning_rate": 0.01}) for seed in range(3)]
    records.append(make_record(cell=FROZEN, seed=0, status="diverged", value=None, error="nan"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "report.html").write_text("<p>")
    (tmp_path / "s" / "report.md").write_text("# s\n\n**Verdict.** Of another time.\n")
    sync(tmp_path / "s", records)
    [parent], children = split(runs_in(tmp_path))
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len(children) == 4
    [diverged] = [run for run in children if run.data.tags["arm"] == "learned-frozen"]
    tags = diverged.data.tags
    assert {name: tags[name] for name in ("study", "function", "arm", "net", "task", "seed", "phase", "status")} == {
        "study": "s",
        "function": "sinusoidal",
        "arm": "learned-frozen",
        "net": "fourier-mlp",
        "task": "text",
        "seed": "0",
        "phase": "evaluate",
        "status": "diverged",
    }
    assert diverged.info.status == "FAILED"
    finished = next(run for run in children if run.data.tags["status"] == "ok")
    assert finished.data.metrics["validation_loss"] == 2.0
    wanted = {"learning_rate": "0.01", "function": "sinusoidal", "arm": "analytic", "net": ""}
    assert wanted.items() <= finished.data.params.items()
    paragraphs = [
        "Is it?",
        "It is better.",
        "Controls: None.",
        "a task; a model",
        "Units: validation_loss in nats/token.",
    ]
    assert parent.data.tags["mlflow.note.content"].split("\n\n") == paragraphs
    client = client_of(tmp_path)
    assert [m.step for m in client.get_metric_history(finished.info.run_id, "validation_loss")] == [1, 2]
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["report.html", "report.md"]
    assert list(tmp_path.parent.iterdir()) == [tmp_path]  # nothing went to a folder whose name was read otherwise


def test_every_tag_parameter_and_metric_is_the_records_own(tmp_path, make_record):
    """Of a record no two of whose fields are equal, and of its study's parent run."""
    rows = (
        Measurement(Metric("a", "1"), 0.25, 11),
        Measurement(Metric("a", "1"), 0.75, 12),
        Measurement(Metric("b", "1"), None, 13),
        Measurement(Metric("c/of_a_group", "1"), -1.5, 14),
        Measurement(WALL_TIME, 30.0, 11),
        Measurement(WALL_TIME, 90.0, 14),
    )
    record = make_record(
        run_id="run-1", study="s", spec_hash="hash-1", cell=CellKey("function-1", "arm-1", "net-1"), task="task-1",
        model="model-1", trial=3, seed=4, phase="tune", status="pruned", device="device-1", measurements=rows,
        parameters={"rate": 0.5},
    )  # fmt: skip
    sync(tmp_path / "s", [record])
    [parent], [child] = split(runs_in(tmp_path))
    client = client_of(tmp_path)
    tags = {name: value for name, value in child.data.tags.items() if not name.startswith("mlflow.user")}
    folder = (tmp_path / "s" / "mirror-id").read_text().strip()
    of_the_study = {"study": "s", "function": "function-1", "task": "task-1", "trans4init.folder": folder}
    assert tags == of_the_study | {
        "trans4init.run_id": "run-1",
        "trans4init.digest": record.digest(),
        "mlflow.parentRunId": parent.info.run_id,
        "mlflow.runName": "tune function-1 (arm-1 · net-1) trial 3 seed 4",
        "arm": "arm-1",
        "net": "net-1",
        "seed": "4",
        "phase": "tune",
        "status": "pruned",
    }
    assert child.data.params == {
        "function": "function-1",
        "arm": "arm-1",
        "net": "net-1",
        "seed": "4",
        "rate": "0.5",
        "model": "model-1",
        "device": "device-1",
    }
    histories = {name: client.get_metric_history(child.info.run_id, name) for name in child.data.metrics}
    assert {name: [(m.step, m.value) for m in history] for name, history in histories.items()} == {
        "a": [(11, 0.25), (12, 0.75)],
        "c/of_a_group": [(14, -1.5)],
        "wall_time": [(11, 30.0), (14, 90.0)],
    }
    ended = int(record.created_at.timestamp() * 1000)
    assert (child.info.status, child.info.start_time, child.info.end_time) == ("KILLED", ended - 90_000, ended)
    # Step 12 has no seconds of its own: it is between its neighbours.
    assert {m.step: m.timestamp - (ended - 90_000) for history in histories.values() for m in history} == {
        11: 30_000,
        12: 50_000,
        14: 90_000,
    }
    tags = {name: value for name, value in parent.data.tags.items() if not name.startswith("mlflow.user")}
    assert tags == of_the_study | {
        "trans4init.spec_hash": "hash-1",
        "mlflow.runName": "s (hash-1)",
        "mlflow.note.content": "Is it?\n\nIt is better.\n\nControls: None.\n\na task; a model\n\n"
        "Units: wall_time in s.",
    }
    assert parent.info.end_time == ended


def test_syncing_again_changes_nothing(tmp_path, make_record):
    records = [make_record(seed=seed) for seed in range(2)]
    sync(tmp_path / "s", records)
    first = {run.info.run_id for run in runs_in(tmp_path)}
    sync(tmp_path / "s", [*records, make_record(seed=2)])
    second = {run.info.run_id for run in runs_in(tmp_path)}
    assert first < second
    assert len(second) == len(first) + 1


def test_a_run_that_was_done_again_takes_the_place_of_the_first(tmp_path, make_record):
    record = make_record(status="failed", value=None)
    sync(tmp_path / "s", [record])
    again = make_record(created_at=record.created_at + timedelta(hours=1))
    assert again.run_id == record.run_id
    sync(tmp_path / "s", [again])
    _, [child] = split(runs_in(tmp_path))
    assert (child.info.status, child.data.metrics["validation_loss"]) == ("FINISHED", 2.0)


def test_a_child_whose_writer_was_killed_is_written_again(tmp_path, make_record):
    record = make_record()
    sync(tmp_path / "s", [record])
    _, [child] = split(runs_in(tmp_path))
    client = client_of(tmp_path)
    client.update_run(child.info.run_id, status="RUNNING")
    sync(tmp_path / "s", [record])
    _, [again] = split(runs_in(tmp_path))
    assert again.info.run_id != child.info.run_id
    assert again.info.status == "FINISHED"


def test_infinite_and_missing_values_stay_out(tmp_path, make_record):
    rows = (Measurement(Metric("a", "1"), 1.0, 0), Measurement(Metric("b", "1"), None, 0))
    sync(tmp_path / "s", [make_record(measurements=rows)])
    _, [child] = split(runs_in(tmp_path))
    assert set(child.data.metrics) == {"a"}


def test_more_than_a_thousand_values_are_batched(tmp_path, make_record):
    rows = tuple(Measurement(Metric("a", "1"), float(step), step) for step in range(2500))
    sync(tmp_path / "s", [make_record(measurements=rows)])
    _, [child] = split(runs_in(tmp_path))
    client = client_of(tmp_path)
    assert len(client.get_metric_history(child.info.run_id, "a")) == 2500


def test_other_conditions_are_another_parent(tmp_path, make_record):
    record = make_record()
    sync(tmp_path / "s", [record, dataclasses.replace(record, run_id="other", spec_hash="h2")])
    assert len(split(runs_in(tmp_path))[0]) == 2


def test_a_deleted_experiment_is_restored_and_its_runs_are_kept(tmp_path, make_record):
    records = [make_record(seed=seed) for seed in range(2)]
    assert sync(tmp_path / "s", records) == []
    before = {run.info.run_id for run in runs_in(tmp_path)}
    client_of(tmp_path).delete_experiment(client_of(tmp_path).get_experiment_by_name("s").experiment_id)
    assert sync(tmp_path / "s", records) == ["experiment s had been deleted and was restored"]
    assert {run.info.run_id for run in runs_in(tmp_path)} == before
    assert sync(tmp_path / "s", records) == []


def test_deleted_runs_are_restored_and_children_find_their_parent_again(tmp_path, make_record):
    records = [make_record(seed=seed) for seed in range(3)]
    sync(tmp_path / "s", records)
    [parent], children = split(runs_in(tmp_path))
    for run in (parent, *children[:2]):
        client_of(tmp_path).delete_run(run.info.run_id)
    assert sync(tmp_path / "s", records) == [
        "1 parent run had been deleted and was restored",
        "2 of the runs had been deleted and were restored",
    ]
    assert {run.info.run_id for run in runs_in(tmp_path)} == {run.info.run_id for run in (parent, *children)}
    client_of(tmp_path).set_tag(parent.info.run_id, "trans4init.spec_hash", "gone")  # as after `mlflow gc`
    assert sync(tmp_path / "s", records) == ["3 of the runs had lost their parent run and were given another"]
    _, children = split(runs_in(tmp_path))
    [other] = {run.data.tags["mlflow.parentRunId"] for run in children} - {parent.info.run_id}
    assert client_of(tmp_path).get_run(other).data.tags["trans4init.spec_hash"] == "h"


def test_a_missing_experiment_is_made_anew_and_said(tmp_path, make_record, empty_store):
    sync(tmp_path / "s", [make_record()])
    assert sync(tmp_path / "s", [make_record()]) == []
    client_of(tmp_path).rename_experiment(client_of(tmp_path).get_experiment_by_name("s").experiment_id, "other")
    assert sync(tmp_path / "s", [make_record()]) == ["experiment s was missing and was made anew"]


def test_two_folders_of_one_study_keep_their_own_runs(tmp_path, make_record):
    records = [make_record(seed=seed) for seed in range(2)]
    later = [make_record(seed=seed, created_at=records[0].created_at + timedelta(days=1)) for seed in range(2)]
    for _ in range(2):
        sync(tmp_path / "a", records)
        sync(tmp_path / "b", later)
    parents, children = split(runs_in(tmp_path))
    assert len(parents) == 2
    by_folder = {(run.data.tags["trans4init.folder"], run.data.tags["trans4init.digest"]) for run in children}
    ids = [(tmp_path / name / "mirror-id").read_text().strip() for name in "ab"]
    assert by_folder == {(ids[0], r.digest()) for r in records} | {(ids[1], r.digest()) for r in later}
    assert len(children) == 4


def test_a_linked_folder_is_mirrored_where_it_lies(tmp_path, make_record):
    sync(tmp_path / "s", [make_record()])
    before = {run.info.run_id for run in runs_in(tmp_path)}
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "s").symlink_to(tmp_path / "s")
    for mirrored in (sync(tmp_path / "links" / "s", [make_record()]), Mirror(tmp_path / "links" / "s", "s").mended()):
        assert mirrored == []
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["s"]
    assert {run.info.run_id for run in runs_in(tmp_path)} == before


def test_a_moved_store_gets_an_experiment_whose_files_are_beside_it(tmp_path, make_record):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "report.md").write_text("# s")
    sync(tmp_path / "s", [make_record()])
    moved = tmp_path.rename(tmp_path.parent / "moved")
    [sentence] = sync(moved / "s", [make_record()])
    assert sentence.startswith("experiment s was made anew, since its files were in file:///")
    [parent], [_] = split(runs_in(moved))
    assert parent.info.artifact_uri.startswith((moved / "mlartifacts" / "s").as_uri())
    assert list(tmp_path.parent.iterdir()) == [moved]
    assert sync(moved / "s", [make_record()]) == []


def test_copies_that_two_writers_left_are_made_one_and_other_peoples_runs_stay(tmp_path, make_record):
    sync(tmp_path / "s", [make_record()])
    _, [child] = split(runs_in(tmp_path))
    client = client_of(tmp_path)
    for tags in (child.data.tags, {"mine": "yes"}):
        copy = client.create_run(child.info.experiment_id, tags=tags)
        client.set_terminated(copy.info.run_id)
    assert sync(tmp_path / "s", [make_record()]) == []
    names = [run.data.tags.get("trans4init.run_id", run.data.tags.get("mine", "parent")) for run in runs_in(tmp_path)]
    assert sorted(names) == sorted([make_record().run_id, "yes", "parent"])


def test_runs_of_an_earlier_version_are_replaced_not_doubled(tmp_path, make_record):
    sync(tmp_path / "s", [make_record()])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("DELETE FROM tags WHERE key IN ('trans4init.folder', 'trans4init.digest')")
    sync(tmp_path / "s", [make_record()])
    [parent], [child] = split(runs_in(tmp_path))
    assert child.data.tags["trans4init.folder"] == parent.data.tags["trans4init.folder"]


def test_a_writer_sees_what_another_wrote_since_it_began(tmp_path, make_record):
    first, second = (Mirror(tmp_path / "s", "s") for _ in range(2))
    first.add([make_record(seed=0)])
    second.add([make_record(seed=0)])
    second.add([make_record(seed=0), make_record(seed=1)])
    first.add([make_record(seed=1)])
    parents, children = split(runs_in(tmp_path))
    assert (len(parents), len(children)) == (1, 2)


def test_one_process_at_a_time_opens_and_writes_the_store(tmp_path, make_record, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.1)
    mirror = Mirror(tmp_path / "s", "s")
    with filelock.FileLock(tmp_path / ".mlflow.lock"):
        for write in (lambda: Mirror(tmp_path / "s", "s"), lambda: mirror.add([make_record()])):
            with pytest.raises(MirrorError, match="another process has written to MLflow for"):
                write()
    mirror.add([make_record()])


def test_a_metric_may_have_any_name(tmp_path, make_record):
    sync(tmp_path / "s", [make_record(measurements=(Measurement(Metric("a@b/µ", "1"), 1.0),))])
    assert split(runs_in(tmp_path))[1][0].data.metrics == {"axb/x": 1.0}


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\0" + b"\0" * 4096])
def test_a_broken_store_is_an_error_with_one_line(tmp_path, make_record, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(MirrorError) as caught:
        Mirror(tmp_path / "s", "s")
    assert "\n" not in str(caught.value)
    background = BackgroundMirror(tmp_path / "s", "s")
    background.add(make_record())
    background.drain(30)
    assert background.error


def test_a_server_that_is_not_there_is_given_up_on_in_seconds(tmp_path, make_record, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    background = BackgroundMirror(tmp_path / "s", "s")
    background.add(make_record())
    background.drain(30)
    assert "ConnectionError" in background.error or "MlflowException" in background.error


def test_a_locked_store_does_not_hold_the_study_up(tmp_path, make_record):
    sync(tmp_path / "s", [make_record(seed=0)])
    with sqlite3.connect(tmp_path / "mlflow.db") as holder:
        holder.execute("BEGIN EXCLUSIVE")
        background = BackgroundMirror(tmp_path / "s", "s")
        background.add(make_record(seed=1))
        background.drain(1)
        assert background.error
