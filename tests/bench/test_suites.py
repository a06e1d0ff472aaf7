"""The shipped suites are declared whole, see wrong results, and are measured by the command."""

import re
import sys
from pathlib import Path

import pytest
import torch

from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.training.recipe import load_recipe
from trans4init.bench.measuring.worker import load_suite
from trans4init.bench.suite import suite_files
from trans4init.bench.suites.nano_gpt import BATCH, POSITIONS, SIZES
from trans4init.reports.records.store import load_results

ROOT = Path(__file__).resolve().parent.parent.parent
WITHOUT_LOWER_BOUND = {"startup"}
"""Suites of commands, whose operations and bytes aren't counted."""


@pytest.mark.parametrize("name", suite_files())
def test_a_suite_is_declared_whole(name):
    suite = load_suite(suite_files()[name])
    cases = suite.cases(quick=False)
    assert suite.name == name
    assert len({str(case) for case in cases}) == len(cases)
    assert suite.cases(quick=True)
    for case in cases:
        assert bool(case.flop and case.bytes) == (name not in WITHOUT_LOWER_BOUND) or case.operator == "copy"
        names = [implementation.name for implementation in suite.implementations(case)]
        assert suite.baseline not in names[1:]
        assert all(amount is None or amount > 0 for amount in (case.flop, case.bytes, case.tokens))


def test_the_description_names_every_suite():
    described = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "bench" / "README.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(suite_files())


def test_the_command_measures_and_leaves_rows_a_page_and_runs_in_mlflow(run_bench, tmp_path):
    code, output = run_bench("--suite", "machine", "--quick")
    assert code == 0, output
    assert "matmul 1024×1024 float32" in output or "bfloat16" in output
    assert {record.cell.function for record in load_results(tmp_path / "runs/bench/results").records} == {
        "matmul",
        "copy",
    }
    assert (tmp_path / "runs" / "bench" / "bench.html").exists()
    assert (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "atention"], "unknown suite 'atention'; did you mean 'attention'?"),
        (["compre", "a"], "unknown command 'compre'; did you mean 'compare'?"),
        (["--minutes", "nan"], "--minutes nan: must be 0 or more."),
        (["--quik"], "did you mean --quick?"),
        (["estimate", "positional-txt"], "unknown study 'positional-txt'; did you mean 'positional-text'?"),
    ],
)
def test_a_mistake_is_one_sentence(run_bench, words, said):
    code, output = run_bench(*words)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1


def result_of(suite, case, name):
    """Return the inputs of a case, and an implementation's result on them."""
    inputs = suite.inputs(case)
    return inputs, suite._implementations[name].prepare(inputs)()


@pytest.mark.parametrize("name", ["bmm", "loop over nn.Sequential"])
def test_a_wrong_gradient_of_any_net_is_seen(name):
    suite = load_suite(suite_files()["positional-mlp"])
    case = next(case for case in suite.cases(quick=False) if "backward" in case.operator)
    inputs, result = result_of(suite, case, name)
    assert suite.check(inputs, name, result) == ""
    result[-1][-1] *= 1.01
    assert "relative RMS error of db2" in suite.check(inputs, name, result)


def test_a_wrong_gradient_is_seen_where_all_are_too_many():
    suite = load_suite(suite_files()["attention"])
    module = sys.modules[type(suite.inputs(suite.cases(quick=True)[0])).__module__]
    inputs, result = result_of(suite, module._case(module.LONG, 1, 2, 200, 16, True), "eager table, bias")
    assert suite.check(inputs, "triton, bias", result) == ""
    result[1][..., -3, :] *= 1.5
    assert "relative RMS error of dk" in suite.check(inputs, "triton, bias", result)


def test_a_wrong_token_is_seen_whichever_implementation_comes_first():
    suite = load_suite(suite_files()["decoding"])
    inputs, tokens = result_of(suite, suite.cases(quick=True)[0], "cache")
    assert suite.check(inputs, "cache", tokens) == ""
    tokens[2, 5] = (tokens[2, 5] + 1) % 7
    assert "12% of the sequences are wrong" in suite.check(inputs, "cache", tokens)


def test_the_training_loop_is_that_of_the_recipe():
    load_suite(suite_files()["training-loop"])
    module = sys.modules["trans4init_suite_bench_training_loop"]
    sizes = {f"model.{name}": value for name, value in SIZES.items()}
    recipe = load_recipe("text", sizes | {"model.position": POSITIONS, "training.batch": BATCH})
    assert recipe.model == module.MODEL
    assert recipe.task == TextConfig()
    assert recipe.training.model_copy(update={"evaluations": module.TRAINING.evaluations}) == module.TRAINING


@pytest.mark.parametrize(
    ("operator", "arm", "left_out"),
    [
        ("sinusoidal", "analytic", "matrices"),
        ("sinusoidal", "free-table", "slot"),
        ("gelu", "learned-frozen", "vectors"),
        ("gelu", "learned-fine-tuned", "slot"),
        ("gelu", "corrected", "slot"),
        ("softmax-exp", "corrected", "slot"),
    ],
)
def test_a_step_that_leaves_something_out_is_seen(operator, arm, left_out):
    suite = load_suite(suite_files()["training-step"])
    module = sys.modules["trans4init_suite_bench_training_step"]
    [case] = [case for case in suite.cases(quick=False) if case.operator == operator]
    inputs = suite.inputs(case)
    whole, lacking = (module._step(arm, inputs, torch.float32) for _ in range(2))
    [group] = [group for group in lacking.optimiser.param_groups if group["name"] == left_out]
    for parameter in group["params"]:
        parameter.requires_grad_(False)
    complaints = []
    for step in (whole, lacking):
        losses = [step(inputs.batch) for _ in range(2)]
        complaints.append(suite.check(inputs, arm, (losses[-1], 2)))
    assert complaints[0] == ""
    assert "relative error of the loss" in complaints[1]


def test_the_least_bytes_of_attention_are_what_goes_in_and_comes_out():
    suite = load_suite(suite_files()["attention"])
    module = sys.modules[type(suite.inputs(suite.cases(quick=True)[0])).__module__]
    for operator, tensors in ((module.FORWARD, 4), (module.BACKWARD, 7), (module.STEP, 8)):
        assert module._case(operator, 2, 3, 5, 7, False).bytes == tensors * 2 * 3 * 5 * 7 * module._DTYPE.itemsize
