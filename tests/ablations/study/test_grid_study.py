"""A grid from its file to its report, by the command: killed in the middle, changed, and run again."""

import os
import shutil
import signal
import time
from collections import Counter

import optuna
import pytest
from mlflow import MlflowClient
from rich.console import Console

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.grid import load_grid
from trans4init.ablations.study.run import Options, run_study
from trans4init.reports.records.store import load_results
from trans4init.reports.study_report.blocks import summaries

NO_ARM_NONE = ('"learned-frozen", "none"]', '"learned-frozen"]')
TUNED = (
    "[evaluation]\n",
    "[tuning]\ntrials = 2\nseeds_per_trial = 1\n\n[tuning.space]\n"
    "learning_rate = { low = 1e-3, high = 1e-1, log = true }\n\n[evaluation]\n",
)
LABELS = ["gelu · text", "gelu · copy", "silu · text", "silu · copy"]


def results_in(folder):
    return load_results(folder / "runs" / "grid" / "results")


def values(folder):
    """What the runs measured, without what a clock measured."""
    timed = ("wall_time", "fit_time", "call_time", "folded_call_time", "analytic_call_time")
    return {
        record.run_id: [(m.metric.name, m.step, m.value) for m in record.measurements if m.metric.name not in timed]
        for record in results_in(folder).records
        if record.phase != "throughput"
    }


@pytest.fixture(scope="module")
def finished_grid(tmp_path_factory, write_grid, start_in):
    """The grid, run to its end by the command; the folder where it was run, and what was printed."""
    folder = tmp_path_factory.mktemp("grid")
    write_grid(folder, NO_ARM_NONE)
    process = start_in(folder, "run", "grid.toml")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return folder, output


@pytest.fixture
def grid_copy(finished_grid, tmp_path):
    """A copy of the finished grid; the folder to run commands in."""
    shutil.copytree(finished_grid[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_every_cell_of_every_block_is_run_and_reported(finished_grid):
    folder, output = finished_grid
    records = results_in(folder).records
    assert Counter(record.phase for record in records) == {"fit": 12, "evaluate": 32, "throughput": 20}
    assert {record.status for record in records} == {"ok"}
    assert {record.study for record in records} == {"grid"}
    cards = results_in(folder).cards
    assert [card.block for card in cards] == LABELS
    assert [(card.own_words(), card.words()) for card in cards] == [(3, 12)] * 4
    by_block = Counter((record.spec_hash, record.phase) for record in records)
    assert by_block == {
        (card.spec_hash, phase): n for card in cards for phase, n in (("fit", 3), ("evaluate", 8), ("throughput", 5))
    }
    lines = output.splitlines()
    assert any(line.startswith("[48/48] silu · copy: throughput analytic, second copy") for line in lines)
    assert any(
        "gelu · copy: evaluate learned-frozen · piecewise-linear-8 seed 1: validation_loss" in line for line in lines
    )
    verdicts = [line.partition(": ")[0] for line in lines if ": Against analytic" in line]
    assert verdicts == LABELS
    assert lines[-1] == "results  runs/grid/results"
    assert "Words are corrected over all 12 comparisons of the grid's 4 blocks" in output


def test_speeds_are_measured_when_all_blocks_have_nothing_else_to_run(finished_grid):
    records = results_in(finished_grid[0]).records
    sessions = {}
    for record in records:
        if record.phase == "throughput":
            sessions.setdefault(record.notes["session"], set()).add(record.spec_hash)
    assert sorted(map(len, sessions.values())) == [1, 1, 1, 1]
    last = max(record.created_at for record in records if record.phase != "throughput")
    assert all(record.created_at > last for record in records if record.phase == "throughput")


def test_mlflow_has_a_parent_and_a_tag_for_each_block(finished_grid):
    client = MlflowClient(tracking_uri=f"sqlite:///{finished_grid[0] / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("grid").experiment_id], max_results=200)
    parents = {run.info.run_id: run for run in runs if "trans4init.spec_hash" in run.data.tags}
    assert sorted(run.info.run_name for run in parents.values()) == sorted(f"grid ({label})" for label in LABELS)
    children = [run for run in runs if "trans4init.run_id" in run.data.tags]
    assert Counter(run.data.tags["block"] for run in children) == dict.fromkeys(LABELS, 16)
    for run in children:
        assert run.data.tags["block"] == parents[run.data.tags["mlflow.parentRunId"]].data.tags["block"]
    for run in parents.values():
        for label in LABELS:
            assert f"{label}: Against analytic" in run.data.tags["mlflow.note.content"]


def test_killed_in_the_middle_it_ends_as_one_that_was_not(finished_grid, tmp_path, write_grid, command, run_command):
    write_grid(tmp_path, NO_ARM_NONE)
    process = command("run", "grid.toml")
    folder = tmp_path / "runs" / "grid" / "results"
    end = time.monotonic() + 600
    while len(list(folder.glob("*.parquet"))) < 22:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*-*.parquet")}
    assert len({record.spec_hash for record in load_results(folder).records}) > 1  # in the second block at least
    code, output = run_command("run", "grid.toml")
    assert code == 0, output
    assert "file changed" not in output
    assert values(tmp_path) == values(finished_grid[0])
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("*-*.parquet")}.items()
    code, output = run_command("run", "grid.toml")
    assert (code, "Nothing left to run: all 48 runs of grid are finished." in output) == (0, True)


@pytest.fixture
def run_grid(monkeypatch, capsys):
    """Runs the grid of a folder in this process; what was printed."""

    def run(folder):
        monkeypatch.chdir(folder)
        options = Options("grid.toml", "trans4init run grid.toml", folder / "runs" / "grid", "inline")
        assert run_study(load_grid("grid.toml"), options, Console(width=200)) == 0
        return capsys.readouterr().out

    return run


def edit(folder, *changes):
    path = folder / "grid.toml"
    for old, new in changes:
        content = path.read_text()
        assert content.count(old) == 1
        path.write_text(content.replace(old, new))


def test_a_changed_file_says_which_cells_stay_and_which_must_run_and_runs_no_others(grid_copy, run_grid):
    def moments():
        """When each fit and evaluation was made, whatever file it is in."""
        records = load_results(grid_copy / "runs" / "grid" / "results").records
        return {record.run_id: record.created_at for record in records if record.phase in ("fit", "evaluate")}

    before = moments()
    edit(grid_copy, ('["gelu", "silu"]', '["gelu", "tanh"]'), ("pieces = [4, 8]", "pieces = [4, 16]"))
    output = run_grid(grid_copy)
    [line] = [line for line in output.splitlines() if line.startswith("The study's file changed")]
    assert line.startswith(
        "The study's file changed: 6 cells stay valid; 10 cells must run (gelu · text: learned-frozen · "
        "piecewise-linear-16, gelu · copy: learned-frozen · piecewise-linear-16, tanh · text: analytic, "
    )
    assert "20 finished runs count no more (of gelu · text: learned-frozen · piecewise-linear-8, " in line
    results = results_in(grid_copy)
    after = moments()
    assert before.items() <= after.items()
    assert len(after) - len(before) == 10 * 2 + 2 + 6
    assert [card.block for card in results.cards] == ["gelu · text", "gelu · copy", "tanh · text", "tanh · copy"]
    # Three cells in each block of tanh, three and the dropped net in those of gelu, and the two blocks of silu.
    assert {card.words() for card in results.cards} == {2 * 3 + 2 * 4 + 2 * 3}
    assert {(block.label, block.words) for block in results.cards[0].dropped} == {
        ("silu · text", 3),
        ("silu · copy", 3),
    }
    assert [summary.runs for summary in summaries(results)][2:] == [3 + 8 + 5] * 2
    report = (grid_copy / "runs" / "grid" / "report.md").read_text()
    assert "32 runs of blocks that the study's file doesn't have any more count for nothing here." in report
    assert "| silu" not in report
    assert "Nothing left to run" in run_grid(grid_copy)
    again = results_in(grid_copy).cards
    assert again == results.cards  # what was dropped is remembered
    edit(grid_copy, ('["gelu", "tanh"]', '["gelu", "tanh", "silu"]'), ("pieces = [4, 16]", "pieces = [4, 16, 8]"))
    output = run_grid(grid_copy)
    assert results_in(grid_copy).cards[0].dropped == ()


def test_a_study_becomes_a_grid_and_keeps_its_runs(tmp_path, write_grid, run_grid):
    one = ('function = ["gelu", "silu"]', 'function = "gelu"')
    write_grid(
        tmp_path,
        NO_ARM_NONE,
        one,
        (
            'name = "copy"\nlongest = 4\ntested_longest = 5\nevaluation_examples = 5',
            'source = "text.txt"\nunit = "character"\nevaluation_tokens = 64',
        ),
    )
    assert [block.label for block in load_grid(str(tmp_path / "grid.toml")).blocks] == [
        "text unit byte",
        "text unit character",
    ]
    second = '[[task]]\nsource = "text.txt"\nunit = "character"\nevaluation_tokens = 64\n'
    edit(tmp_path, (second, ""))
    run_grid(tmp_path)
    assert [(card.block, card.together) for card in results_in(tmp_path).cards] == [("", None)]
    edit(tmp_path, ("[model]", f"{second}\n[model]"))
    output = run_grid(tmp_path)
    assert "4 cells stay valid; 4 cells must run (text unit character: analytic, " in output
    assert "count no more" not in output
    assert [(card.block, card.together) for card in results_in(tmp_path).cards] == [
        ("text unit byte", 6),
        ("text unit character", 6),
    ]


def test_a_grid_none_of_whose_blocks_stays_is_refused(grid_copy, run_grid):
    edit(grid_copy, ("steps = 6", "steps = 7"))
    with pytest.raises(
        InputError, match=r"holds runs of another version of this study \(training.steps: 6 there, 7 he"
    ):
        run_grid(grid_copy)
    edit(grid_copy, ("steps = 7", "steps = 6"), ('"gelu", "silu"', '"tanh", "relu"'))
    with pytest.raises(InputError, match=r"another version of this study \(function: .* there, .* here\)"):
        run_grid(grid_copy)


def test_a_net_of_another_size_under_the_same_name_is_refused(grid_copy, run_grid):
    edit(grid_copy, ("hidden = [8]", "hidden = [9]"))
    with pytest.raises(InputError, match="holds runs of another version of this study"):
        run_grid(grid_copy)


def test_what_cannot_be_run_in_some_block_is_said_before_any_run(tmp_path, write_grid, run_command):
    write_grid(tmp_path, ('"gelu", "silu"', '"sinusoidal", "gelu"'), ('"none"]', '"free-table"]'))
    code, output = run_command("run", "grid.toml")
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith("trans4init: grid.toml: gelu · text: arm 'free-table' makes no sense for gelu")
    assert not (tmp_path / "runs").exists()


def test_each_block_is_tuned_and_has_its_studies_in_optunas_database(tmp_path, write_grid, run_grid):
    nets = '[[nets]]\nname = "mlp-relu"\nhidden = [8]\n'
    write_grid(tmp_path, NO_ARM_NONE, TUNED, ('["gelu", "silu"]', '"gelu"'), (nets, ""), ("seeds = 2", "seeds = 1"))
    run_grid(tmp_path)
    storage = f"sqlite:///{tmp_path / 'runs' / 'grid' / 'optuna.db'}"
    found = {study.study_name: study.n_trials for study in optuna.get_all_study_summaries(storage)}
    assert found == {
        f"grid / {task} / gelu / {cell}": 2
        for task in ("text", "copy")
        for cell in ("analytic", "learned-frozen · piecewise-linear-4", "learned-frozen · piecewise-linear-8")
    }


def test_the_plan_of_a_grid_has_all_cells_and_one_estimate(tmp_path, write_grid, run_command):
    write_grid(tmp_path, NO_ARM_NONE)
    code, output = run_command("run", "grid.toml", "--dry-run")
    assert code == 0, output
    rows = [line.split() for line in output.splitlines()]
    assert rows[0] == ["block", "cell", "trials", "seeds"]
    assert sum("learned-frozen" in row for row in rows) == 12
    assert [" ".join(row[:3]) for row in rows if row[:1] in (["gelu"], ["silu"])] == LABELS
    assert "12 fits, 32 runs of 6 steps" in " ".join(output.split())
    assert "in 4 blocks, then block by block all 16 cells" in " ".join(output.split())
    assert "12 comparisons are corrected together: a word takes 9 seeds, and 2 are asked for." in " ".join(
        output.split()
    )
    assert not (tmp_path / "runs").exists()
