"""Whatever streams and variables a command inherits, it works, or says in one sentence what to change."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trans4init.ablations.cli import environment, lines
from trans4init.ablations.cli.environment import check_environment
from trans4init.ablations.errors import InputError

SCRIPT = str(Path(sys.executable).with_name("trans4init"))


@pytest.fixture
def stream():
    """Opens a stream on a descriptor as commands do; closes its own afterwards."""
    opened = []

    def open_on(descriptor):
        opened.append(descriptor)
        return environment._opened(None, descriptor)

    yield open_on
    for descriptor in opened:
        os.close(descriptor)


def test_a_stream_drops_what_nobody_reads(stream):
    reader, writer = os.pipe()
    text = stream(writer)
    print("first", file=text)
    assert os.read(reader, 100) == b"first\n"
    os.close(reader)
    for _ in range(3):
        print("more", file=text)
    assert isinstance(text.error, BrokenPipeError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_stream_on_a_full_disk_remembers_it(stream):
    text = stream(os.open("/dev/full", os.O_WRONLY))
    print("text", file=text)
    assert text.error.errno == errno.ENOSPC


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_one_sentence_and_a_closed_one_is_none():
    done = subprocess.run(f"{SCRIPT} ls arms > /dev/full", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "trans4init: standard output can't be written: No space left on device.\n"
    done = subprocess.run(f"{SCRIPT} ls arms >&- <&-", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["bash", "-c", f"{SCRIPT} ls arms | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_is_one_sentence_where_a_terminal_has_only_ascii():
    done = subprocess.run(
        [SCRIPT, "run"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("trans4init: Missing from trans4init run: STR The name of a study")
    assert done.stderr.endswith("(required)\n")


def test_answers_end_when_nobody_reads_them(monkeypatch, capsys):
    monkeypatch.setattr(lines, "output_error", lambda: BrokenPipeError())
    assert lines.answer_lines(lambda line: (line.upper(), 1), iter(["a", "b"])) == 0
    assert capsys.readouterr().out == "A\n"


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("COLUMNS", "0", False),
        ("COLUMNS", "1", False),
        ("COLUMNS", "-5", False),
        ("COLUMNS", "²", False),
        ("COLUMNS", "9" * 5000, False),
        ("COLUMNS", "80", True),
        ("LINES", "0", False),
        ("LINES", "24", True),
        ("MPLBACKEND", "nonsense", False),
        ("PYTEST_ADDOPTS", "-x", False),
        ("PYTHON_TYRO_BACKEND", "nonsense", False),
        ("PYTHONPATH", "here", True),
    ],
)
def test_variables_that_would_break_a_command_are_left_out(monkeypatch, name, value, kept):
    monkeypatch.setenv(name, value)
    check_environment()
    assert os.environ.get(name) == (value if kept else None)


def make_warnings_errors(patched, folder):
    patched.setattr(sys, "warnoptions", ["error::DeprecationWarning"])


def forget_the_home(patched, folder):
    patched.setattr(os.path, "expanduser", lambda path: path)


def delete_the_folder(patched, folder):
    (folder / "gone").mkdir()
    patched.chdir(folder / "gone")
    (folder / "gone").rmdir()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (make_warnings_errors, "PYTHONWARNINGS=error"),
        (forget_the_home, "HOME isn't set"),
        (delete_the_folder, "the current folder was deleted"),
    ],
)
def test_what_can_not_be_left_out_is_said(monkeypatch, tmp_path, spoil, sentence):
    spoil(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=sentence):
        check_environment()


def test_without_docstrings_there_is_no_help():
    done = subprocess.run([sys.executable, "-OO", SCRIPT, "ls"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "trans4init: PYTHONOPTIMIZE=2 or -OO strips the help of the commands; leave it out, or take 1 or -O.\n"
    )
