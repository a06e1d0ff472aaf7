"""`trans4init pack` and `sync FILE`: results move between machines, whole and once."""

import shutil
import sqlite3

import pytest

from trans4init.reports.records.store import load_results


def mirrored(folder):
    """The ids of the runs that MLflow has, once for each time that it has them."""
    with sqlite3.connect(folder / "runs" / "mlflow.db") as connection:
        return sorted(value for (value,) in connection.execute("SELECT value FROM tags WHERE key = 'run_id'"))


@pytest.fixture
def elsewhere(study_copy, run_command):
    """The finished study, packed, in a folder that has nothing else."""
    code, output = run_command("pack", "runs/tiny", "--out", "tiny.zip")
    assert code == 0, output
    assert output.startswith("27 runs of tiny are in tiny.zip (")
    (study_copy / "runs").rename(study_copy / "there")
    return study_copy


def test_a_packed_study_is_unpacked_mirrored_and_rendered(elsewhere, run_command):
    code, output = run_command("sync", "tiny.zip")
    assert code == 0, output
    assert "27 of 27 runs in tiny.zip are new in runs/tiny" in output
    before, now = (load_results(elsewhere / name / "tiny" / "results") for name in ("there", "runs"))
    assert {run.run_id: run for run in now.records} == {run.run_id: run for run in before.records}
    assert now.stored_cards == before.stored_cards
    assert (elsewhere / "runs" / "tiny" / "report.html").exists()
    slots = sorted(path.name for path in (elsewhere / "there" / "tiny" / "slots").iterdir())
    assert sorted(path.name for path in (elsewhere / "runs" / "tiny" / "slots").iterdir()) == slots
    assert sorted(path.name for path in (elsewhere / "runs").iterdir() if path.name.startswith(".un")) == []
    first = mirrored(elsewhere)
    code, output = run_command("sync", "tiny.zip")
    assert "0 of 27 runs in tiny.zip are new in runs/tiny" in output
    assert mirrored(elsewhere) == first
    code, output = run_command("run", "tiny.toml")
    assert code == 0, output  # it goes on from what was unpacked: only the net is fitted again
    assert len(load_results(elsewhere / "runs" / "tiny" / "results").records) == 27


def test_only_what_is_new_is_added(elsewhere, run_command):
    shutil.copytree(elsewhere / "there", elsewhere / "runs")
    lost = sorted((elsewhere / "runs" / "tiny" / "results").glob("evaluate-*"))[:3]
    for path in lost:
        path.unlink()
    code, output = run_command("sync", "tiny.zip")
    assert code == 0, output
    assert "3 of 27 runs in tiny.zip are new in runs/tiny" in output
    assert len(load_results(elsewhere / "runs" / "tiny" / "results").records) == 27


def test_another_study_of_that_name_is_refused(elsewhere, run_command):
    (elsewhere / "tiny.toml").write_text((elsewhere / "tiny.toml").read_text().replace("steps = 6", "steps = 4"))
    code, output = run_command("run", "tiny.toml", "--seeds", "1", "--trials", "1")
    assert code == 0, output
    code, output = run_command("sync", "tiny.zip")
    assert code == 2
    assert "runs/tiny holds runs of another study of that name; rename the folder." in output


def test_what_is_no_packed_study_is_one_sentence(elsewhere, run_command):
    (elsewhere / "text.zip").write_text("no archive")
    code, output = run_command("sync", "text.zip")
    assert (code, output.count("\n")) == (2, 1)
    assert "text.zip can't be unpacked: it is damaged: File is not a zip file." in output
    code, output = run_command("pack", "runs/nowhere")
    assert (code, output.count("\n")) == (2, 1)
    code, output = run_command("sync", "nowhere.zip")
    assert (code, output.count("\n")) == (2, 1)
    assert not (elsewhere / "runs" / "text").exists()
