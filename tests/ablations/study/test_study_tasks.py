"""A study can be about any task: its arms are measured by that task's metrics, with the sizes of its data."""

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.trained_runs import run_request
from trans4init.ablations.study.work import check_study, run_fits
from trans4init.reports.machine import capture

REVERSE = 'name = "reverse"\nevaluation_examples = 3\nlongest = 4\ntested_longest = 6'
TASKS = [
    (REVERSE, "encoder-decoder", "generated_exact_match"),
    ('name = "classification"', "encoder", "accuracy"),
    ('name = "modular-addition"\nmodulus = 11', "decoder", "grokking_step"),
]


def changed(task, kind, metric):
    """Changes of the tiny study: another task, the kind of model for it, and the metric of the verdict."""
    return (
        ('source = "text.txt"\nevaluation_tokens = 64', task),
        ("context = 8", f'context = 16\nkind = "{kind}"'),
        ("seeds = 2", f'seeds = 2\nmetric = "{metric}"'),
    )


def checked(path, folder):
    spec = load_study(str(path))
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), folder / "runs", "")
    check_study(study, str(path))
    return study


@pytest.mark.parametrize(("task", "kind", "metric"), TASKS)
def test_the_arms_of_a_study_are_measured_by_its_task(tiny_study, tmp_path, task, kind, metric):
    study = checked(tiny_study(*changed(task, kind, metric)), tmp_path)
    [fitted] = run_fits(study, [study.fit_request("fourier-mlp")], lambda *told: None)
    assert fitted.status == "ok"
    for cell in study.spec.cells()[:2]:
        record = run_request(study, study.evaluate_request(cell, 0, None, {}), lambda *told: None)
        assert record.status == "ok", record.error
        assert record.task == study.spec.task.name
        assert record.last(metric) is not None
        assert record.last("slot_drift_rms") is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (changed(REVERSE, "encoder-decoder", "bleu"), "[evaluation] unknown metric 'bleu'; "),
        (changed(REVERSE, "encoder", "exact_match"), "task reverse needs a model of kind decoder or encoder-decoder"),
        (changed(REVERSE + "\nsymbls = 3", "decoder", "exact_match"), "[task] unknown key 'symbls'; did you mean"),
        (changed(REVERSE.replace("longest = 4", "longest = 40"), "decoder", "exact_match"), "lengths must be in order"),
        (
            changed(REVERSE.replace("= 4", "= 9").replace("= 6", "= 9"), "decoder", "exact_match"),
            "[model] context must be 19 or more",
        ),
    ],
)
def test_a_task_that_does_not_fit_the_study_is_refused_in_a_sentence(tiny_study, tmp_path, changes, sentence):
    path = tiny_study(*changes)
    with pytest.raises(InputError) as caught:
        checked(path, tmp_path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
