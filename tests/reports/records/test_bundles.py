"""Bundles: finished runs in few files, read quickly, and found damaged all the same."""

import dataclasses
import pickle
import subprocess
import sys
import textwrap

import pytest

from trans4init.reports.records import bundles
from trans4init.reports.records.metrics import PERPLEXITY, VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement
from trans4init.reports.records.store import bundle, load_results, path_of, read_runs, set_failures_aside, write_run


@pytest.fixture
def records(make_record):
    """Runs of several phases, of which one failed, with as many rows as their number."""
    made = []
    for number in range(6):
        rows = tuple(Measurement(PERPLEXITY if row % 2 else VALIDATION_LOSS, row / 3, row) for row in range(number + 1))
        made.append(make_record(run_id=f"evaluate-{number}", seed=number, trial=None, measurements=rows))
    made[2] = dataclasses.replace(made[2], trial=7, parameters={"rate": 0.5}, notes={"array": "8"})
    missing = (Measurement(VALIDATION_LOSS, None, 3), Measurement(PERPLEXITY, 1.0, 3))
    made[3] = dataclasses.replace(made[3], status="diverged", error="nan", measurements=missing)
    made[4] = dataclasses.replace(made[4], status="failed", error="why")
    made[5] = dataclasses.replace(made[5], run_id="throughput-5", phase="throughput")
    return made


def by_id(records):
    return {record.run_id: record for record in records}


def test_what_comes_out_is_what_went_in(records, tmp_path):
    for record in records:
        write_run(record, tmp_path)
    bundle(records, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in names if not name.startswith("bundle-")] == ["evaluate-4.parquet", "throughput-5.parquet"]
    found = by_id(load_results(tmp_path).records)
    assert found == by_id(records)
    assert {run_id: record.digest() for run_id, record in found.items()} == {r.run_id: r.digest() for r in records}
    for record in found.values():
        same = by_id(records)[record.run_id]
        for metric in ("validation_loss", "perplexity", "nothing"):
            assert record.last(metric) == same.last(metric)
            assert record.by_step(metric) == same.by_step(metric)
        assert len(record.measurements) == len(same.measurements)
        assert record.measurements[-1] == same.measurements[-1]
        assert pickle.loads(pickle.dumps(record)) == same
        assert record.created_at.utcoffset() == same.created_at.utcoffset()


def test_a_changed_copy_of_a_run_has_another_digest(records, tmp_path):
    bundle(records, tmp_path)
    record = load_results(tmp_path).records[0]
    changed = dataclasses.replace(record, measurements=record.measurements[:1] or (), notes={"a": "b"})
    assert changed.digest() != record.digest()


def test_a_bundle_that_was_renamed_is_checked_row_by_row(records, tmp_path):
    bundle(records, tmp_path)
    [path] = tmp_path.glob("bundle-*")
    other = path.rename(path.with_name("bundle-of-mine.parquet"))
    assert by_id(read_runs(other)) == by_id(records[:4])
    other.write_bytes(other.read_bytes()[:-30])
    assert load_results(tmp_path).corrupt != ()


def test_a_kill_between_a_bundle_and_the_removal_of_its_runs_files_leaves_each_run_once(records, tmp_path):
    bundle(records, tmp_path)
    for record in records[:3]:
        write_run(record, tmp_path)
    found = load_results(tmp_path).records
    assert len(found) == len(by_id(found)) == 6
    assert not path_of(tmp_path, records[0].run_id).exists()


def test_a_file_of_several_runs_of_which_one_failed_keeps_the_others(records, tmp_path):
    from trans4init.reports.records.store import write_bundle

    write_bundle(records, tmp_path)
    set_failures_aside(tmp_path)
    found = load_results(tmp_path).records
    assert by_id(found) == {run_id: run for run_id, run in by_id(records).items() if run.status != "failed"}


def test_reading_a_bundle_needs_no_pandas(records, tmp_path):
    """Whose import takes as long as reading thousands of runs; Arrow does it at the least occasion."""
    bundle(records, tmp_path)
    script = f"""
        import sys
        from pathlib import Path
        from trans4init.reports.records.store import load_results
        records = load_results(Path({str(tmp_path)!r})).records
        assert len(records) == 6
        assert records[2].last("validation_loss") is not None
        assert "pandas" not in sys.modules
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(script)], check=True)


def test_only_what_is_looked_at_is_decoded(records, tmp_path, monkeypatch):
    bundle(records[:4], tmp_path)

    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(bundles, "_decoded", refuse)
    found = load_results(tmp_path).records
    assert [record.run_id for record in found] == [record.run_id for record in records[:4]]
    assert found[0].digest() == records[0].digest()
    with pytest.raises(AssertionError, match="decoded"):
        found[0].last("validation_loss")
