"""Two processes that train one model: the loss curve of one process at the same global batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.tasks.base import IGNORED, Batch
from trans4init.ablations.training.checkpoint import read_snapshot
from trans4init.ablations.training.distributed import joined_team
from trans4init.ablations.training.recipe import load_recipe
from trans4init.ablations.training.run import train_recipe

RECIPE = """
[task]
name = "scan"

[model]
kind = "encoder-decoder"
layers = 1
width = 16
heads = 2
context = 64

[training]
steps = 12
batch = 400
batch_unit = "tokens"
accumulate = 2
learning_rate = 1e-2
warmup_steps = 3
evaluations = 2
log_every = 2
label_smoothing = 0.1
"""


def curve(folder):
    header = read_snapshot(folder / "last.safetensors").header
    return {
        (row["metric"]["name"], row["step"]): row["value"]
        for row in header["progress"]["found"]
        if row["metric"]["name"] not in ("wall_time", "processor_time")
    }


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Padded batches of uneven rows: each target counts once, whichever process predicts it."""
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    script = Path(sys.executable).with_name("trans4init")
    words = ["train", str(path), "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    for start, name in (([], "one"), (torchrun, "two")):
        done = subprocess.run(
            [*start, script, *words, tmp_path / name], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=2e-3, abs=2e-4), key
    with pytest.raises(InputError, match="was written by 2 processes; start as many, not 1"):
        train_recipe(load_recipe(str(path)), tmp_path / "two")


def test_a_variable_of_a_scheduler_makes_no_team(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with joined_team() as team:
        assert (team.size, team.leads) == (1, True)


def test_a_team_that_can_not_be_joined_is_said(monkeypatch):
    for name, value in {"RANK": "first", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"no team can be joined .*'first'.* leave RANK"), joined_team():
        pass


def test_pieces_hold_every_row_once_and_share_the_predictions():
    targets = torch.tensor([[1, 2, IGNORED], [3, IGNORED, IGNORED], [4, 5, 6]])
    batch = Batch(torch.arange(9).view(3, 3), targets, lengths=torch.tensor([2, 1, 3]))
    pieces = [batch.piece(number, 2) for number in range(2)]
    assert [share for _, share in pieces] == [5 / 6, 1 / 6]
    assert pieces[0][0].lengths.tolist() == [2, 3]
    assert pieces[1][0].targets.tolist() == [[3, IGNORED, IGNORED]]
    empty, share = batch.piece(4, 5)
    assert (len(empty), share) == (1, 0.0)
