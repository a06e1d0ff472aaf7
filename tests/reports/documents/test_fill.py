"""The documents' figures: made of published results by what their marks ask for."""

import shutil

import pytest

from trans4init.reports.documents.fill import MarkError, filled, main
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import write_together
from trans4init.reports.speed.speeds import BASELINE_NOTE, MISSING_NOTE, STUDY

WORDS = "Before\n<!-- speed suite=doubling{options} -->\nold 12.5 ms\n<!-- /speed -->\nafter 3\n"


@pytest.fixture
def project(make_record, tmp_path):
    """A published benchmark of two operators."""

    def make(operator, implementation, *times, missing=""):
        found = [Measurement(metrics.LATENCY, time, step) for step, time in enumerate(times)]
        found += [Measurement(metrics.CONTENDED, float(step == 1), step) for step in range(len(times))]
        more = ((metrics.LEAST_FLOP, 1e9), (metrics.MATMUL_RATE, 1e12), (metrics.PEAK_MEMORY, 3 * 2**20))
        found += [Measurement(metric, value) for metric, value in (*more, (metrics.TOKENS_PER_CALL, 100.0))]
        return make_record(
            run_id=f"bench-{operator}-{implementation}",
            study=STUDY,
            spec_hash="once",
            cell=CellKey(operator, implementation),
            task="doubling",
            model="L=8",
            phase="throughput",
            status="failed" if missing else "ok",
            error=missing,
            card=None,
            measurements=tuple(found) if times else (Measurement(metrics.LATENCY, None),),
            notes={BASELINE_NOTE: "slow"} | ({MISSING_NOTE: missing} if missing else {}),
        )

    records = [
        make("twice", "slow", *[8.0] * 6),
        make("twice", "quick", *[4.0] * 6),
        make("twice", "absent", missing="needs a GPU"),
        make("thrice", "slow", 2000.0, 2000.0, 2000.0),
    ]
    write_together(records, tmp_path / "bench" / "results" / "a-machine" / "bench" / "results" / "runs-0.parquet")
    return tmp_path


def made(project, options=""):
    """The lines between the marks."""
    text = filled(WORDS.format(options=options), project)
    begin, end = "-->\n", "\n<!-- /speed"
    assert text.startswith("Before\n<!-- speed")
    assert text.endswith("<!-- /speed -->\nafter 3\n")
    return text.split(begin, 1)[1].split(end)[0].splitlines()


def test_a_table_has_what_has_a_time_and_says_where_it_is_from(project):
    assert made(project) == [
        "|  | slow | quick | at least |",
        "| --- | ---: | ---: | ---: |",
        "| twice L=8 | 8 | 4 | 1 |",
        "| thrice L=8 | 2,000 | – | 1 |",
        "",
        "Milliseconds, medians; a processor, 2 cores; commit abc, 2026-01-02; 2 of 9 rounds contended. "
        "**More than 20% of the rounds were contended: these numbers are to be measured again.**",
    ]
    one_of_six = made(project, ' operators="twice"')[-1]
    assert one_of_six.endswith("; 1 of 6 rounds contended.")
    assert made(project, " show=MiB")[-1].endswith(
        "; 2 of 9 rounds contended."
    )  # other processes take no memory of ours


def test_filling_names_the_published_suites_that_are_to_be_measured_again(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "a.md").write_text(WORDS.format(options=""))
    main(["a.md"])
    assert capsys.readouterr().out.splitlines() == [
        "filled again: a.md",
        "to be measured again: suite doubling on a processor, 2 cores, 2 of 9 rounds contended, "
        "and a published table may have 20%",
    ]


def test_a_suite_with_too_many_contended_rounds_is_not_published(project, tmp_path):
    """Of nine rounds two are contended."""
    from trans4init.ablations.cli.report import Report
    from trans4init.ablations.errors import InputError

    measured = project / "bench" / "results" / "a-machine" / "bench"
    with pytest.raises(
        InputError, match=r"suite doubling has 2 of 9 rounds contended, and a published one may have 20%"
    ):
        Report(measured, tmp_path / "published").run("")
    assert not (tmp_path / "published").exists()
    assert Report(measured).run("") == 0
    page = (measured / "bench.html").read_text(encoding="utf-8")
    assert "2 of 9 rounds contended." in page
    assert "More than 20 % of the rounds were contended" in page


def test_a_mark_chooses_operators_columns_and_what_is_shown(project):
    chosen = ' operators="twice" columns="quick; slow" show='
    assert made(project, chosen + "work")[2] == "| L=8 | 25,000 tokens/s | 12,500 tokens/s |"
    assert made(project, chosen + "MiB")[2] == "| L=8 | 3.0 | 3.0 |"
    assert made(project, chosen + "ratio")[:3] == ["| twice | quick |", "| --- | ---: |", "| L=8 | 2.00 [2.00, 2.00] |"]


def test_filling_again_changes_nothing(project):
    once = filled(WORDS.format(options=""), project)
    assert filled(once, project) == once


def test_verdict_and_duration_are_those_of_the_published_records(project, make_record):
    """A study is published by its Parquet files alone: no report lies beside them."""
    frozen = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
    records = [
        make_record(
            cell=cell,
            seed=seed,
            measurements=(
                Measurement(metrics.VALIDATION_LOSS, 2 + shift + seed / 1000, 2),
                Measurement(metrics.WALL_TIME, 60.0),
            ),
        )
        for cell, shift in ((CellKey("sinusoidal", "analytic"), 0.0), (frozen, 0.3))
        for seed in range(7)
    ]
    write_together(records, project / "reports" / "published" / "a-machine" / "s" / "results" / "runs-0.parquet")
    text = filled(
        "<!-- verdict study=s -->\n<!-- /verdict -->\n<!-- duration study=s -->\n<!-- /duration -->\n", project
    )
    assert text.splitlines() == [
        "<!-- verdict study=s -->",
        "> Against analytic sinusoidal, over 7 paired seeds: learned-frozen · fourier-mlp is worse "
        "(validation loss +0.3000 [+0.3000, +0.3000]).",
        "<!-- /verdict -->",
        "<!-- duration study=s -->",
        "It took 1 min 6 s on 2 cores (a processor).",
        "<!-- /duration -->",
    ]


def test_what_is_not_published_is_said_with_the_command_that_measures_it(project):
    text = filled("<!-- speed suite=decoding -->\n<!-- /speed -->\n", project)
    assert "Not measured yet; `trans4init bench --suite decoding` does." in text


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("speed suite=doubling show=hours", "show= (ms, ratio, MiB, work)"),
        ("speed suite=doubling rows=all", "a speed mark has suite="),
        ("speed suite=doubling columns=absent", "has no measurement that fits"),
        ("verdict study=nothing", "no study 'nothing' is published"),
    ],
)
def test_a_mark_that_is_wrong_is_named(project, mark, said):
    kind = mark.split()[0]
    with pytest.raises(MarkError) as error:
        filled(f"<!-- {mark} -->\n<!-- /{kind} -->\n", project)
    assert said in str(error.value)


def test_publishing_again_replaces_the_suites_that_were_measured_again(project, tmp_path, make_record):
    from trans4init.ablations.cli.report import Report
    from trans4init.reports.records.store import load_results

    published = project / "bench" / "results" / "a-machine" / "bench"
    [record, *_] = load_results(published / "results").records
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    import dataclasses
    from datetime import timedelta

    for task, later in (("doubling", 1), ("halving", 2)):
        environment = dataclasses.replace(record.environment, git_commit=task)
        again = dataclasses.replace(
            record, run_id=f"bench-{task}", task=task, spec_hash="again", environment=environment,
            created_at=record.created_at + timedelta(hours=later),
        )  # fmt: skip
        write_together([again], tmp_path / "new" / "results" / f"{task}.parquet")
    assert Report(tmp_path / "new", published).run("") == 0
    found = load_results(published / "results").records
    assert {(one.task, one.run_id) for one in found} == {("doubling", "bench-doubling"), ("halving", "bench-halving")}
    assert Report(tmp_path / "new", published).run("") == 0
    assert len(load_results(published / "results").records) == 2
