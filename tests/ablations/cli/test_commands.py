"""The command line as a user meets it: quick to answer, plain about mistakes, whole from study to report."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import tyro

from trans4init.ablations.cli.fit import Fit
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import atlas
from trans4init.reports.records.store import load_results
from trans4init.reports.statistics import visible_factor

SCRIPT = Path(sys.executable).with_name("trans4init")
COMMANDS = (
    "ls",
    "fit",
    "run",
    "report",
    "train",
    "translate",
    "generate",
    "bench",
    "pack",
    "sync",
    "reproduce",
    "ui",
    "doctor",
)


@pytest.mark.alone
def test_help_answers_within_three_tenths_of_a_second():
    """The best of a few: the time of the command, not of a busy machine."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert all(name in done.stdout for name in COMMANDS)
    assert min(times) < 0.3, times


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run_command, name):
    code, output = run_command(name, "--help")
    assert code == 0
    assert f"usage: trans4init {name}" in output
    assert "None}" not in output  # an option that may be left out says what happens then


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run"], "Missing from trans4init run: STR"),
        (["run", "positional-text", "--sedes", "3"], "Unrecognized options: --sedes, 3; did you mean --seeds?"),
        (["run", "positional-text", "--seeds", "three"], "Error parsing --seeds"),
        (["run", "positional-text", "--seeds", "0"], "[evaluation] seeds must be a whole number from 1 to 999, and 0"),
        (["run", "positional-txt"], "unknown study 'positional-txt'; did you mean 'positional-text'?"),
        (["run", "missing.toml"], "there is no study file 'missing.toml'"),
        (["run", "positional-text", "--data", "missing.txt"], "there is no file"),
        (["run", "positional-text", "--executor", "procss"], "unknown executor 'procss'; did you mean 'process'?"),
        (["fit", "sinusodial"], "unknown function 'sinusodial'; did you mean 'sinusoidal'?"),
        (["fit", "i-gelu"], "i-gelu is itself an approximation of gelu and isn't fitted; its errors are measured by"),
        (["fit", "sinusoidal", "--net", "sirne"], "unknown net 'sirne'; did you mean 'siren'?"),
        (["fit", "sinusoidal", "--width", "15"], "sinusoidal needs an even width"),
        (["fit", "sinusoidal", "--positions", "0"], "--positions must be at least 1"),
        (["fit", "gelu", "--positions", "5"], "--positions doesn't apply"),
        (["fit", "gelu", "--width", "4"], "gelu has no width"),
        (["report", "nowhere"], "nowhere has no results to report on"),
        (["sync", "nowhere"], "nowhere has no results: there is no readable"),
        (["ui", "--runs", "nowhere"], "nowhere has no mlflow.db"),
        (["ui", "--port", "99999"], "--port must be from 1 to 65535"),
        (["ls", "arm"], "unknown kind 'arm'; did you mean 'arms'?"),
        (["ls", "everything"], "unknown kind 'everything'; there are: arms, functions, nets, recipes, studies, tasks."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_two(run_command, words, sentence):
    code, output = run_command(*words)
    assert code == 2
    assert sentence in output
    assert output.count("\n") == 1
    assert output.startswith("trans4init: ")


def test_lists_come_from_the_registries(run_command):
    code, output = run_command("ls")
    assert code == 0
    words = [
        "sinusoidal",
        "learned-table",
        "fourier-mlp",
        "siren",
        "learned-fine-tuned",
        "text",
        "positional-text-full",
    ]
    assert all(word in output for word in words)
    code, output = run_command("ls", "nets")
    assert "fourier-mlp" in output
    assert "learned-fine-tuned" not in output


def test_doctor_says_what_is_here(run_command):
    code, output = run_command("doctor")
    assert code == 0
    assert all(word in output for word in ("python", "processor", "torch", "accelerator", "TRANS4INIT_DATA"))
    assert output.count("pip install 'trans4init") == output.count("trans4init[")  # the extra is part of the command


def test_ui_serves_the_runs_and_links_to_each_study(study_copy, command):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = command("ui", "--port", port)
    link = process.stdout.readline().strip()
    while not link.endswith("tiny"):
        link = process.stdout.readline().strip()
    assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/#/experiments/\d+/runs  tiny", link)
    deadline = time.monotonic() + 300  # MLflow starts in ten seconds on a quiet machine, in minutes on a busy one
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
                break
        except OSError:
            time.sleep(0.2)
    else:
        pytest.fail("MLflow did not answer in five minutes")
    other = command("ui", "--port", port)
    said, _ = other.communicate(timeout=300)
    assert (other.returncode, said) == (2, f"trans4init: port {port} is taken; name another with --port.\n")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 0


def test_fit_all_makes_a_page_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    whole = atlas.entries("gelu")
    monkeypatch.setattr(atlas, "entries", lambda only: [entry for entry in whole if entry.net == "spline"][:2])
    assert Fit("gelu", all=True, out=tmp_path).run("") == 0
    assert "2 made, 0 found, 0 diverged" in capsys.readouterr().out
    assert "spline" in (tmp_path / "atlas.html").read_text()
    assert Fit("gelu", all=True, out=tmp_path).run("") == 0
    assert "0 made, 2 found" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"needs a function's name .*, or --all"):
        Fit(out=tmp_path).run("")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"net": "spline", "size": (("interval=4",),)}, "unknown key 'interval'; did you mean 'intervals'"),
        ({"net": "spline", "size": (("intervals",),)}, "--size takes KEY=VALUE, not 'intervals'"),
        ({"net": "spline", "size": (("intervals=x",),)}, "intervals must be a whole number from 1 to 2,147,483,647"),
        ({"function": "alibi", "shape": (("head=4",),)}, "function 'alibi' takes heads, and"),
        ({"function": "sinusoidal", "domain": (0, 4)}, "--domain doesn't apply, --positions does"),
        ({"function": "alibi", "shape": (("seed=3",),)}, "function 'alibi' takes heads, and"),
        ({"function": "alibi", "shape": (("heads=abc",),)}, "whole numbers of at least 1, not heads=abc"),
        ({"function": "alibi", "shape": (("heads=2.5",),)}, "whole numbers of at least 1, not heads=2.5"),
        ({"function": "alibi", "shape": (("heads=0",),)}, "whole numbers of at least 1, not heads=0"),
        ({"domain": (4, -4)}, "a domain goes from low to high"),
        ({"net": "mlp-relu", "domain": (math.nan, 4)}, "a domain has finite ends, and nan..4 was given"),
        ({"net": "mlp-relu", "domain": (-math.inf, 4)}, "a domain has finite ends, and -inf..4 was given"),
        ({"density": Path("nowhere.npy")}, "--density nowhere.npy can't be read"),
        ({"density": Path(__file__)}, "holds no numbers"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"seeds": 2, "seconds": 3.0}, "can't be combined with --density or --seconds"),
        ({"all": True, "steps": 5, "target_error": 0.1}, "leave out --steps, --target-error"),
        ({"budget": -1}, "a budget is a number of evaluations, 0 or more"),
        ({"seconds": 0.0}, "a fit takes more than 0 seconds"),
    ],
)
def test_a_mistake_in_a_fit_is_said_by_its_option(tmp_path, options, sentence):
    with pytest.raises(InputError) as caught:
        Fit(**{"function": "gelu", "out": tmp_path} | options).run("")
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_words_of_a_fit_may_be_given_together_and_apart():
    words = ["alibi", "--size", "intervals=8", "--shape", "heads=2", "--size", "degree=1", "--net", "spline"]
    found = tyro.cli(Fit, args=words)
    assert (found._size(), found._shape()) == ({"intervals": 8, "degree": 1}, {"heads": 2})


def test_an_empty_file_of_inputs_holds_no_numbers(tmp_path):
    (tmp_path / "empty.npy").touch()
    with pytest.raises(InputError, match=r"empty\.npy holds no numbers"):
        Fit("gelu", density=tmp_path / "empty.npy", out=tmp_path).run("")


def test_fits_that_differ_in_any_option_are_kept_apart(tmp_path, capsys):
    """And the same one is found in its place again."""
    seen = tmp_path / "seen.txt"
    seen.write_text("\n".join(str(k / 100) for k in range(-100, 100)))
    common = {"function": "gelu", "net": "mlp-gelu", "size": (("hidden=3",),), "steps": 5, "out": tmp_path / "fits"}
    special = [{}, {"budget": 3}, {"density": seen}, {"target_error": 9.0}, {"domain": (-2, 2)}, {"seeds": 3}, {}]
    for options in special:
        assert Fit(**common | options).run("") == 0
    records = load_results(tmp_path / "fits" / "results").records
    assert len(records) == 5 + 2  # seed 0 of three is the first again
    said = capsys.readouterr().out
    assert "observed (fitted)" in said
    assert "derivative" in said
    assert re.search(r"largest error over 3 seeds: \S+ \(seed \d\), median", said)


def test_fit_prints_a_table_and_keeps_checkpoint_and_record(run_command, tmp_path):
    words = ["fit", "sinusoidal", "--net", "siren", "--positions", "16", "--width", "8", "--steps", "50"]
    code, output = run_command(*words, "--hidden", "8", "8")
    assert code == 0
    expected = ("step 14 of 55", "0..15 (fitted)", "16..31", "32..63", "parameters", "µs per call", "s to fit")
    assert all(words in output for words in expected), output
    [record] = load_results(tmp_path / "runs" / "fit" / "results").records
    assert (record.phase, record.cell.function, record.cell.net) == ("fit", "sinusoidal", "siren")
    [checkpoint] = (tmp_path / "runs" / "fit" / "checkpoints").iterdir()
    assert {path.name for path in checkpoint.iterdir()} == {"net.safetensors", "card.json"}
    [figure] = (tmp_path / "runs" / "fit" / "figures").iterdir()
    assert figure.name == f"{record.run_id}.svg"
    assert figure.name in output
    drawn = figure.read_text()
    assert drawn.startswith("<?xml")
    assert all(words in drawn for words in ("siren → sinusoidal, fitted on 0..15", "error of the slope", "position"))
    first = (checkpoint / "net.safetensors").read_bytes()
    run_command(*words, "--hidden", "8", "8")
    assert (checkpoint / "net.safetensors").read_bytes() == first
    code, output = run_command("report", "runs/fit")
    assert code == 0
    assert "report.html" in output


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (2, "4 comparisons are corrected together: a word takes 8 seeds, and 2 are asked for."),
        (
            10,
            "4 comparisons are corrected together: a word takes 8 seeds, and 10 find a difference of "
            f"{visible_factor(10, 4):.1f} standard deviations of a pair's with probability 0.8.",
        ),
    ],
)
def test_a_dry_run_states_the_floor_and_the_power(run_command, tiny_study, seeds, sentence):
    code, output = run_command("run", tiny_study(), "--dry-run", "--seeds", seeds)
    assert code == 0, output
    assert sentence in " ".join(output.split())


def test_a_dry_run_lists_the_cells_and_an_estimate_and_writes_nothing(run_command, tiny_study, tmp_path):
    code, output = run_command("run", tiny_study(), "--dry-run")
    assert code == 0
    assert "learned-fine-tuned" in output
    planned = (
        r"1 fit, 20 runs of 6 steps \(.* ms a step here\), then 5 cells and a second copy of analytic timed in turn; "
        r"2 rounds give speeds no interval, \[throughput\] rounds = 32 do\."
    )
    assert re.search(planned, " ".join(output.split()))
    assert re.search(r"About \d+ s on \d+ process(es)?, \d+ MB of disk, \d+\.\d GB of memory", output)
    assert not (tmp_path / "runs").exists()
