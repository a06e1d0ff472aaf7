"""Flip a bit, or cut a file off: whatever changes what is read is found, named and made again."""

import json
import sqlite3

import pytest
import torch

from trans4init.ablations.errors import FaultError, InputError
from trans4init.ablations.fit import load_fitted
from trans4init.ablations.net_files import is_whole
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.cards import StoredCards
from trans4init.ablations.study.grid import load_grid
from trans4init.ablations.study.optuna_database import OptunaDatabase, keep_trials
from trans4init.ablations.study.resolving import resolve
from trans4init.ablations.study.together import begun_arrays
from trans4init.ablations.training.checkpoint import read_snapshot, write_snapshot
from trans4init.reports.records.kept_slots import UnreadableSlotsError, read_kept
from trans4init.reports.records.store import bundle, load_results
from trans4init.reports.records.tables import UnreadableSchemaError


def folder_of(study_copy):
    return study_copy / "runs" / "tiny"


@pytest.fixture
def study(study_copy, monkeypatch):
    """The finished study, as the command that runs it has it."""
    monkeypatch.chdir(study_copy)
    [study] = resolve(load_grid("tiny.toml"), folder_of(study_copy), "trans4init run tiny.toml")
    return study


@pytest.mark.parametrize("kind", ["fit-*", "tune-*", "evaluate-*", "throughput-*", "study"])
def test_results_and_cards(study_copy, tries, damage, kind):
    folder = folder_of(study_copy) / "results"
    path = sorted(folder.glob(f"{kind}.parquet"))[0]
    whole, content = load_results(folder), path.read_bytes()
    found = 0
    for number in range(tries(12, 500)):
        path.write_bytes(damage(content, number))
        try:
            now = load_results(folder)
        except UnreadableSchemaError:  # the digest can't be asked of a version that isn't known
            found += 1
            continue
        if now.corrupt:
            assert [of.name for of in now.corrupt] == [f"{path.name}.corrupt"]
            now.corrupt[0].unlink()
            found += 1
        else:
            assert (now.records, now.cards) == (whole.records, whole.cards)
        path.write_bytes(content)
    assert found > 0


def test_fitted_nets(study_copy, tries, damage):
    [folder] = (folder_of(study_copy) / "checkpoints").iterdir()
    whole = load_fitted(folder)
    inputs = whole.net.domain.low + torch.arange(4.0)
    for path in sorted(folder.iterdir()):
        content, found = path.read_bytes(), 0
        for number in range(tries(12, 500)):
            path.write_bytes(damage(content, number))
            if is_whole(folder):
                now = load_fitted(folder)
                assert torch.equal(now(inputs), whole(inputs))
                assert (now.fidelity, now.net.domain, now.seed) == (whole.fidelity, whole.net.domain, whole.seed)
            else:
                found += 1
        path.write_bytes(content)
        assert found > 0


def test_checkpoints_of_training(tmp_path, tries, damage):
    header, values = {"step": 12, "runs": ["a", "b"]}, {"weight": torch.randn(9, 7), "count": torch.arange(3)}
    path = write_snapshot(tmp_path / "array-1.safetensors", header, values=values)
    content = path.read_bytes()
    for number in range(tries(40, 500)):
        path.write_bytes(damage(content, number))
        with pytest.raises(InputError, match="is not a checkpoint"):
            read_snapshot(path)
        said = []
        assert begun_arrays(tmp_path, said.append) == []
        assert said == ["array-1.safetensors was damaged and is removed; the runs that it was of begin anew."]
        assert not path.exists()


def test_what_runs_kept_of_their_slots(study_copy, tries, damage):
    folder = folder_of(study_copy)
    path = sorted((folder / "slots").iterdir())[0]
    content = path.read_bytes()
    for number in range(tries(20, 500)):
        path.write_bytes(damage(content, number))
        with pytest.raises(UnreadableSlotsError):
            read_kept(folder, path.stem)


def values_in(path):
    """What Optuna's tools read of the studies, without the numbers that the database gives."""
    with sqlite3.connect(path) as connection:
        trials = """SELECT study_name, number, state, datetime_start, datetime_complete FROM trials
                    JOIN studies USING (study_id) ORDER BY 1, 2"""
        by_study = "JOIN studies USING (study_id) ORDER BY 1, 2"
        joined = "JOIN trials USING (trial_id) JOIN studies USING (study_id) ORDER BY 1, 2, 3, 4"
        return [
            connection.execute(query).fetchall()
            for query in (
                trials,
                f"SELECT study_name, direction, objective FROM study_directions {by_study}",
                f"SELECT study_name, number, param_name, param_value, distribution_json FROM trial_params {joined}",
                f"SELECT study_name, number, objective, value FROM trial_values {joined}",
                f"SELECT study_name, number, step, intermediate_value FROM trial_intermediate_values {joined}",
                f"SELECT study_name, number, key, value_json FROM trial_user_attributes {joined}",
                f"SELECT study_name, key, value_json FROM study_user_attributes {by_study}",
            )
        ]


def test_optunas_database(study, tries, damage):
    """What a command leaves behind is what the results say, whatever it found; or it says that the machine refuses."""
    agenda = Agenda(study, load_results(study.results).records, ())
    path = study.folder / "optuna.db"
    path.unlink()
    names = study.spec.cells()
    keep_trials(OptunaDatabase(study.spec, study.folder), agenda, names)
    whole, content = values_in(path), path.read_bytes()
    ours = {row[0] for row in whole[0]}
    found = 0
    for number in range(tries(40, 500)):
        path.write_bytes(damage(content, number))
        said = []
        keep_trials(OptunaDatabase(study.spec, study.folder, say=said.append), agenda, names)
        now = [[row for row in rows if row[0] in ours] for rows in values_in(path)]
        assert now == whole, number
        assert set(said) <= {"optuna.db was damaged and is set aside; it is made anew from the results."}
        found += bool(said)
        for left in study.folder.glob("optuna.db?*"):
            left.unlink()
    assert found > 0


def test_a_database_that_the_machine_refuses_is_not_set_aside(study):
    agenda = Agenda(study, load_results(study.results).records, ())
    other = sqlite3.connect(study.folder / "optuna.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(FaultError, match=r"Optuna's database .*optuna\.db can't be used: database is locked\."):
        keep_trials(OptunaDatabase(study.spec, study.folder), agenda, study.spec.cells())
    other.close()
    assert list(study.folder.glob("*.corrupt")) == []


def test_the_spec_for_people_is_written_again(study, tries, damage):
    results = load_results(study.results)
    path = study.folder / "spec.json"
    cards = StoredCards([study], results)
    cards.fill([study])
    content = path.read_bytes()
    assert json.loads(content)["fingerprint"] == study.fingerprint
    for number in range(tries(10, 500)):
        path.write_bytes(damage(content, number))
        StoredCards([study], load_results(study.results)).fill([study])
        assert path.read_bytes() == content


def test_a_damaged_bundle_is_set_aside_and_its_runs_are_made_again(study_copy, run_command, tries, damage):
    folder = folder_of(study_copy) / "results"
    bundle(load_results(folder).records, folder)
    [path] = folder.glob("bundle-*.parquet")
    path.write_bytes(damage(path.read_bytes(), 1))
    code, output = run_command("run", "tiny.toml")
    assert code == 0, output
    assert f"{path.name}.corrupt was damaged and is set aside; what it held is made again." in output
    assert len(load_results(folder).records) == 27
