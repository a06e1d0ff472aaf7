"""Grids in reports: each block by itself, words corrected over all of them, one page."""

import dataclasses
import html
import re

import pytest

from trans4init.reports.records.schema import CellKey, DroppedBlock
from trans4init.reports.records.store import load_results, write_bundle, write_cards, write_run
from trans4init.reports.records.tables import cards_from_table, cards_table
from trans4init.reports.study_report.blocks import study_text, summaries
from trans4init.reports.study_report.report import write_report
from trans4init.reports.study_report.report_files import digest, is_current

ANALYTIC = CellKey("sinusoidal", "analytic")
FROZEN = CellKey("sinusoidal", "learned-frozen", "fourier-mlp")
SEEDS = 6
"""The fewest with which one comparison gets a word: p = 2 / 64 is below 5 %, and two comparisons need one more."""


@pytest.fixture
def block(card, make_record):
    """Makes the card and the runs of a block whose cell differs from its reference by `shift`."""

    def make(label, shift, **changes):
        own = dataclasses.replace(card, spec_hash=f"hash of {label}", block=label, seeds=SEEDS, **changes)
        runs = [
            make_record(
                run_id=f"{label}-{place}-{seed}",
                spec_hash=own.spec_hash,
                card=own,
                cell=cell,
                seed=seed,
                value=2.0 + 0.01 * seed + place * (shift + 0.001 * seed),
            )
            for seed in range(SEEDS)
            for place, cell in enumerate((ANALYTIC, FROZEN))
        ]
        return own, runs

    return make


def stored(folder, blocks):
    for _, runs in blocks:
        for run in runs:
            write_run(run, folder / "results")
    write_cards([card for card, _ in blocks], folder / "results")
    return load_results(folder / "results")


def pages(report):
    return [html.unescape(path.read_text()) for path in (report.html, report.markdown)]


def words(results):
    return [summary.cells[1].comparison.verdict for summary in summaries(results)]


def test_a_word_is_corrected_over_the_comparisons_of_all_blocks(block, tmp_path):
    alone = stored(tmp_path / "alone", [block("", 0.25)])
    assert words(alone) == ["worse"]
    grid = stored(tmp_path / "grid", [block("a", 0.25, together=2), block("b", 0.5, together=2)])
    assert words(grid) == ["no verdict", "no verdict"]
    [first, _] = summaries(grid)
    assert "a verdict on 2 comparisons needs at least 7 pairs" in first.cells[1].comparison.reason
    apart = stored(tmp_path / "apart", [block("a", 0.25), block("b", 0.5)])
    assert words(apart) == ["worse", "worse"]


def test_the_number_of_words_is_the_studys_own_unless_its_grid_has_more(card):
    assert (card.words(), card.own_words()) == (1, 1)
    of_grid = dataclasses.replace(card, together=12)
    assert (of_grid.words(), of_grid.own_words()) == (12, 1)


def test_each_block_is_summed_up_from_its_own_runs(block, tmp_path):
    results = stored(tmp_path, [block("a", 0.25, together=2), block("b", -0.5, together=2)])
    means = [summary.cells[1].comparison.mean for summary in summaries(results)]
    assert means == pytest.approx([0.2525, -0.4975])
    assert [summary.runs for summary in summaries(results)] == [12, 12]
    assert [note for summary in summaries(results) for note in summary.notes if "different conditions" in note] == []


def test_the_page_has_every_block_under_one_table_and_says_how_words_are_corrected(block, tmp_path):
    results = stored(tmp_path, [block("gelu · text", 0.25, together=2), block("silu · text", -0.5, together=2)])
    report = write_report(tmp_path)
    said = "Words are corrected over all 2 comparisons of the grid's 2 blocks: cells × metrics with a margin, in every"
    lines = report.text.lines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["gelu · text", "silu · text"]
    assert lines[2].startswith(said)
    for page in pages(report):
        assert said in page
        assert page.count("Fidelity") == 0
    rows = [line for line in report.markdown.read_text().splitlines() if line.startswith(("| gelu", "| silu"))]
    assert [[*row.split(" | ")[:2], row.split(" | ")[3].split()[0]] for row in rows] == [
        ["| gelu · text", "learned-frozen · fourier-mlp", "+0.2525"],
        ["| silu · text", "learned-frozen · fourier-mlp", "−0.4975"],
    ]
    page = pages(report)[0]
    assert re.findall(r'<h2 id="block-(\d)">([^<]*)</h2>', page) == [("1", "gelu · text"), ("2", "silu · text")]
    ids = re.findall(r'<div id="([^"]*)"', page)
    assert len(set(ids)) == len(ids) == 2  # a curve of the loss for each block
    for label in ("gelu · text", "silu · text"):
        assert f"<!-- {label} -->" in report.drawing.read_text()
    assert is_current(tmp_path, results)
    assert study_text(summaries(results), results.cards) == report.text


def test_the_cards_of_all_blocks_are_kept_and_belong_to_the_digest(block, tmp_path):
    blocks = [block("a", 0.25, together=2), block("b", 0.5, together=2)]
    results = stored(tmp_path, blocks)
    assert results.cards == results.stored_cards == tuple(card for card, _ in blocks)
    assert results.card == blocks[0][0]
    assert cards_from_table(cards_table([blocks[0][0]])) == (blocks[0][0],)
    write_cards([blocks[0][0], dataclasses.replace(blocks[1][0], margin=0.5)], tmp_path / "results")
    assert digest(load_results(tmp_path / "results")) != digest(results)


def test_results_without_cards_beside_them_have_those_of_their_runs(block, tmp_path):
    blocks = [block("a", 0.25, together=2), block("b", 0.5, together=2)]
    write_bundle([run for _, runs in blocks for run in runs], tmp_path / "results")
    assert load_results(tmp_path / "results").cards == tuple(card for card, _ in blocks)


def test_a_study_that_is_no_grid_is_written_and_hashed_as_before(block, tmp_path):
    card, runs = block("", 0.25)
    metadata = cards_table([card]).schema.metadata
    assert metadata[b"schema_version"] == b"5"
    assert not {b"block", b"together", b"dropped"} & set(re.findall(rb"\w+", metadata[b"study_card"]))
    of_grid = cards_table([dataclasses.replace(card, block="a")]).schema.metadata
    assert of_grid[b"schema_version"] == b"6"
    results = stored(tmp_path, [(card, runs)])
    assert summaries(results)[0].card == card
    assert study_text(summaries(results), results.cards).blocks == ()


def test_a_block_that_was_dropped_counts_in_the_correction_and_nowhere_else(block, tmp_path):
    gone, runs = block("b", 0.5, together=2)
    dropped = (DroppedBlock(gone.spec_hash, "b", 1),)
    left = block("a", 0.25, together=2, dropped=dropped)
    for run in runs:
        write_run(run, tmp_path / "results")
    results = stored(tmp_path, [left])
    assert words(results) == ["no verdict"]
    assert [summary.runs for summary in summaries(results)] == [12]
    report = write_report(tmp_path)
    assert "the grid's 2 blocks, b included, dropped since" in report.text.lines()[-1]
    for page in pages(report):
        assert "12 runs of blocks that the study's file doesn't have any more count for nothing here." in page
        assert "Words are corrected over all 2 comparisons" in page


def test_a_block_without_runs_is_said_to_have_none_and_counts_among_the_blocks(block, tmp_path):
    results = stored(tmp_path, [block("a", 0.25, together=3), block("b", 0.5, together=3)])
    waiting, _ = block("c", 0.0, together=3)
    write_cards([*results.cards, waiting], tmp_path / "results")
    report = write_report(tmp_path)
    for page in pages(report):
        assert "Nothing of these blocks has been run yet: c." in page
        assert "all 3 comparisons of the grid's 3 blocks" in page
    assert [line.partition(":")[0] for line in report.text.lines()[:-1]] == ["a", "b"]
