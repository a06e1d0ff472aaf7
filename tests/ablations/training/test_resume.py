"""Resume is exact: interrupted at any step, or killed, a run that is gone on with ends as one that never was."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.lock import held
from trans4init.ablations.training.checkpoint import random_states, read_snapshot, restore_random_states, write_snapshot
from trans4init.ablations.training.loop import StoppedError
from trans4init.ablations.training.recipe import load_recipe
from trans4init.ablations.training.run import BEST, LAST, load_trained, train_recipe

TINY = """
[task]
name = "{task}"
evaluation_examples = 4
tested_longest = 11

[model]
layers = 1
width = 16
heads = 2
context = 24
dropout = 0.2
attention_dropout = 0.1
embedding_dropout = 0.1
randomised_positions = 64

[training]
steps = 24
batch = 8
learning_rate = 1e-2
warmup_steps = 3
evaluations = 3
log_every = 5
checkpoint_every = {every}
"""


def recipe_file(folder, task="reverse", every=100):
    path = folder / "tiny.toml"
    path.write_text(TINY.format(task=task, every=every))
    return path


def content(path):
    """Everything in a checkpoint that a clock hasn't written."""
    snapshot = read_snapshot(path)
    header = snapshot.header
    found = header["progress"]["found"]
    header["progress"]["found"] = [row for row in found if not row["metric"]["name"].endswith("_time")]
    return header, snapshot.tensors


def assert_same(one, other):
    (header, tensors), (other_header, other_tensors) = content(one), content(other)
    assert header == other_header
    assert tensors.keys() == other_tensors.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], other_tensors[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train_recipe(load_recipe(str(recipe_file(folder))), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("rarely", [False, True])
def test_a_run_that_is_stopped_after_every_step_ends_like_one_that_never_was(tmp_path, uninterrupted, rarely):
    """With dropout, randomised positions, and losses that no row tells of yet. rarely: every 5 steps."""
    recipe = load_recipe(str(recipe_file(tmp_path)))
    interruptions = 0
    while True:
        torch.manual_seed(interruptions)  # what the process drew before must not matter
        random.seed(interruptions)
        asked = iter([False] * (4 if rarely else 0) + [True] * 100)
        try:
            train_recipe(recipe, tmp_path / "run", stop=lambda asked=asked: next(asked))
            break
        except StoppedError:
            interruptions += 1
    assert interruptions == (4 if rarely else 23)
    for name in (LAST, BEST):
        assert_same(tmp_path / "run" / name, uninterrupted / name)


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bits(tmp_path, uninterrupted):
    """kill -9, whatever the process was doing; what is on the disk is always a whole checkpoint."""
    path = recipe_file(tmp_path, every=1)
    words = [Path(sys.executable).with_name("trans4init"), "train", str(path), "--out", str(tmp_path / "run")]
    last, generator = tmp_path / "run" / LAST, random.Random(time.time_ns())
    for _ in range(2):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and (not last.exists() or last.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.1))
        process.kill()
        process.communicate()
        read_snapshot(last)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, found = (read_snapshot(run / LAST) for run in (uninterrupted, tmp_path / "run"))
    for part in ("model", "optimiser", "random"):
        assert all(torch.equal(tensor, whole.part(part)[name]) for name, tensor in found.part(part).items())


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tmp_path):
    path = recipe_file(tmp_path, every=1)
    words = ["train", str(path), "--out", str(tmp_path / "run"), "--steps", "100000"]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("trans4init"), *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (tmp_path / "run" / LAST).exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 130
    step = read_snapshot(tmp_path / "run" / LAST).header["progress"]["step"]
    asked, stopped = complaint.splitlines()
    assert asked == "Stopping after this step; Ctrl-C once more stops at once."
    assert stopped == f"Stopped after step {step}; to continue: trans4init {' '.join(words)}"


def test_every_random_state_is_gone_back_to():
    def drawn():
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]

    random.gauss(0, 1)  # one of a pair is kept for the next call
    np.random.randn()
    states = random_states()
    first = drawn()
    assert drawn() != first
    restore_random_states(states)
    assert drawn() == first


def test_two_commands_do_not_share_a_folder_and_one_that_can_not_be_written_is_said_before_training(tmp_path):
    path = recipe_file(tmp_path)
    words = [Path(sys.executable).with_name("trans4init"), "train", str(path), "--out"]
    with held(tmp_path / "run"):
        second = subprocess.run([*words, str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert "another trans4init is at work on" in second.stderr
    (tmp_path / "file").write_text("")
    refused = subprocess.run([*words, str(tmp_path / "file")], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "file can't be written: " in refused.stderr


def test_a_folder_with_another_recipe_is_not_gone_on_with(tmp_path, uninterrupted):
    recipe = load_recipe(str(recipe_file(tmp_path)), {"training.learning_rate": 0.5})
    with pytest.raises(InputError, match=r"holds a run with training\.learning_rate = 0\.01, not 0\.5; name another"):
        train_recipe(recipe, uninterrupted)


def test_a_run_on_a_file_goes_on_where_it_was_moved_to_and_holds_no_path_of_the_machine(tmp_path):
    """It is told by its data, not by where they are; other data of the same name are refused."""

    def text_run(folder, **changes):
        recipe = load_recipe("text", changes | {"task.source": str(folder / "own.txt")} | sizes)
        return train_recipe(recipe, folder / "run", stop=lambda: next(asked))

    sizes = {"model.layers": 1, "model.width": 8, "model.heads": 2, "model.context": 8, "task.evaluation_tokens": 32}
    sizes |= {"training.steps": 4, "training.batch": 2, "training.evaluations": 2, "training.warmup_steps": 1}
    asked = iter([False, False, True])
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own.txt").write_text("net slot arm trial study " * 100)
    with pytest.raises(StoppedError):
        text_run(tmp_path / "here")
    there = (tmp_path / "here").rename(tmp_path / "there")
    asked = iter([False] * 4)
    outcome = text_run(there)
    assert outcome.progress.step == 4
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in there.rglob("*") if path.is_file())
    assert load_trained(there / "run").recipe.task.source == "own.txt"
    again = there.rename(tmp_path / "elsewhere")
    asked = iter([])
    assert text_run(again).record.name == outcome.record.name
    (again / "own.txt").write_text("another text " * 100)
    with pytest.raises(InputError, match=r"the data of byte language model of own\.txt changed"):
        text_run(again)


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    steps = []
    outcome = train_recipe(
        load_recipe(str(recipe_file(tmp_path))), uninterrupted, on_progress=lambda *told: steps.append(told)
    )
    assert steps == []
    assert outcome.progress.step == 24
    assert len(list((uninterrupted / "results").glob("*.parquet"))) == 1


def test_the_best_checkpoint_is_of_the_best_evaluation(uninterrupted):
    best, last = (read_snapshot(uninterrupted / name).header["progress"] for name in (BEST, LAST))
    losses = {m["step"]: m["value"] for m in last["found"] if m["metric"]["name"] == "validation_loss"}
    assert best["step"] == last["best_step"] == min(losses, key=losses.get)


def test_a_trained_model_is_read_again_as_it_was(uninterrupted):
    trained = load_trained(uninterrupted)
    weights = read_snapshot(uninterrupted / BEST).part("model")
    assert all(torch.equal(value, weights[name]) for name, value in trained.model.state_dict().items())
    assert not trained.model.training
    assert trained.codec.encode("3 1") == [3, 1]


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_trained(tmp_path)
    (tmp_path / LAST).write_bytes(b"not this")
    with pytest.raises(InputError, match="is not a checkpoint of a training run"):
        load_trained(tmp_path / LAST)


def test_a_checkpoint_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = write_snapshot(tmp_path / LAST, {"n": 1}, model={"a": torch.ones(3)})
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_snapshot(path, {"n": 2}, model={"a": torch.zeros(3)})
    assert read_snapshot(path).header == {"n": 1}
