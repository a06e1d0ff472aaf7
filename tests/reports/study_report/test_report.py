"""The report: rendered from Parquet alone, self-contained, honest about what is missing."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from trans4init.ablations.slots.arms import get_arm
from trans4init.reports.records import metrics, schema, tables
from trans4init.reports.records.schema import CellKey, Measurement
from trans4init.reports.records.store import load_results, path_of, write_bundle, write_card, write_run
from trans4init.reports.study_report.figures import loss_curves
from trans4init.reports.study_report.report import NoResultsError, write_report
from trans4init.reports.study_report.report_files import digest, is_current
from trans4init.reports.study_report.summary import summarise

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")


class Page(HTMLParser):
    """Collects the words of a page and the addresses that it would ask for."""

    def __init__(self, text):
        super().__init__()
        self.asked, self.words, self._skip = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._skip += tag in ("script", "style")
        self.asked += [value for name, value in attrs if name in ("src", "href", "action") and value]

    def handle_endtag(self, tag):
        self._skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._skip:
            self.words.append(data)

    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def study(tmp_path, make_record):
    """A study's folder with results: ten seeds of two cells, their speed, and one run that diverged."""
    for cell in (ANALYTIC, FROZEN):
        for seed in range(10):
            write_run(make_record(cell=cell, seed=seed, value=2 + seed / 100), tmp_path / "results")
        rows = [Measurement(metrics.TRAINING_THROUGHPUT, 1000.0 + step, step) for step in range(4)]
        rows += [Measurement(metrics.FORWARD_THROUGHPUT, 3000.0 + step, step) for step in range(4)]
        write_run(
            make_record(cell=cell, phase="throughput", run_id=f"t-{cell.arm}", measurements=tuple(rows)),
            tmp_path / "results",
        )
    return tmp_path


def page(report):
    return Page(report.html.read_text(encoding="utf-8"))


def test_the_page_says_what_was_found(study):
    text = page(write_report(study)).text()
    for words in (
        "Is it?",
        "Against analytic sinusoidal, over 10 paired seeds: learned-frozen · fourier-mlp is equivalent",
        "Accuracy against throughput",
        "Loss over training",
        "trans4init run s",
        "a processor, 2 cores",
        "commit abc",
        "None of 22.",
    ):
        assert words in text, words


def test_the_page_asks_nothing_of_any_network(study):
    report = write_report(study)
    assert page(report).asked == []
    style = re.search(r"<style>(.*?)</style>", report.html.read_text(encoding="utf-8"), re.DOTALL)
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_markdown_and_drawing_say_the_same(study):
    report = write_report(study)
    markdown = report.markdown.read_text(encoding="utf-8")
    assert report.text.verdict in markdown
    assert "![Paired differences and training speed](report.svg)" in markdown
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)]
    assert len(tables) == 2
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    xml.etree.ElementTree.parse(report.drawing)


def test_the_same_results_give_the_same_bytes(study):
    first = [path.read_bytes() for path in write_report(study).files()]
    assert [path.read_bytes() for path in write_report(study).files()] == first


def test_names_with_marks_of_markdown_of_formulas_and_of_html_are_shown_as_they_are(tmp_path, make_record, card):
    odd = CellKey("sinusoidal", "a_b|*c*$d$<b>e</b>", "$x$")
    card = dataclasses.replace(card, cells=(ANALYTIC, odd), question="Is [it](so)?")
    for cell in card.cells:
        for seed in range(10):
            record = make_record(cell=cell, seed=seed, run_id=f"{cell == odd}-{seed}", value=2 + seed / 100, card=card)
            write_run(record, tmp_path / "results")
    report = write_report(tmp_path)
    markdown = report.markdown.read_text()
    assert r"a\_b\|\*c\*$d$\<b>e\</b> · $x$" in markdown
    assert r"Is [it]\(so)?" in markdown
    [row] = [line for line in markdown.splitlines() if line.startswith(r"| a\_b") and "10/10" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert str(odd) in page(report).text()
    [name] = [
        trace.name
        for trace in loss_curves(summarise(load_results(tmp_path / "results").records)).data
        if trace.name and "x" in trace.name
    ]
    assert name == "a_b|*c*$d$&lt;b&gt;e&lt;/b&gt; · $x$"


def test_failures_are_shown_with_their_reason(study, make_record):
    lost = make_record(cell=FROZEN, seed=3, value=None, status="diverged", error="the training loss is nan at step 20")
    write_run(lost, study / "results")
    crashed = make_record(
        cell=FROZEN, seed=4, value=None, status="failed", error="Traceback\n  line\nValueError: <b>no</b>"
    )
    write_run(crashed, study / "results")
    text = page(write_report(study)).text()
    assert "seed 3 diverged the training loss is nan at step 20" in text
    assert "ValueError: <b>no</b>" in text  # escaped in the page, so it reads as it was written
    assert "2 of 10 runs ended without a value" in text


def test_a_torn_result_is_named_and_the_rest_is_reported(study):
    torn = path_of(study / "results", "evaluate-sinusoidal").parent.glob("evaluate-*-3.parquet")
    torn = sorted(torn)[0]
    torn.write_bytes(torn.read_bytes()[:50])
    text = page(write_report(study)).text()
    assert f"{torn.name}.corrupt" in text
    assert "9/10" in text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(NoResultsError, match="no results to report on"):
        write_report(tmp_path)


def test_a_report_needs_no_torch(study):
    """On a machine without torch, triton, optuna and mlflow the report is rendered all the same."""
    script = textwrap.dedent(
        """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("torch", "triton", "optuna", "mlflow"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
        from trans4init.ablations.cli import main
        main(["report", sys.argv[1]])
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(study)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is equivalent" in done.stdout


def test_publishing_bundles_the_results_and_reports_on_them(study, tmp_path_factory, capsys):
    from trans4init.ablations.cli import main

    out = tmp_path_factory.mktemp("published")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(study), "--publish", str(out)])
    assert ended.value.code == 0
    assert sorted(path.name for path in (out / "results").iterdir()) == ["runs-0.parquet", "study.parquet"]
    report = write_report(study)
    assert (out / "report.md").read_bytes() == report.markdown.read_bytes()
    assert capsys.readouterr().out.splitlines()[:2] == [*report.text.lines(), ""]


def test_a_report_is_current_while_the_card_and_the_runs_are_those_that_it_was_made_from(study, make_record, card):
    """Whatever the clock says: the report is newer than all that is written after it."""

    def current():
        return is_current(study, load_results(study / "results"))

    assert not current()
    report = write_report(study)
    for path in report.files():
        os.utime(path, (2**33, 2**33))
    assert current()
    write_card(dataclasses.replace(card, seeds=9), study / "results")
    assert not current()
    write_report(study)
    write_run(make_record(seed=9, value=7.0), study / "results")
    assert not current()
    write_report(study)
    assert current()
    report.drawing.unlink()
    assert not current()


def test_the_same_runs_have_the_same_digest_in_one_file_or_in_many(study, tmp_path_factory, card):
    out = tmp_path_factory.mktemp("bundled")
    single = load_results(study / "results")
    write_bundle(single.records, out)
    write_card(card, out)
    reversed_ = dataclasses.replace(single, records=single.records[::-1])
    assert digest(load_results(out)) == digest(single) == digest(reversed_)


def test_a_partial_study_reports_what_there_is(tmp_path, make_record):
    write_run(make_record(), tmp_path / "results")
    text = page(write_report(tmp_path)).text()
    assert "has no result yet" in text
    assert "0/10" in text


def test_single_fits_have_a_report_too(tmp_path, make_record):
    rows = (Measurement(metrics.over_region("max_error", "0..7"), 0.5), Measurement(metrics.NET_PARAMETERS, 4.0))
    rows += (Measurement(metrics.NET_FLOPS, 8.0),)
    record = make_record(phase="fit", measurements=rows, notes={"fitted_on": "0..7"})
    write_run(dataclasses.replace(record, card=None), tmp_path / "results")
    report = write_report(tmp_path)
    assert "Fidelity of the fitted nets" in page(report).text()
    assert report.drawing is None


def test_results_whose_card_describes_no_arms_are_shown_without_words_or_colours(study):
    """As they were written before cards described arms."""
    [folder] = study.glob("results")
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        fields = json.loads(metadata["study_card"])
        assert fields.pop("arms")
        del metadata["digest"]
        metadata["study_card"] = json.dumps(fields)
        pq.write_table(table.replace_schema_metadata(metadata | {"digest": tables._digest(table, metadata)}), path)
    report = write_report(study)
    page, drawing = report.html.read_text(), report.drawing.read_text()
    neutral, frozen = schema.ArmDescription("any").colour, get_arm("learned-frozen").description()
    assert neutral in page
    assert neutral in drawing
    assert not any(word in page for word in (frozen.colour, frozen.holds))
    assert "learned-frozen · fourier-mlp is" in report.text.verdict


def test_results_whose_card_gives_arms_no_roles_are_reported_as_before(study):
    """As they were written before arms had roles."""
    before = write_report(study).text
    for path in (study / "results").glob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        fields = json.loads(metadata["study_card"])
        for arm in fields["arms"]:
            del arm["role"], arm["cost_rank"]
        del metadata["digest"]
        metadata |= {"study_card": json.dumps(fields), "schema_version": "4"}
        pq.write_table(table.replace_schema_metadata(metadata | {"digest": tables._digest(table, metadata)}), path)
    results = load_results(study / "results")
    assert results.corrupt == ()
    assert {arm.role for arm in results.card.arms} == {None}
    assert write_report(study).text == before
