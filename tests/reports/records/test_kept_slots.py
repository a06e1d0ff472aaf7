"""Files of kept slots are written whole, read without torch, and say it if they are damaged."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save

from trans4init.reports.records.kept_slots import HEADER, UnreadableSlotsError, read_kept, write_kept

CONTENT = save(
    {
        "inputs": np.arange(3, dtype=np.float32),
        "closed": np.ones((3, 2), np.float32),
        "values/a.b": np.full((3, 2), 2, np.float32),
        "state/a.b/net.order": np.array([2, 0, 1]),
    },
    {HEADER: json.dumps({"arm": "scaled", "seed": 4})},
)


def test_what_is_written_is_read(tmp_path):
    path = write_kept(tmp_path, "evaluate-1", CONTENT)
    assert path == tmp_path / "slots" / "evaluate-1.safetensors"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    slots = read_kept(tmp_path, "evaluate-1")
    assert slots.header == {"arm": "scaled", "seed": 4}
    assert slots.inputs.tolist() == [0, 1, 2]
    assert slots.closed.tolist() == [[1, 1]] * 3
    assert slots.values["a.b"].tolist() == [[2, 2]] * 3
    assert slots.state["a.b/net.order"].tolist() == [2, 0, 1]


def test_a_run_that_kept_nothing_has_nothing(tmp_path):
    assert read_kept(tmp_path, "evaluate-1") is None


@pytest.mark.parametrize("content", [CONTENT[:-5], b"", CONTENT.replace(HEADER.encode(), b"other"), b"no file at all"])
def test_a_damaged_file_is_said(tmp_path, content):
    write_kept(tmp_path, "evaluate-1", content)
    with pytest.raises(UnreadableSlotsError, match=r"^evaluate-1\.safetensors can't be read: "):
        read_kept(tmp_path, "evaluate-1")


def test_reading_needs_no_torch(tmp_path):
    write_kept(tmp_path, "evaluate-1", CONTENT)
    script = (
        "import sys, pathlib; sys.modules['torch'] = None\n"
        "from trans4init.reports.records.kept_slots import read_kept\n"
        "print(read_kept(pathlib.Path(sys.argv[1]), 'evaluate-1').closed.sum())"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "6.0\n"
