"""`trans4init reproduce RUN_ID`: a run is made again from its record alone, and every difference is found."""

import dataclasses

import pytest

from trans4init.reports.records.schema import Measurement
from trans4init.reports.records.store import load_results, write_run


def run_of(folder, phase, arm):
    records = load_results(folder / "runs" / "tiny" / "results").records
    return next(record for record in records if (record.phase, record.cell.arm) == (phase, arm))


@pytest.mark.parametrize(
    ("phase", "arm"),
    [("fit", ""), ("tune", "learned-fine-tuned"), ("evaluate", "learned-frozen"), ("evaluate", "analytic")],
)
def test_a_run_is_the_same_bit_by_bit(study_copy, run_command, phase, arm):
    (study_copy / "tiny.toml").unlink()  # the record alone says what to do
    record = run_of(study_copy, phase, arm)
    code, output = run_command("reproduce", record.run_id, "--data", "text.txt")
    assert code == 0, output
    assert f"{phase} " in output.splitlines()[0]
    assert output.splitlines()[-1].endswith("numbers are the same, bit by bit.")


def test_numbers_that_differ_are_shown(study_copy, run_command):
    record = run_of(study_copy, "evaluate", "analytic")
    for factor, code_then, said in ((1 + 1e-6, 0, "the same within rounding."), (1.01, 1, "not the same.")):
        changed = tuple(
            Measurement(m.metric, m.value * factor if m.metric.name == "validation_loss" else m.value, m.step)
            for m in record.measurements
        )
        write_run(dataclasses.replace(record, measurements=changed), study_copy / "runs" / "tiny" / "results")
        code, output = run_command("reproduce", record.run_id, "--data", "text.txt")
        assert code == code_then, output
        assert output.splitlines()[-1].endswith(said)
        assert "validation_loss" in output


def test_a_run_that_failed_and_now_goes_through_differs(study_copy, run_command):
    record = run_of(study_copy, "evaluate", "analytic")
    failed = dataclasses.replace(record, status="failed", error="Traceback\nOSError: the disk", notes={})
    write_run(failed, study_copy / "runs" / "tiny" / "results")
    code, output = run_command("reproduce", record.run_id, "--data", "text.txt")
    assert code == 1
    assert "It was failed, and is now ok: it went through" in output


def test_what_can_not_be_reproduced_is_one_sentence(study_copy, run_command):
    throughput = run_of(study_copy, "throughput", "analytic").run_id
    evaluate = run_of(study_copy, "evaluate", "analytic").run_id
    for words, said in (
        (("evaluate-nowhere",), "no run is called 'evaluate-nowhere' in runs/tiny."),
        ((throughput,), "a speed is measured, beside those it is compared with"),
        ((evaluate, "--data", "tiny.toml"), "aren't those that"),
        ((evaluate, "--study", "runs/other"), "no run is called"),
    ):
        code, output = run_command("reproduce", *words)
        assert code == 2, output
        assert said in output
