"""The kernels' benchmarks: what goes wrong is a row, every row is kept, and each implementation runs at a tiny size."""

import subprocess
import sys

import pytest
import torch

from trans4init.bench import attention, positional_mlp, side_by_side
from trans4init.bench.side_by_side import COPY_RATE, MATMUL_RATE, Case, MissingError, in_turns, print_table, save
from trans4init.reports.store import load_results


def raising(error):
    def call():
        raise error

    return call


@pytest.fixture(scope="module")
def timings():
    implementations = {
        "good": lambda: {"forward": lambda: torch.ones(3) + 1},
        "large": lambda: {"forward": raising(torch.OutOfMemoryError("no room"))},
        "wrong": lambda: {"forward": raising(RuntimeError("a reason\nand more"))},
        "absent": raising(MissingError("needs a GPU")),
    }
    return in_turns(implementations, 4, "cpu")


def test_what_raises_or_is_missing_is_a_row_and_the_others_go_on(timings):
    found = {timing.name: (timing.status, timing.error, timing.missing, len(timing.milliseconds)) for timing in timings}
    assert found == {
        "good": ("ok", "", False, 4),
        "large": ("oom", "no room", False, 0),
        "wrong": ("failed", "a reason", False, 0),
        "absent": ("failed", "needs a GPU", True, 0),
    }


def test_the_table_names_what_is_missing(timings, capsys):
    print_table("a title", timings, "good", "of the matmul rate", {"forward": 1.0})
    printed = capsys.readouterr().out
    assert "| absent | all | missing: needs a GPU |" in printed
    assert "| large | forward | out of memory: no room |" in printed
    assert "| wrong | forward | failed: a reason |" in printed


def test_measurements_are_kept_with_their_environment(timings, tmp_path):
    save([(Case("attention", "a size"), timings)], {MATMUL_RATE: 1e9, COPY_RATE: 2e9}, tmp_path)
    records = {record.cell.arm: record for record in load_results(tmp_path).records}
    good, missing = records["good"], records["absent"]
    assert (good.phase, good.model, good.task) == ("throughput", "a size", "forward")
    assert [m.value for m in good.measurements if m.metric.name == "latency"] == timings[0].milliseconds
    assert good.last("matmul_rate") == 1e9
    assert good.environment.versions["torch"] == torch.__version__
    assert missing.notes == {"missing": "needs a GPU"}
    assert missing.status == "failed"
    assert missing.last("latency") is None


def test_every_attention_implementation_of_a_gpu_is_tried_here_too(monkeypatch):
    """On a CPU, where the kernels are interpreted and some peers are refused in words."""
    monkeypatch.setattr(side_by_side, "WARM_UP", 0)
    setting = attention.Setting(1, 2, 9, 16, True)
    timings = in_turns(attention.implementations(attention.Problem(setting, "cpu"), gpu=True), 1, "cpu")
    status = {timing.name: timing.status for timing in timings}
    ours = {"triton", "triton, bias", "triton, bias, deterministic"}
    assert {name for name in status if status[name] == "ok"} >= ours | {"eager table, bias", "eager full MLP, bias"}
    assert len(attention.ratios(setting, timings)) >= 5


def test_the_cpus_attention_is_timed_as_a_training_step_with_a_bias(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(attention, "CPU_SETTINGS", (((1, 2, 8, 8), True),))
    monkeypatch.setattr(sys, "argv", ["attention", "--rounds", "2", "--out", str(tmp_path)])
    attention.main()
    assert "| eager | forward + backward |" in capsys.readouterr().out
    assert {record.status for record in load_results(tmp_path).records} == {"ok"}


def test_the_gpus_work_of_the_positional_mlp_is_tried_here_too(monkeypatch):
    monkeypatch.setattr(positional_mlp, "GPU_SIZE", positional_mlp.Size(2, 9, "fourier", 2, (8,), 3))
    monkeypatch.setattr(positional_mlp, "GPU_BATCH", 2)
    monkeypatch.setattr(positional_mlp, "GPU_LENGTH", 8)
    monkeypatch.setattr(positional_mlp, "GPU_WIDTH", 64)
    monkeypatch.setattr(side_by_side, "WARM_UP", 0)
    found = {}
    for title, _, implementations, _ in positional_mlp.gpu_work({COPY_RATE: 1e9}, "cpu"):
        implementations.pop("compile", None)  # seconds of compilation
        for timing in in_turns(implementations, 1, "cpu"):
            found[title, timing.name] = timing.status, timing.error
    refused = {name for (_, name), (status, _) in found.items() if status != "ok"}
    assert refused == {"triton", "triton with add_to", "bmm as a CUDA graph"}, found


def test_the_benchmarks_need_no_more_than_torch_and_pyarrow():
    """A machine that is lent by the hour need not install what studies need."""
    names = ("mlflow", "optuna", "pydantic", "sklearn", "scipy", "plotly", "matplotlib", "tyro", "rich", "pooch")
    block = f"import sys; sys.modules.update(dict.fromkeys({names}))"
    code = f"{block}; import trans4init.bench.attention, trans4init.bench.positional_mlp"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_warm_up_rounds_do_not_count():
    calls = []
    in_turns({"one": lambda: {"forward": lambda: calls.append(1)}}, 2, "cpu")
    assert len(calls) == 2 + side_by_side.WARM_UP
