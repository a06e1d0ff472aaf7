"""A study from its file to its report, with real processes, Parquet, Optuna and MLflow."""

import dataclasses
import shutil
import time
from pathlib import Path

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from rich.console import Console

from trans4init.ablations.fit import FitDivergedError
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.study import work
from trans4init.ablations.study.changes import differences
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.run import Options, run_study
from trans4init.ablations.study.work import _fit_domain, fit_nets
from trans4init.reports.machine import capture
from trans4init.reports.records.kept_slots import read_kept
from trans4init.reports.records.store import load_results


def records_in(folder):
    return load_results(folder / "runs" / "tiny" / "results").records


def values(records):
    """What a run measured, without what a clock measured."""
    timed = ("wall_time", "fit_time", "call_time", "folded_call_time", "analytic_call_time")
    return {
        record.run_id: [(m.metric.name, m.step, m.value) for m in record.measurements if m.metric.name not in timed]
        for record in records
        if record.phase != "throughput"
    }


def by_phase(records, phase):
    return [record for record in records if record.phase == phase]


def test_a_study_ends_with_every_run_a_verdict_and_where_things_are(finished_study):
    assert finished_study.code == 0, finished_study.output
    last = finished_study.output.strip().splitlines()
    assert last[-2] == "report   runs/tiny/report.html"
    assert last[-1] == "results  runs/tiny/results"
    assert any(line.startswith("Against analytic sinusoidal, over 2 paired seeds") for line in last)
    records = records_in(finished_study.folder)
    counts = {phase: len(by_phase(records, phase)) for phase in ("fit", "tune", "evaluate", "throughput")}
    assert counts == {"fit": 1, "tune": 10, "evaluate": 10, "throughput": 6}
    assert {record.status for record in records} == {"ok"}
    assert (finished_study.folder / "runs" / "tiny" / "spec.json").exists()
    left_out = load_results(finished_study.folder / "runs" / "tiny" / "results").card.controls_left_out
    assert "scaled" in left_out
    assert not set(left_out) & {record.cell.arm for record in records}


def test_plain_lines_tell_what_was_done_and_what_is_left(finished_study):
    lines = [line for line in finished_study.output.splitlines() if line.startswith("[")]
    assert "[22/22]" in lines[-1]
    assert any(
        "tune learned-frozen · fourier-mlp trial 1 seed 1000: validation_loss" in line and "left" in line
        for line in lines
    )


def test_a_run_records_what_the_rules_of_evidence_ask_for(finished_study):
    found = {record.cell.arm: record for record in by_phase(records_in(finished_study.folder), "evaluate")}
    names = {m.metric.name for m in found["learned-fine-tuned"].measurements}
    assert {
        *("training_loss", "validation_loss", "bits_per_byte", "validation_loss_2x", "validation_loss_4x"),
        *("output_difference_max", "slot_drift_max", "slot_drift_rms", "slot_input_low/position"),
        *("parameters", "parameters_added", "wall_time"),
    } <= names
    assert found["learned-fine-tuned"].notes["moves"].startswith("position.content.net.")
    assert found["learned-frozen"].notes["moves"] == ""
    assert "validation_loss_2x" not in {m.metric.name for m in found["free-table"].measurements}
    assert found["analytic"].parameters.keys() == {"learning_rate"}


def test_every_arm_has_the_same_budget_and_tuning_is_apart_from_evaluation(finished_study):
    records = records_in(finished_study.folder)
    cells = {record.cell for record in by_phase(records, "evaluate")}
    for cell in cells:
        assert [r.trial for r in sorted(by_phase(records, "tune"), key=lambda r: r.trial) if r.cell == cell] == [0, 1]
        assert sorted(r.seed for r in by_phase(records, "evaluate") if r.cell == cell) == [0, 1]
    assert {r.seed for r in by_phase(records, "tune")} == {1000}


MANY_SEEDS = (("[fit]\n", '[fit]\nseeds = "per-run"\n'), ("seeds_per_trial = 1", "seeds_per_trial = 2"))


@pytest.fixture(scope="module")
def study_of_many_fits(tmp_path_factory, write_study):
    """A study with two tuning seeds and a fit for each run, in the folder where it was run without interruption."""
    folder = tmp_path_factory.mktemp("many")
    path = write_study(folder, *MANY_SEEDS)
    code = run_study(load_study(str(path)), Options(str(path), "again", folder / "runs" / "tiny", "inline"), Console())
    assert code == 0
    return folder


def test_each_run_has_a_fit_of_its_seed_and_each_trial_its_seeds(study_of_many_fits):
    records = records_in(study_of_many_fits)
    assert sorted(record.seed for record in by_phase(records, "fit")) == [0, 1, 1000, 1001]
    assert len({record.last("rms_error/0..31") for record in by_phase(records, "fit")}) == 4
    assert len(by_phase(records, "tune")) == 5 * 2 * 2
    assert {record.seed for record in by_phase(records, "tune")} == {1000, 1001}
    report = (study_of_many_fits / "runs" / "tiny" / "report.md").read_text()
    assert "means over 4 fits" in report
    assert "on the tuning seeds 1000, 1001" in report


@pytest.mark.parametrize("lost", [("fit",), ("fit", "tune"), ("tune", "evaluate")])
def test_an_interrupted_study_of_many_fits_ends_as_one_that_was_not(study_of_many_fits, tmp_path, lost):
    """Every second run of these phases is lost, of fits the checkpoint too; what is there is not run again."""
    shutil.copytree(study_of_many_fits, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs" / "tiny"
    whole = values(records_in(tmp_path))
    for phase in lost:
        for path in sorted((folder / "results").glob(f"{phase}-*.parquet"))[::2]:
            path.unlink()
            shutil.rmtree(folder / "checkpoints" / path.stem, ignore_errors=True)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "results").glob("*-*.parquet")}
    assert len(kept) < len(list((study_of_many_fits / "runs" / "tiny" / "results").glob("*-*.parquet")))
    path = tmp_path / "tiny.toml"
    assert run_study(load_study(str(path)), Options(str(path), "again", folder, "inline"), Console()) == 0
    assert values(records_in(tmp_path)) == whole
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


def test_a_fit_that_diverges_makes_its_seeds_runs_rows_without_a_value(tiny_study, tmp_path, monkeypatch):
    """The other seeds' runs are done, and the row says why its own was not."""
    plain = work.fit_nets

    def spoilt(study, net, seeds, *rest):
        for index, fitted in plain(study, net, seeds, *rest):
            yield index, FitDivergedError("the loss of the fit is nan at step 3") if seeds[index] == 1 else fitted

    monkeypatch.setattr(work, "fit_nets", spoilt)
    path = tiny_study(*MANY_SEEDS)
    options = Options(str(path), "again", tmp_path / "runs" / "tiny", "inline")
    assert run_study(load_study(str(path)), options, Console()) == 0
    rows = [record for record in by_phase(records_in(tmp_path), "evaluate") if record.status != "ok"]
    assert {(record.cell.arm, record.seed, record.status, record.error) for record in rows} == {
        (arm, 1, "diverged", "its net has no fit: the loss of the fit is nan at step 3")
        for arm in ("learned-frozen", "learned-fine-tuned")
    }
    assert len(by_phase(records_in(tmp_path), "evaluate")) == 10
    report = (tmp_path / "runs" / "tiny" / "report.md").read_text()
    assert "seed 1: diverged (its net has no fit: the loss of the fit is nan at step 3)" in report
    assert "means over 3 fits" in report


def test_optuna_holds_the_trials(finished_study):
    storage = f"sqlite:///{finished_study.folder / 'runs' / 'tiny' / 'optuna.db'}"
    studies = optuna.get_all_study_summaries(storage)
    assert len(studies) == 5
    assert all(study.n_trials == 2 for study in studies)
    records = by_phase(records_in(finished_study.folder), "tune")
    told = {
        round(trial.value, 9)
        for study in studies
        for trial in optuna.load_study(study_name=study.study_name, storage=storage).trials
    }
    assert told == {round(record.last("validation_loss"), 9) for record in records}


def test_mlflow_holds_the_runs_and_the_report(finished_study):
    client = MlflowClient(tracking_uri=f"sqlite:///{finished_study.folder / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 1 + 27
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "report.html",
        "report.md",
        "report.svg",
    }


@pytest.mark.alone
def test_the_same_command_again_runs_nothing_and_is_quick(study_copy, run_command):
    """No-op resume: the best of a few, of the whole command."""
    before = {path: path.stat().st_mtime_ns for path in (study_copy / "runs").rglob("*.parquet")}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        code, output = run_command("run", "tiny.toml")
        times.append(time.perf_counter() - start)
    assert code == 0
    assert "Nothing left to run: all 22 runs of tiny are finished." in output
    assert "Against analytic" in output
    assert {path: path.stat().st_mtime_ns for path in (study_copy / "runs").rglob("*.parquet")} == before
    assert min(times) < 3, times


def test_in_line_and_in_processes_the_numbers_are_the_same_bits(finished_study, tiny_study, run_command, tmp_path):
    code, output = run_command("run", tiny_study(), "--executor", "inline")
    assert code == 0, output
    assert values(records_in(tmp_path)) == values(records_in(finished_study.folder))


def test_the_verdict_is_about_what_was_asked_for_last_though_nothing_is_left_to_run(study_copy, monkeypatch, capsys):
    monkeypatch.chdir(study_copy)
    folder = Path("runs/tiny")
    for seeds in (1, 2):
        options = Options("tiny.toml", "trans4init run tiny.toml", folder)
        assert run_study(load_study("tiny.toml", seeds=seeds), options, Console(width=200)) == 0
        output = capsys.readouterr().out
        assert "Nothing left to run" in output
        assert f"over {seeds} paired seed" in output
        assert f"over {seeds} paired seed" in (folder / "report.md").read_text()
        assert load_results(folder / "results").card.seeds == seeds


def test_more_seeds_keep_the_runs_that_are_there(study_copy, run_command):
    before = {record.run_id: record for record in records_in(study_copy)}
    code, output = run_command("run", "tiny.toml", "--seeds", "3")
    assert code == 0, output
    after = {record.run_id: record for record in records_in(study_copy)}
    assert before.items() <= after.items()
    assert len(by_phase(after.values(), "evaluate")) == 15
    client = MlflowClient(tracking_uri=f"sqlite:///{study_copy / 'runs' / 'mlflow.db'}")
    mirrored = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], max_results=200)
    ids = [run.data.tags["trans4init.run_id"] for run in mirrored if "trans4init.run_id" in run.data.tags]
    assert sorted(ids) == sorted(after)
    card = load_results(study_copy / "runs" / "tiny" / "results").card
    assert (card.seeds, card.stated.seeds) == (3, 2)
    assert "Extended after a look: 2 seeds were stated before the first run, 3 are judged." in report_of(study_copy)
    code, output = run_command("run", "tiny.toml", "--seeds", "4")
    assert code == 0, output
    assert "Extended after a look: 2 seeds were stated before" in report_of(study_copy)  # the first plan stays


def report_of(folder):
    return (folder / "runs" / "tiny" / "report.md").read_text()


def test_another_version_of_the_study_in_the_same_folder_is_refused(study_copy, run_command):
    study = study_copy / "tiny.toml"
    study.write_text(study.read_text().replace("steps = 6", "steps = 7"))
    code, output = run_command("run", "tiny.toml")
    assert code == 2
    assert "runs/tiny holds runs of another version of this study (training.steps: 6 there, 7 here)" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("margin = 0.05", "margin = 0.05\n[evaluation.margins]\nvalidation_loss_4x = 0.1"),
        ("seeds = 2\n", "seeds = 2\nlooks = [1, 2]\n"),
        ("margin = 0.05", 'margin = 0.05\n[evaluation.target]\nmetric = "validation_loss"\nvalue = 2.0'),
        ("seeds = 2\n", "seeds = 3\n"),
        ("trials = 2", "trials = 3"),
        ("seeds_per_trial = 1", "seeds_per_trial = 2\ntimes = 2"),
        ("rounds = 2", "rounds = 3"),
    ],
)
def test_what_may_change_in_a_folder_with_runs_is_no_condition_of_theirs(tiny_study, tmp_path, old, new):
    before, after = (load_study(str(tiny_study(*change))) for change in ((), ((old, new),)))
    assert before.public() != after.public()
    assert before.conditions("f") == after.conditions("f")
    assert list(differences(before.public(), after.public())) == []


def test_another_study_in_the_same_folder_is_refused(study_copy, run_command):
    (study_copy / "other.toml").write_text((study_copy / "tiny.toml").read_text().replace('"tiny"', '"other"'))
    code, output = run_command("run", "other.toml", "--out", "runs/tiny")
    assert code == 2
    assert output == "trans4init: runs/tiny holds runs of another study, 'tiny'; name another folder with --out.\n"


def test_results_of_another_schema_are_refused_by_every_command(study_copy, run_command):
    pq.write_table(pa.table({"x": [1]}), study_copy / "runs" / "tiny" / "results" / "theirs.parquet")
    for words in (["run", "tiny.toml"], ["sync", "runs/tiny"], ["report", "runs/tiny"]):
        code, output = run_command(*words)
        assert (code, output.count("\n")) == (2, 1), output
        assert "theirs.parquet: schema version none" in output


def test_a_report_that_cannot_be_written_is_one_sentence(study_copy, run_command):
    (study_copy / "afile").write_text("")
    code, output = run_command("report", "runs/tiny", "--publish", "afile")
    assert (code, output.count("\n")) == (1, 1), output
    assert "the report can't be written: " in output


def test_a_lost_store_comes_back_with_the_report(study_copy, run_command):
    """A kill between the last result and the report leaves MLflow behind as well."""
    (study_copy / "runs" / "mlflow.db").unlink()
    (study_copy / "runs" / "tiny" / "report.html").unlink()
    code, output = run_command("run", "tiny.toml")
    assert code == 0, output
    client = MlflowClient(tracking_uri=f"sqlite:///{study_copy / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert len(client.search_runs([experiment.experiment_id], max_results=200)) == 28


def test_another_text_in_the_same_folder_is_refused(study_copy, run_command):
    (study_copy / "text.txt").write_text((study_copy / "text.txt").read_text() + "more")
    code, output = run_command("run", "tiny.toml")
    assert code == 2
    assert "the data changed" in output


def test_a_net_of_another_size_in_the_same_folder_is_refused(study_copy, run_command):
    study = study_copy / "tiny.toml"
    study.write_text(study.read_text().replace("hidden = [8]", "hidden = [9]"))
    code, output = run_command("run", "tiny.toml")
    assert code == 2
    assert "another version" in output


def test_a_text_of_ones_own_makes_a_study_of_its_own(tiny_study, run_command, tmp_path):
    own = tmp_path / "my own.txt"
    own.write_bytes(bytes(range(256)) * 40)
    code, output = run_command("run", tiny_study(), "--data", own, "--seeds", "1", "--trials", "1")
    assert code == 0, output
    [record, *_] = load_results(tmp_path / "runs" / "tiny-my-own" / "results").records
    assert record.study == "tiny-my-own"
    assert record.spec["task"]["source"] == "my own.txt"
    assert str(tmp_path) not in str(record.spec)


def test_the_folder_can_be_chosen(tiny_study, run_command, tmp_path):
    code, output = run_command("run", tiny_study(), "--seeds", "1", "--trials", "1", "--out", "elsewhere/here")
    assert code == 0, output
    assert (tmp_path / "elsewhere" / "here" / "report.html").exists()
    assert (tmp_path / "elsewhere" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            'function = "sinusoidal"',
            'function = "sinusoidl"',
            "unknown function 'sinusoidl'; did you mean 'sinusoidal'?",
        ),
        ('name = "fourier-mlp"', 'name = "fourier-mpl"', "unknown net 'fourier-mpl'; did you mean 'fourier-mlp'?"),
        ("frequencies = 4", "frequencys = 4", "unknown key 'frequencys'; did you mean 'frequencies'?"),
        ('function = "learned-table"', 'function = "gelu"', "baseline 'gelu' belongs in slot 'activation'"),
        ("width = 8", "width = 9\nactivation = 'glu'", "width 9 can't be shared"),
        ("layers = 1", 'layers = 1\nactivation = "glu"', "unknown function 'glu'; did you mean 'gelu'?"),
        ("layers = 1", 'layers = 1\nposition = "none"', "[model] position: the study is about 'sinusoidal'"),
        ("context = 8", "context = 800", "too few for context 800"),
        ('source = "text.txt"', 'source = "txet.txt"', "there is no file"),
    ],
)
def test_what_cannot_be_run_is_said_before_any_run(tiny_study, run_command, tmp_path, old, new, sentence):
    code, output = run_command("run", tiny_study((old, new)))
    assert code == 2
    assert sentence in output
    assert "tiny.toml: " in output or "there is no file" in output  # a text that is missing is named itself
    assert output.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_study_whose_arms_make_no_sense_for_its_function_is_refused(tiny_study, run_command):
    code, output = run_command("run", tiny_study(('function = "sinusoidal"', 'function = "gelu"')))
    assert code == 2
    assert "arm 'free-table' makes no sense for gelu" in output


def test_reports_can_be_made_again_from_the_results_alone(study_copy, run_command):
    folder = study_copy / "runs" / "tiny"
    for path in [path for path in folder.iterdir() if path.name != "results"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, output = run_command("report", "runs/tiny")
    assert code == 0
    assert "Against analytic sinusoidal" in output


def test_sync_rebuilds_the_mirror(study_copy, run_command):
    shutil.rmtree(study_copy / "runs" / "mlartifacts")
    (study_copy / "runs" / "mlflow.db").unlink()
    code, output = run_command("sync", "runs/tiny")
    assert code == 0, output
    assert "experiment tiny was missing and was made anew" in output
    assert "27 runs of tiny are in sqlite+pysqlite:///" in output
    client = MlflowClient(tracking_uri=f"sqlite:///{study_copy / 'runs' / 'mlflow.db'}")
    assert len(client.search_runs([client.get_experiment_by_name("tiny").experiment_id])) == 28


def test_another_function_is_studied_by_the_same_words(tiny_study, run_command, tmp_path):
    """The seam: a study of an activation differs in its file alone."""
    path = tiny_study(
        ('function = "sinusoidal"', 'function = "gelu"'),
        ('"free-table"]', '"corrected", "none"]'),
        ('[[baselines]]\nfunction = "learned-table"\narm = "free-table"\n', ""),
        ('name = "fourier-mlp"\nhidden = [8]\nfrequencies = 4', 'name = "mlp-relu"\nhidden = [8]'),
    )
    code, output = run_command("run", path, "--trials", "1")
    assert code == 0, output
    arms = {record.cell.arm for record in by_phase(records_in(tmp_path), "evaluate")}
    assert arms == {"analytic", "learned-frozen", "learned-fine-tuned", "corrected", "none"}


def test_a_net_is_fitted_from_where_its_functions_inputs_begin(tiny_study, tmp_path):
    """Positions count from 0, the keys that a query sees from 1."""
    path = tiny_study(
        ('function = "sinusoidal"', 'function = "attention-scale"'),
        ('"learned-fine-tuned", "free-table"]', '"learned-fine-tuned"]'),
        ('[[baselines]]\nfunction = "learned-table"\narm = "free-table"\n', ""),
        ('name = "fourier-mlp"\nhidden = [8]\nfrequencies = 4', 'name = "mlp-gelu"\nhidden = [8]'),
    )
    study = ResolvedStudy(load_study(str(path)), "", capture(), tmp_path, "")
    [(_, fitted)] = fit_nets(study, "mlp-gelu", [0], 5)
    assert str(fitted.net.domain) == "1..32"


@pytest.mark.parametrize(
    ("model", "positions", "domain"),
    [
        ("context = 8", "tested", "0..31"),
        ("context = 8", "training", "0..7"),
        ("context = 8\nrandomised_positions = 64", "tested", "0..63"),
        ("context = 8\nrandomised_positions = 20", "tested", "0..31"),
        ("context = 8\nrandomised_positions = 20", "training", "0..19"),
    ],
)
def test_a_net_is_fitted_on_every_position_that_its_slot_is_given(tiny_study, tmp_path, model, positions, domain):
    study = ResolvedStudy(load_study(str(tiny_study(("context = 8", model)))), "", capture(), tmp_path, "")
    fit = study.spec.fit.model_copy(update={"positions": positions})
    study = dataclasses.replace(study, spec=study.spec.model_copy(update={"fit": fit}))
    assert str(_fit_domain(study)) == domain


def test_a_net_for_an_image_is_fitted_on_its_patches(tiny_study, tmp_path):
    study = ResolvedStudy(load_study(str(tiny_study())), "", capture(), tmp_path, "")
    size = ModelSize(kind="image", layers=1, width=8, heads=2, image_size=8, patch=4, classes=2, pooling="first")
    study = dataclasses.replace(study, spec=study.spec.model_copy(update={"model": size}))
    assert str(_fit_domain(study)) == "0..4"


def test_each_evaluated_slot_is_kept_beside_the_results_and_drawn(study_copy, run_command):
    """Every arm that has a state keeps it; a report made again draws it, and without the files has no figure."""
    folder = study_copy / "runs" / "tiny"
    evaluated = [record for record in load_results(folder / "results").records if record.phase == "evaluate"]
    kept = {record.run_id: read_kept(folder, record.run_id) for record in evaluated}
    for record in evaluated:
        slots = kept[record.run_id]
        if record.cell.arm == "analytic":
            assert slots is None
            continue
        said = {key: slots.header[key] for key in ("run_id", "function", "arm", "seed")}
        assert said == {
            "run_id": record.run_id,
            "function": record.cell.function,
            "arm": record.cell.arm,
            "seed": record.seed,
        }
    assert len(list((folder / "slots").iterdir())) == sum(slots is not None for slots in kept.values()) == 8
    title = "What training made of the slot"
    assert title in (folder / "report.html").read_text()
    code, output = run_command("report", "runs/tiny", "--publish", "published")
    assert code == 0, output
    assert title in (study_copy / "published" / "report.html").read_text()
    assert (study_copy / "published" / "report.md").read_bytes() == (folder / "report.md").read_bytes()
    shutil.rmtree(folder / "slots")
    code, output = run_command("report", "runs/tiny")
    assert code == 0, output
    assert title not in (folder / "report.html").read_text()
