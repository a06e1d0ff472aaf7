"""The suite of studies accepts runs and fits made together only if they equal single ones."""

import dataclasses

import pytest
import torch

from trans4init.bench.measuring.worker import load_suite
from trans4init.bench.suite import suite_files


@pytest.fixture(scope="module")
def suite():
    return load_suite(suite_files()["studies"])


def made(suite, operator):
    """Return the inputs of the operator's first case, and the result of trial arrays on them."""
    case = next(case for case in suite.cases(quick=False) if case.operator == operator)
    inputs = suite.inputs(case)
    [array] = [way for way in suite.implementations(case) if way.name == "trial arrays"]
    return inputs, array.prepare(inputs)()


def test_runs_together_are_right_and_others_are_not(suite):
    inputs, losses = made(suite, "training runs")
    assert suite.check(inputs, "trial arrays", losses) == ""
    assert "differs from single runs" in suite.check(inputs, "trial arrays", losses.flip(0))
    standing = torch.cat([losses[:, :1], losses[:, :-1]], dim=1)
    assert "differs from single runs" in suite.check(inputs, "trial arrays", standing)
    assert "values, not" in suite.check(inputs, "trial arrays", losses[:3])


def test_fits_together_are_right_and_others_are_not(suite):
    inputs, fits = made(suite, "fits")
    assert suite.check(inputs, "trial arrays", fits) == ""
    assert "differs from single runs" in suite.check(inputs, "trial arrays", fits[::-1])
    assert "values, not" in suite.check(inputs, "trial arrays", fits[:-1])


def test_a_study_that_failed_or_lacks_runs_is_seen(suite, tmp_path):
    case = next(case for case in suite.cases(quick=True) if case.operator == "a study")
    inputs = suite.inputs(case)
    done = dataclasses.make_dataclass("Done", ["returncode", "stdout", "stderr"])
    (tmp_path / "results").mkdir()
    for number in range(inputs.runs):
        (tmp_path / "results" / f"evaluate-{number}.parquet").touch()
    assert suite.check(inputs, "one at a time", (done(0, "", ""), tmp_path)) == ""
    assert "exit code 1" in suite.check(inputs, "one at a time", (done(1, "", "no"), tmp_path))
    (tmp_path / "results" / "evaluate-0.parquet").unlink()
    assert f"{inputs.runs - 1} of {inputs.runs} runs" in suite.check(
        inputs, "one at a time", (done(0, "", ""), tmp_path)
    )
