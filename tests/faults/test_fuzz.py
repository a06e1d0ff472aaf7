"""Files from strangers are data: whatever is in them, the answer is one clear sentence, and soon."""

import random
import re
import string
import time
from pathlib import Path

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.memory import check_memory
from trans4init.ablations.study.grid import load_grid
from trans4init.ablations.study.spec import shipped_studies
from trans4init.reports.records.packed import UnreadablePackError, pack, unpacked
from trans4init.reports.records.store import CorruptResultError, load_results, read_runs
from trans4init.reports.records.tables import UnreadableSchemaError

_STRANGE = [
    "-1", "0", "1e400", "nan", "-inf", "10000000", "1000000000000000000000", "true", "[]", "{}", '""', '"x"', "[[1]]",
    '"' + "y" * 5000 + '"', "[1, 2, 3]", '{a = 1}', "1979-05-27", '"../../etc/passwd"', '"\\u0000"', '"é"', "''",
    '["gelu", 3]', "[" * 300 + "]" * 300, '{low = 1, high = 0}', "[" + '"gelu", ' * 400 + "]", "0x10", "1_000",
]  # fmt: skip
SLOWEST = 10.0
"""Seconds that an answer may take on a busy machine."""


def mutated(text, chance):
    """A study's file with a few of its lines changed."""
    lines = text.splitlines()
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(lines))
        key, equals, _ = lines[place].partition("=")
        match chance.randrange(6):
            case 0:
                lines[place] = f"{key}= {chance.choice(_STRANGE)}" if equals else lines[place]
            case 1:
                del lines[place]
            case 2:
                lines.insert(chance.randrange(len(lines) + 1), lines[place])
            case 3:
                name = "".join(chance.choices(string.ascii_lowercase + "._-", k=chance.randrange(1, 12)))
                lines.insert(place, f"{name} = {chance.choice(_STRANGE)}")
            case 4:
                lines[place] = f"[{lines[place].strip('[]')}]"
            case _:
                number = re.search(r"\d+", lines[place])
                if number:
                    grown = str(int(number[0]) * 10 ** chance.randrange(1, 9))
                    lines[place] = lines[place][: number.start()] + grown + lines[place][number.end() :]
        if not lines:
            lines = [""]
    return "\n".join(lines)


def test_study_files(tmp_path, tries):
    chance, path = random.Random(0), tmp_path / "mutated.toml"
    texts = [file.read_text() for file in shipped_studies().values()]
    refused = 0
    for number in range(tries(150, 5000)):
        text = mutated(chance.choice(texts), chance)
        path.write_text(text)
        start, said = time.monotonic(), ""
        try:
            for block in load_grid(str(path)).blocks:
                check_memory(block.spec.model, block.spec.training)
        except InputError as error:
            said = str(error)
        except Exception as error:  # noqa: BLE001  anything else is a fault, of which the file is wanted
            pytest.fail(f"{type(error).__name__}: {error}, of file {number}:\n{text}")
        refused += bool(said)
        assert len(said) < 1000, (number, text)
        assert "\n" not in said, (number, text)
        assert time.monotonic() - start < SLOWEST, text
    assert refused > 0


def test_random_bytes_are_no_results(tmp_path, tries):
    chance, path = random.Random(0), tmp_path / "a.parquet"
    for number in range(tries(50, 1000)):
        content = chance.randbytes(chance.randrange(2000))
        path.write_bytes(b"PAR1" + content + b"PAR1" if number % 2 else content)
        with pytest.raises((CorruptResultError, UnreadableSchemaError)):
            read_runs(path)


def test_packed_files(study_copy, tries, damage, tmp_path):
    folder = study_copy / "runs" / "tiny"
    path = pack(folder, load_results(folder / "results"), tmp_path / "tiny.zip")
    whole = load_results(folder / "results")
    content, found = path.read_bytes(), 0
    for number in range(tries(15, 500)):
        path.write_bytes(damage(content, number))
        room = tmp_path / f"room-{number}"
        room.mkdir()
        try:
            now = unpacked(path, room)
        except (UnreadablePackError, UnreadableSchemaError):
            found += 1
        else:
            assert {run.run_id: run for run in now.records} == {run.run_id: run for run in whole.records}
    assert found > 0


@pytest.mark.parametrize(
    "name", ["../out.parquet", "/tmp/out.parquet", "results/../../out.parquet", "results/a b.parquet", "mlflow.db"]
)
def test_a_packed_file_writes_nothing_beside_its_folder(tmp_path, name):
    import zipfile

    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(name, b"x")
    room = tmp_path / "room"
    room.mkdir()
    with pytest.raises(UnreadablePackError, match="is no part of a study's results"):
        unpacked(tmp_path / "bad.zip", room)
    assert list(room.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip", "room"]
    assert not Path("/tmp/out.parquet").exists() or name != "/tmp/out.parquet"


def test_nothing_is_unpickled_but_what_a_study_sends_its_own_workers():
    """`pickle`, `torch.load` and the like are named in no file but those of the executors' messages."""
    from trans4init.ablations.study import parcel

    root = Path(parcel.__file__).parents[2]
    allowed = {"ablations/study/parcel.py", "ablations/study/executors/on_ray.py"}
    named = {
        path.relative_to(root).as_posix()
        for floor in ("ablations", "bench", "kernels", "reports")
        for path in (root / floor).rglob("*.py")
        if re.search(r"\b(pickle\.loads?|torch\.load|joblib|shelve|marshal|allow_pickle=True)\b", path.read_text())
    }
    assert named <= allowed
