"""Damage: torn results, a full disk, a broken MLflow store, a loss that is not a number. A fault loses nothing."""

import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trans4init.reports.records.store import load_results


def results(folder):
    return folder / "runs" / "tiny" / "results"


def test_a_truncated_result_is_named_set_aside_and_made_again(study_copy, run_command):
    path = sorted(results(study_copy).glob("evaluate-*.parquet"))[0]
    whole = load_results(results(study_copy)).records
    path.write_bytes(path.read_bytes()[:-40])
    code, output = run_command("report", "runs/tiny")
    assert code == 0
    assert path.name + ".corrupt" in (study_copy / "runs" / "tiny" / "report.md").read_text()
    code, output = run_command("run", "tiny.toml")
    assert code == 0
    assert f"{path.name}.corrupt was damaged and is set aside; what it held is made again." in output
    assert "[22/22] evaluate" in output
    assert path.exists()
    again = load_results(results(study_copy)).records
    assert [r.last("validation_loss") for r in again] == [r.last("validation_loss") for r in whole]
    assert "corrupt" not in (study_copy / "runs" / "tiny" / "report.md").read_text()


@pytest.mark.parametrize("phase", ["fit", "tune", "throughput"])
def test_any_kind_of_run_can_be_made_again(study_copy, run_command, phase):
    path = sorted(results(study_copy).glob(f"{phase}-*.parquet"))[0]
    path.write_bytes(b"")
    code, output = run_command("run", "tiny.toml")
    assert code == 0, output
    assert len(load_results(results(study_copy)).records) == 27


@pytest.mark.parametrize("damaged", ["card.json", "net.safetensors"])
def test_lost_and_torn_checkpoints_are_fitted_again(study_copy, run_command, damaged):
    [folder] = (study_copy / "runs" / "tiny" / "checkpoints").iterdir()
    net = (folder / "net.safetensors").read_bytes()
    (folder / damaged).write_bytes((folder / damaged).read_bytes()[:100])
    code, output = run_command("run", "tiny.toml", "--seeds", "3")
    assert code == 0, output
    assert (folder / "net.safetensors").read_bytes() == net


def test_a_lost_optuna_database_is_made_again(study_copy, run_command):
    (study_copy / "runs" / "tiny" / "optuna.db").write_bytes(b"nonsense")
    code, output = run_command("run", "tiny.toml", "--trials", "3")
    assert code == 0, output
    assert sum(r.phase == "tune" for r in load_results(results(study_copy)).records) == 15


def test_a_loss_that_is_not_a_number_is_a_diverged_row_and_the_study_goes_on(tiny_study, run_command, tmp_path):
    """A rate that blows up whatever moves in a slot: the arms without such a thing are unharmed."""
    study = tiny_study(("warmup_steps = 2", "warmup_steps = 2\nslot_learning_rate_ratio = 1e30"))
    code, output = run_command("run", study)
    assert code == 0, output
    found = {}
    for record in load_results(results(tmp_path)).records:
        if record.phase == "evaluate":
            found.setdefault(f"{record.cell.function} {record.cell.arm}", set()).add(record.status)
    assert found == {
        "sinusoidal analytic": {"ok"},
        "sinusoidal learned-frozen": {"ok"},
        "sinusoidal learned-fine-tuned": {"diverged"},
        "sinusoidal free-table": {"diverged"},
        "learned-table free-table": {"diverged"},
    }
    assert "diverged (the training loss is nan at step" in output
    report = (tmp_path / "runs" / "tiny" / "report.md").read_text()
    assert "learned-fine-tuned · fourier-mlp has no result yet" in report
    assert "seed 1: diverged (the training loss is nan at step" in report
    diverged = [r for r in load_results(results(tmp_path)).records if r.status == "diverged" and r.phase == "evaluate"]
    assert all(record.last("validation_loss") is None for record in diverged)


@pytest.mark.parametrize("content", [b"this is no database" * 50, b""], ids=["garbage", "can't be opened"])
def test_a_broken_mlflow_store_does_not_stop_the_study(tiny_study, run_command, tmp_path, content):
    (tmp_path / "runs").mkdir()
    store = tmp_path / "runs" / "mlflow.db"
    if content:
        store.write_bytes(content)
    else:
        store.mkdir()  # SQLite can't open a folder, whoever asks
    code, output = run_command("run", tiny_study(), "--seeds", "1", "--trials", "1")
    assert code == 0, output
    assert "MLflow was not brought up to date" in output.splitlines()[-1]
    assert "later: trans4init sync runs/tiny" in output.splitlines()[-1]
    assert (tmp_path / "runs" / "tiny" / "report.html").exists()
    code, output = run_command("sync", "runs/tiny")
    assert code == 1
    assert output.count("\n") == 1
    store.rmdir() if store.is_dir() else store.unlink()
    code, output = run_command("sync", "runs/tiny")
    assert code == 0, output


@pytest.mark.parametrize("table", ["experiments (experiment_id INTEGER)", "alembic_version (version_num TEXT)"])
def test_a_store_that_was_half_made_is_made_anew(study_copy, run_command, table):
    """A process was killed, or its disk full, while MLflow made its tables: no command of its own mends that."""
    store = study_copy / "runs" / "mlflow.db"
    store.unlink()
    with sqlite3.connect(store) as connection:
        connection.execute(f"CREATE TABLE {table}")
        connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    code, output = run_command("sync", "runs/tiny")
    assert code == 0, output
    assert "27 runs of tiny are in" in output


def test_a_server_that_is_not_there_costs_seconds_and_one_line(tiny_study, run_command, tmp_path):
    start = time.monotonic()
    words = ("run", tiny_study(), "--seeds", "1", "--trials", "1")
    code, output = run_command(*words, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert code == 0, output
    assert "MLflow was not brought up to date" in output.splitlines()[-1]
    assert time.monotonic() - start < 60


def test_a_full_disk_is_one_sentence_and_what_was_finished_is_kept(study_copy, run_command):
    """Every file limited to 12 kB: no result fits any more. Without the limit the same command goes on."""
    words = [str(Path(sys.executable).with_name("trans4init")), "run", "tiny.toml", "--seeds", "3"]
    before = {path: path.read_bytes() for path in results(study_copy).glob("*-*.parquet")}
    done = subprocess.run(
        words,
        cwd=study_copy,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the result of a run can't be written to runs/tiny/results: File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in results(study_copy).glob("*-*.parquet")} == before
    assert list(results(study_copy).glob("*.tmp")) == []
    code, output = run_command("run", "tiny.toml", "--seeds", "3")
    assert code == 0, output


def test_a_folder_that_cannot_be_written_is_bad_input(tiny_study, run_command):
    code, output = run_command("run", tiny_study(), "--out", "/proc/nowhere")
    assert code == 2
    assert "/proc/nowhere can't be written" in output
    assert output.count("\n") == 1


def test_a_text_that_changes_during_the_study_is_noticed_by_the_runs(study_copy, run_command):
    """The study was begun with another text: its finished runs are not mixed with new ones."""
    (study_copy / "text.txt").write_text("another text " * 500)
    code, output = run_command("run", "tiny.toml", "--seeds", "4")
    assert code == 2
    assert "the data changed" in output
