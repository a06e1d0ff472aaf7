"""The store: what is written comes back, whole or not at all."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trans4init.reports.files import remove_leftovers
from trans4init.reports.records import tables
from trans4init.reports.records.metrics import PERPLEXITY, VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement, Metric, RunRecord
from trans4init.reports.records.store import (
    CorruptResultError,
    load_results,
    path_of,
    read_runs,
    write_bundle,
    write_card,
    write_run,
)
from trans4init.reports.records.tables import ROWS, UnreadableSchemaError, from_table, to_table
from trans4init.reports.records.vocabulary import PHASES, STATUSES

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
METRICS = st.builds(Metric, WORDS, WORDS, st.none() | st.booleans())
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
MEASUREMENTS = st.builds(Measurement, METRICS, VALUES, st.integers(0, 2**62))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cell=st.builds(CellKey, WORDS, WORDS, WORDS),
    trial=st.none() | st.integers(0, 1000),
    seed=st.integers(0, 10**6),
    phase=st.sampled_from(PHASES),
    status=st.sampled_from(STATUSES),
    created_at=MOMENTS,
    measurements=st.lists(MEASUREMENTS, min_size=1, max_size=5).map(tuple),
    parameters=st.dictionaries(WORDS, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    error=WORDS,
)
def test_a_record_comes_back_as_it_was(tmp_path, make_record, **special):
    record = make_record(**special, run_id="r")
    assert read_runs(write_run(record, tmp_path)) == [record]


def test_a_bundle_is_the_runs_that_went_in(tmp_path, make_record):
    other = dataclasses.replace(make_record().environment, python="3.12.0")
    records = [make_record(seed=0), make_record(seed=1, error="x"), make_record(seed=2, environment=other)]
    assert len(write_bundle(records, tmp_path)) == 2
    assert sorted(load_results(tmp_path).records, key=lambda r: r.seed) == records


def test_the_card_beside_the_runs_comes_back_and_holds_no_row(tmp_path, make_record, card):
    write_run(make_record(), tmp_path)
    assert (load_results(tmp_path).stored_card, load_results(tmp_path).card) == (None, card)
    newer = dataclasses.replace(card, seeds=3, trials=2, spec_hash="h", throughput_runs=("t-1", "t-2"))
    path = write_card(newer, tmp_path)
    assert load_results(tmp_path).card == load_results(tmp_path).stored_card == newer
    assert [record.run_id for record in load_results(tmp_path).records] == [make_record().run_id]
    assert pq.read_table(path).num_rows == 0
    path.write_bytes(path.read_bytes()[:-9])
    assert load_results(tmp_path).card == card
    assert load_results(tmp_path).corrupt == (path.with_name("study.parquet.corrupt"),)


def test_a_runs_digest_is_of_all_that_it_is_but_the_card(tmp_path, make_record, card):
    """It is the same for the record that was written and the one that is read, whose numbers are floats."""
    record = make_record(measurements=(Measurement(Metric("parameters", "count"), 7),), parameters={"rate": 0.5})
    assert read_runs(write_run(record, tmp_path))[0].digest() == record.digest()
    assert dataclasses.replace(record, card=None).digest() == record.digest()
    other = {
        "run_id": "other", "study": "t", "spec_hash": "i", "cell": CellKey("gelu", "analytic"), "task": "copy",
        "model": "encoder", "trial": 1, "seed": 1, "phase": "tune", "status": "failed", "device": "gpu",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC), "measurements": (Measurement(Metric("parameters", "1"), 7),),
        "environment": dataclasses.replace(record.environment, cores=3), "parameters": {"rate": 0.25},
        "notes": {"a": "b"}, "spec": {"a": "b"}, "error": "why",
    }  # fmt: skip
    assert other.keys() == {field.name for field in dataclasses.fields(record)} - {"card"}
    for name, value in other.items():
        assert dataclasses.replace(record, **{name: value}).digest() != record.digest(), name


def test_rows_and_metadata_are_the_contract(make_record):
    table = to_table([make_record()])
    assert table.schema.names == [
        *("run_id", "study", "spec_hash", "function", "arm", "net", "task", "model", "trial", "seed", "phase"),
        *("metric", "unit", "higher_is_better", "value", "step", "status", "device", "created_at"),
    ]
    assert table.schema.remove_metadata() == ROWS
    metadata = {key.decode() for key in table.schema.metadata}
    assert {"schema_version", "environment", "git_commit", "spec"} <= metadata


def test_what_is_not_finite_is_stored_as_missing(tmp_path, make_record):
    values = [float("nan"), float("inf"), 1.0]
    rows = tuple(Measurement(Metric("m", "1"), value, step) for step, value in enumerate(values))
    assert [m.value for m in rows] == [None, None, 1.0]
    found = read_runs(write_run(make_record(measurements=rows), tmp_path))[0]
    assert [m.value for m in found.measurements] == [None, None, 1.0]


@pytest.mark.parametrize("keep", [0, 1, 100, -9, -1])
def test_a_truncated_file_is_named_and_set_aside(tmp_path, make_record, keep):
    path, other = write_run(make_record(seed=0), tmp_path), write_run(make_record(seed=1), tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptResultError, match=path.name):
        read_runs(path)
    results = load_results(tmp_path)
    assert [record.seed for record in results.records] == [1]
    assert results.corrupt == (path.with_name(path.name + ".corrupt"),)
    assert not path.exists()
    assert other.exists()
    write_run(make_record(seed=0), tmp_path)
    assert load_results(tmp_path).corrupt == ()


def test_two_processes_may_set_the_same_files_aside(tmp_path, make_record, monkeypatch):
    torn, retried, whole = (write_run(make_record(seed=seed), tmp_path) for seed in range(3))
    torn.write_bytes(b"PAR1")
    plain = Path.read_bytes

    def read_bytes(path):
        """The other process is ahead: it has renamed the torn file when this one has read it, the other before."""
        if path == retried:
            path.rename(path.with_name(path.name + ".retried"))
        content = plain(path)
        if path == torn:
            path.rename(path.with_name(path.name + ".corrupt"))
        return content

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    results = load_results(tmp_path)
    assert [record.seed for record in results.records] == [2]
    assert [path.name for path in results.corrupt] == [f"{torn.name}.corrupt"]
    assert whole.exists()


def test_a_flipped_bit_in_the_data_is_found(tmp_path, make_record):
    rows = tuple(Measurement(Metric("m", "1"), i / 7, i) for i in range(500))
    path = write_run(make_record(measurements=rows), tmp_path)
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(ROWS.names.index("value"))
    place = column.data_page_offset + column.total_compressed_size // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(CorruptResultError):
        read_runs(path)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of a process's threads")
def test_reading_starts_no_thread(tmp_path, make_record):
    """A process that ended while Arrow's threads started was aborted: one short command in ten on a busy machine."""
    write_run(make_record(), tmp_path)
    script = f"""
        import os
        from pathlib import Path
        import pyarrow as pa
        from trans4init.reports.records.store import load_results
        pa.array([1, 2])  # its allocator's own thread, which never runs a task, is there from now on
        before = set(os.listdir("/proc/self/task"))
        assert load_results(Path({str(tmp_path)!r})).records
        assert set(os.listdir("/proc/self/task")) == before
    """
    subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(script)], check=True)


def test_every_page_has_its_own_checksum(tmp_path, make_record):
    """A reader that knows nothing of the digest finds a flipped bit in any column by its page's checksum."""
    rows = tuple(Measurement(Metric(f"m{i}", f"u{i}"), i / 7, i) for i in range(50))
    path = write_run(make_record(measurements=rows), tmp_path)
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    for number, name in enumerate(ROWS.names):
        column = group.column(number)
        start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        place = start + column.total_compressed_size - 1  # the last byte of the column's last page
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(OSError, match="CRC checksum verification failed"):
            pq.read_table(path, page_checksum_verification=True, partitioning=None)
        with pytest.raises(CorruptResultError, match="CRC checksum verification failed"):
            read_runs(path)
        assert name == column.path_in_schema


def test_every_column_holds_what_it_is_named_after(tmp_path, make_record):
    """Read by Parquet alone, from a record no two of whose fields are equal."""
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    measured = (
        Measurement(Metric("metric-a", "unit-a", higher_is_better=True), 0.25, 11),
        Measurement(Metric("metric-b", "unit-b", higher_is_better=False), None, 12),
        Measurement(Metric("metric-c", "unit-c"), -1.5, 13),
    )
    record = make_record(
        run_id="run-1", study="study-1", spec_hash="hash-1", cell=CellKey("function-1", "arm-1", "net-1"),
        task="task-1", model="model-1", trial=3, seed=4, phase="tune", status="diverged",
        device="device-1", created_at=moment, measurements=measured, parameters={"rate": 0.5},
        notes={"note": "text"}, spec={"key": "value"}, error="why",
    )  # fmt: skip
    table = pq.read_table(write_run(record, tmp_path), partitioning=None)
    same = {
        "run_id": "run-1", "study": "study-1", "spec_hash": "hash-1", "function": "function-1", "arm": "arm-1",
        "net": "net-1", "task": "task-1", "model": "model-1", "trial": 3, "seed": 4, "phase": "tune",
        "status": "diverged", "device": "device-1", "created_at": moment,
    }  # fmt: skip
    expected = {name: [value] * 3 for name, value in same.items()} | {
        "metric": ["metric-a", "metric-b", "metric-c"],
        "unit": ["unit-a", "unit-b", "unit-c"],
        "higher_is_better": [True, False, None],
        "value": [0.25, None, -1.5],
        "step": [11, 12, 13],
    }
    assert table.to_pydict() == expected
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    environment = dataclasses.asdict(record.environment)
    assert json.loads(metadata["environment"]) == environment
    assert metadata["git_commit"] == "abc"
    assert json.loads(metadata["spec"]) == {"key": "value"}
    stored_card = json.loads(metadata["study_card"])
    card = json.loads(json.dumps(record.card.as_fields()))
    assert stored_card == {key: value for key, value in card.items() if key not in ("block", "together", "dropped")}
    facts = {"parameters": {"rate": 0.5}, "notes": {"note": "text"}, "error": "why"}
    assert json.loads(metadata["runs"]) == {"run-1": facts}
    assert [read_runs(path) for path in tmp_path.iterdir()] == [[record]]


def test_a_flipped_bit_in_the_footer_is_found_or_changes_nothing(tmp_path, make_record):
    """Parquet's page checksums leave the footer out: settings, notes, the environment, the spec."""
    record = make_record(parameters={"learning_rate": 0.01}, notes={"moves": "position.content.net"})
    path = write_run(record, tmp_path)
    whole = path.read_bytes()
    end = len(whole) - 8
    for place in range(end - int.from_bytes(whole[end : end + 4], "little"), end, 9):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with contextlib.suppress(CorruptResultError, UnreadableSchemaError):
            assert read_runs(path) == [record], place


def test_a_folder_whose_name_is_not_utf8_is_no_damage(tmp_path, make_record):
    folder = tmp_path / os.fsdecode(b"x-" + bytes([255]))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    write_run(make_record(), folder)
    assert load_results(folder).records == (make_record(),)
    assert load_results(folder).corrupt == ()


def test_another_schema_version_is_refused_not_set_aside(tmp_path, make_record):
    table = to_table([make_record()])
    newer = table.schema.metadata | {b"schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(newer), tmp_path / "a.parquet")
    with pytest.raises(
        UnreadableSchemaError, match=r"a\.parquet: schema version 99; this trans4init reads versions 2, 3, 4, 5 and 6"
    ):
        load_results(tmp_path)


def test_a_foreign_parquet_file_is_refused_by_name(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "theirs.parquet")
    with pytest.raises(UnreadableSchemaError, match="theirs"):
        load_results(tmp_path)


def test_a_full_disk_leaves_no_file_behind(tmp_path):
    """A file-size limit, in a process of its own, stands for the full disk: the write fails part of the way."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from datetime import UTC, datetime
        from pathlib import Path
        from trans4init.reports.machine import capture
        from trans4init.reports.records.schema import CellKey, Measurement, Metric, RunRecord
        from trans4init.reports.records.store import write_run
        rows = tuple(Measurement(Metric("m", "1"), i / 7, i) for i in range(5000))
        record = RunRecord("r", "s", "h", CellKey("f", "a"), "t", "m", None, 0, "evaluate", "ok", "cpu",
                           datetime.now(UTC), rows, capture())
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_run(record, Path(sys.argv[1]))
        except OSError as error:
            print("refused", error.errno)
        """
    )
    folder = tmp_path / "results"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == f"refused {errno.EFBIG}\n", done.stdout + done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks up names of descriptors in /proc")
def test_a_result_is_on_the_disk_before_it_has_its_name(tmp_path, make_record, monkeypatch):
    """The content is synced under the temporary name, then renamed, then the folder is synced."""
    plain, names = os.fsync, []

    def fsync(descriptor):
        names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = write_run(make_record(run_id="r"), tmp_path)
    [temporary, folder] = names
    assert temporary.startswith("r.parquet.")
    assert folder == path.parent.name


def test_leftovers_of_killed_writers_are_removed(tmp_path, make_record):
    write_run(make_record(), tmp_path)
    (tmp_path / "evaluate-1.parquet.0123456789abcdef.tmp").write_bytes(b"PAR1")
    (tmp_path / "notes.tmp").write_text("a file of somebody else's")
    remove_leftovers(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".parquet", ".tmp"]
    assert (tmp_path / "notes.tmp").exists()


def test_the_file_of_a_run_is_named_after_it(tmp_path, make_record):
    record: RunRecord = make_record(run_id="evaluate-0")
    assert write_run(record, tmp_path) == path_of(tmp_path, "evaluate-0") == tmp_path / "evaluate-0.parquet"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"phase": "train"}, "phase"), ({"status": "fine"}, "status"), ({"measurements": ()}, "no measurement")],
)
def test_a_record_that_breaks_the_words_is_refused(make_record, change, message):
    with pytest.raises(ValueError, match=message):
        make_record(**change)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100_000])
def test_the_digest_is_that_of_the_rows_as_json(make_record, monkeypatch, rows_at_once):
    """As it was first written, so that older files can be read: floats by their shortest text, None as null."""
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", rows_at_once)
    values = (0.0, -0.0, 1 / 3, float("inf"), float("nan"), None, 0.0)
    found = tuple(Measurement(VALIDATION_LOSS, value, step) for step, value in enumerate(values))
    table = to_table([make_record(run_id=f"run-{n}", measurements=found) for n in range(2)])
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    stated = metadata.pop("digest")
    content = [sorted(metadata.items()), [list(row.values()) for row in table.to_pylist()]]
    assert stated == hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def test_runs_whose_rows_are_mixed_come_back_whole(make_record):
    records = [
        make_record(
            run_id=f"run-{n}",
            seed=n,
            measurements=(Measurement(VALIDATION_LOSS, float(n), 1), Measurement(PERPLEXITY, n + 0.5, 2)),
        )
        for n in range(3)
    ]
    table = to_table(records)
    mixed = table.take([4, 0, 3, 2, 1, 5])
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    del metadata["digest"]
    mixed = mixed.replace_schema_metadata(metadata | {"digest": tables._digest(mixed, metadata)})
    found = {record.run_id: record for record in from_table(mixed)}
    for record in records:
        assert sorted(found[record.run_id].measurements, key=lambda m: m.step) == list(record.measurements)
        assert (found[record.run_id].seed, found[record.run_id].cell) == (record.seed, record.cell)
