"""Error budgets: the section of a study file, the study that grows by bisection, and one from file to report."""

import dataclasses
import re
import shutil

import pytest
from rich.console import Console

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.run import Options, run_study
from trans4init.reports.machine import capture
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import load_results
from trans4init.reports.study_report.report import write_report

WORDS = ["net", "slot", "arm", "trial", "study", "function", "verdict"] * 150
BUDGET = """
name = "budget"
question = "How far off may it be?"
function = "gelu"
arms = ["analytic", "learned-frozen"]

[error_budget]
pieces = [1, 8, 64]
factor = 2.0

[task]
source = "text.txt"
evaluation_tokens = 64

[model]
layers = 1
width = 8
heads = 2
context = 8

[training]
steps = 12
batch = 4
learning_rate = 1e-2
warmup_steps = 2
log_every = 4
evaluations = 1

[evaluation]
seeds = 8
margin = 0.01

[throughput]
rounds = 2
steps_per_round = 1
"""


@pytest.fixture
def budget_file(tmp_path):
    """Writes the study, with pieces of its text replaced; its file."""

    def write(*changes):
        (tmp_path / "text.txt").write_text(" ".join(WORDS))
        content = BUDGET
        for old, new in changes:
            assert content.count(old) == 1, old
            content = content.replace(old, new)
        (tmp_path / "budget.toml").write_text(content)
        return tmp_path / "budget.toml"

    return write


def test_a_section_makes_a_cell_of_each_size(budget_file):
    spec = load_study(str(budget_file()))
    assert [str(cell) for cell in spec.cells()] == [
        "analytic",
        *(f"learned-frozen · piecewise-linear-{pieces}" for pieces in (1, 8, 64)),
    ]
    net = spec.net("piecewise-linear-8")
    assert (net.name, net.size()) == ("piecewise-linear", {"pieces": 8})


@pytest.mark.parametrize(
    ("pieces", "factor", "steps"),
    [
        ("[1, 8, 64]", 2.0, 3),  # 64 times the error: 8, 2.8, 1.7
        ("[1, 3, 10]", 1.5, 3),  # 11 times: 3.3, 1.8, 1.35
        ("[2, 3]", 1.5, 1),
        ("[2, 3]", 3.0, 0),
    ],
)
def test_bisection_has_as_many_steps_as_it_needs_to_come_within_the_factor(budget_file, pieces, factor, steps):
    path = budget_file(("[1, 8, 64]", pieces), ("factor = 2.0", f"factor = {factor}"))
    study = resolved(path)
    assert study.spec.error_budget.steps() == steps
    assert study.card().error_budget.planned == study.card().words() == pieces.count(",") + 1 + steps


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[1, 8, 64]", "[8, 1]", r"budget.toml: \[error_budget\] pieces: pieces must ascend, not \[8, 1\]"),
        (
            "factor = 2.0",
            "factor = 0.5",
            r"\[error_budget\] factor must be a number of at least 1.05, and 0.5 was given",
        ),
        ("factor = 2.0", "sharpened = [4]", "bisection chooses these sizes; leave the key out"),
        ("factor = 2.0", "steps = 4", "steps"),
        ('"learned-frozen"]', '"learned-fine-tuned"]', "makes the nets of arm 'learned-frozen'"),
        ('"learned-frozen"]', '"learned-frozen", "corrected"]', "no other one with a net"),
        ("[task]", '[[nets]]\nname = "spline"\n[task]', r"no \[\[nets\]\]"),
    ],
)
def test_a_section_that_makes_no_budget_is_refused_by_its_key(budget_file, old, new, message):
    path = budget_file((old, new))
    with pytest.raises(InputError, match=message):
        load_study(str(path))


def test_another_function_makes_a_study_of_its_own(budget_file):
    path = str(budget_file())
    assert load_study(path, function="gelu") == load_study(path)
    silu = load_study(path, function="silu")
    assert (silu.name, silu.function, silu.reference().function) == ("budget-silu", "silu", "silu")


def test_the_command_sets_the_function_and_refuses_one_without_a_budget(budget_file, run_command):
    budget_file()
    code, output = run_command("run", "budget.toml", "--function", "alibi")
    assert code == 2
    assert re.fullmatch(r"trans4init: budget.toml: alibi can't have an error budget: .*tanh\.\n", output)
    code, output = run_command("run", "budget.toml", "--function", "tanh", "--dry-run")
    assert code == 0, output
    assert re.search(r"tanh +learned-frozen +piecewise-linear-64", output)
    assert "Then bisection adds up to 3 cells" in output


def resolved(path):
    return ResolvedStudy(load_study(str(path)), "f", capture(), path.parent / "runs", "again")


def play(agenda, tolerance, calls=10_000):
    """Play the coordinator, with a model that is worse by 1 where the error is above `tolerance`; the runs made."""
    made = []
    while len(made) < calls and (requests := agenda.next([])):
        for request in requests:
            pieces = int(request.cell.net.rpartition("-")[2]) if request.cell.net else None
            if request.phase == "fit":
                rows = [Measurement(metrics.FITTED_ERROR, 0.5 / pieces**2)]
            else:
                worse = pieces is not None and 0.5 / pieces**2 > tolerance
                rows = [Measurement(metrics.VALIDATION_LOSS, request.seed / 7 + worse, 6)]
            notes = {"session": "one"} if request.phase == "throughput" else None
            made.append(agenda.study.record(request, rows, notes=notes))
            agenda.add(made[-1])
    return made


def fits_in(records):
    return [record.run_id for record in records if record.phase == "fit"]


def sharpened(agenda):
    return agenda.study.spec.error_budget.sharpened


@pytest.mark.parametrize(
    ("tolerance", "path"),
    [
        (0.5 / 5**2, (3, 5, 4)),  # between 8 and 1: 3 is refused, 5 tolerated, 4 refused; then 25 / 16 < 2
        (0.5 / 20**2, (23, 14, 18)),  # between 64 and 8
        (1.0, ()),  # all are tolerated
        (0.0, ()),  # none is
    ],
)
def test_the_study_grows_by_the_sizes_that_bisection_tries(budget_file, tolerance, path):
    agenda = Agenda(resolved(budget_file()), [], [])
    made = play(agenda, tolerance)
    assert sharpened(agenda) == path
    assert agenda.complete()
    assert agenda.total() == (3 + len(path)) * (1 + 8) + 8 + 1
    assert len({record.run_id for record in made}) == len(made)
    assert [record.phase for record in made[-(4 + len(path)) :]] == ["throughput"] * (4 + len(path))


def test_a_run_that_is_lost_costs_itself_alone(budget_file):
    study, tolerance = resolved(budget_file()), 0.5 / 5**2
    whole = play(Agenda(study, [], []), tolerance)
    for lost in (0, 5, 34, 37, 60):
        before = whole[:lost] + whole[lost + 1 :]
        again = play(Agenda(study, before, fits_in(before)), tolerance)
        assert [record.run_id for record in again] == [whole[lost].run_id]


@pytest.mark.parametrize("done", [1, 30, 36, 44, 45, 60, 62])
def test_a_study_that_was_stopped_anywhere_goes_on_to_the_same_sizes(budget_file, done):
    study, tolerance = resolved(budget_file()), 0.5 / 5**2
    whole = play(Agenda(study, [], []), tolerance)
    before = whole[:done]
    agenda = Agenda(study, before, fits_in(before))
    after = play(agenda, tolerance)
    assert sharpened(agenda) == (3, 5, 4)
    assert not {record.run_id for record in before} & {record.run_id for record in after}
    assert {record.run_id for record in before + after} == {record.run_id for record in whole}


def test_a_budget_whose_cells_each_have_a_sampler_grows_too(budget_file):
    tuned = """[tuning]
sampler = "random"
trials = 2
seeds_per_trial = 1
[tuning.space]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
"""
    path = budget_file(("[evaluation]", f"{tuned}\n[evaluation]"))
    agenda = Agenda(resolved(path), [], [])
    made = play(agenda, 0.5 / 5**2)
    assert sharpened(agenda) == (3, 5, 4)
    assert agenda.complete()
    again = Agenda(resolved(path), made[:40], fits_in(made[:40]))
    assert {record.run_id for record in made[:40] + play(again, 0.5 / 5**2)} == {record.run_id for record in made}


def test_bisection_is_judged_by_what_was_stated_where_arms_were_dropped_since(budget_file):
    """With 20 more cells, 8 seeds are below the floor: no size gets a word, and none is refused."""
    study = resolved(budget_file())
    card = study.card()
    dropped = tuple(CellKey("gelu", f"dropped-{number}") for number in range(20))
    stated = dataclasses.replace(card.plan(), cells=(*card.cells, *dropped))
    agenda = Agenda(study, [], [], stated)
    play(agenda, 0.5 / 5**2)
    assert (sharpened(agenda), agenda.complete()) == ((), True)


def test_the_bracket_is_not_moved_by_what_came_later(budget_file):
    """Each step is judged by the cells that there were then: the words of the others may change with more cells."""
    study, tolerance = resolved(budget_file()), 0.5 / 5**2
    whole = play(Agenda(study, [], []), tolerance)
    again = Agenda(study, list(reversed(whole)), fits_in(whole))
    assert sharpened(again) == (3, 5, 4)
    assert again.complete()


def test_the_card_of_a_grown_study_says_what_bisection_chose_and_corrects_as_planned(budget_file):
    study = resolved(budget_file())
    grown = study.with_size(3)
    assert grown.spec_hash == study.spec_hash
    design = grown.card().error_budget
    assert design.pieces == tuple((f"piecewise-linear-{pieces}", pieces) for pieces in (1, 3, 8, 64))
    assert design.sharpened == ("piecewise-linear-3",)
    assert grown.card().words() == study.card().words() == 6
    assert "sharpened" not in grown.spec.public()["error_budget"]
    assert dataclasses.replace(grown.card(), stated=study.card().plan()).words() == 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    (folder / "text.txt").write_text(" ".join(WORDS))
    (folder / "budget.toml").write_text(BUDGET)
    run(folder)
    return folder


def run(folder, lines=None):
    path = folder / "budget.toml"
    console = Console(file=lines, width=200)
    code = run_study(load_study(str(path)), Options(str(path), "again", folder / "runs", "inline"), console)
    assert code == 0
    return load_results(folder / "runs" / "results")


def values(results):
    return {
        record.run_id: record.last("validation_loss") for record in results.records if record.phase in ("evaluate",)
    }


def test_a_budget_goes_from_its_file_to_its_report(finished):
    results = load_results(finished / "runs" / "results")
    report = write_report(finished / "runs")
    page, text = report.html.read_text(), report.markdown.read_text()
    assert results.card.error_budget.sharpened[0] == "piecewise-linear-3"  # 12 steps without gelu's curve are told
    assert "ε* = " in report.text.verdict
    assert report.budget_drawing.name == "error_budget.svg"
    assert report.budget_drawing.read_text() in page
    assert "## Error budget" in text
    assert "(error_budget.svg)" in text
    assert "Arms added" not in text
    assert results.card.words() == 6
    assert "scaled" in results.card.controls_left_out  # and it stays so while the study grows
    assert results.card.stated.cells == load_study(str(finished / "budget.toml")).cells()


@pytest.mark.parametrize("lost", ["evaluate-*", "fit-*"])
def test_an_interrupted_budget_ends_as_one_that_was_not(finished, tmp_path, lost):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    whole = values(load_results(tmp_path / "runs" / "results"))
    for path in sorted((tmp_path / "runs" / "results").glob(f"{lost}.parquet"))[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "results").glob("*-*.parquet")}
    again = run(tmp_path)
    assert values(again) == whole
    assert again.card == load_results(finished / "runs" / "results").card
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())
