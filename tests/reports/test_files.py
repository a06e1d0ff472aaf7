"""Writing a file whole: a crash leaves the old file, and two writers don't meet."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy

from trans4init.reports.files import remove_leftovers, sqlite_address, without_folders, write_whole


@pytest.mark.parametrize(
    ("content", "stored"), [("é\n", b"\xc3\xa9\n"), (b"\0\xff", b"\0\xff"), (memoryview(b"x"), b"x")]
)
def test_text_and_bytes_are_written_as_they_are(tmp_path, content, stored):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    assert write_whole(path, content) == path
    assert path.read_bytes() == stored
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_of_a_name_that_are_no_text_are_written_as_escapes(tmp_path):
    assert write_whole(tmp_path / "a.txt", f"in {os.fsdecode(b'x-' + bytes([255]))}").read_text() == "in x-\\udcff"


@pytest.mark.parametrize("name", ["a?b", "50%", "%41", "it's", "{x}", "a#b c", "ü", "+&@:;="])
def test_a_database_is_the_file_of_its_path_whatever_its_name(tmp_path, name):
    path = tmp_path / name / "x.db"
    path.parent.mkdir()
    with sqlalchemy.create_engine(sqlite_address(path)).connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE here (x INTEGER)"))
    assert path.stat().st_size > 0
    assert sqlite_address(path).format(SCHEMA_VERSION=1) == sqlite_address(path)  # Optuna fills addresses in
    assert list(tmp_path.iterdir()) == [path.parent]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    """Not those of Python's temporary files, which nobody else may read."""
    plain = tmp_path / "plain"
    plain.touch()
    assert write_whole(tmp_path / "whole", "x").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.replace"])
def test_a_crash_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path, moment):
    """The process is killed after the content is written, before the rename."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = textwrap.dedent(
        f"""
        import os, pathlib, signal, sys
        {moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        from trans4init.reports.files import write_whole
        write_whole(pathlib.Path(sys.argv[1]), "new")
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    [leftover] = set(tmp_path.iterdir()) - {path}
    assert leftover.read_text() == "new"
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_each_write_a_whole_file(tmp_path, monkeypatch):
    """Both are stopped between writing and renaming: with one temporary name, one would rename the other's content."""
    path, barrier = tmp_path / "a.txt", threading.Barrier(2, timeout=20)
    plain, renamed = Path.replace, []

    def replace(temporary, target):
        barrier.wait()  # both have written
        renamed.append((temporary.name, temporary.read_text()))
        barrier.wait()  # both have looked
        return plain(temporary, target)

    monkeypatch.setattr(Path, "replace", replace)
    contents = ["a" * 1000, "b" * 2000]
    errors = []

    def write(content):
        try:
            write_whole(path, content)
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    assert len({name for name, _ in renamed}) == 2
    assert sorted(content for _, content in renamed) == contents
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks up names of descriptors in /proc")
def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The content is synced under the temporary name, then renamed, then the folder is synced."""
    plain, synced = os.fsync, []

    def fsync(descriptor):
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append((name, (tmp_path / "a.txt").exists()))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(tmp_path / "a.txt", "x")
    [(temporary, before), (folder, after)] = synced
    assert temporary.startswith("a.txt.")
    assert temporary.endswith(".tmp")
    assert (before, folder, after) == (False, tmp_path.name, True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "trans4init run /tmp/q/tiny.toml --data=/home/me/t.txt --out /a/b/",
            "trans4init run tiny.toml --data=t.txt --out b/",
        ),
        ('File "/v/lib/site-packages/torch/nn.py", line 3', 'File "torch/nn.py", line 3'),
        ('File "/home/me/ablations/study/work.py", line 3', 'File "ablations/study/work.py", line 3'),
        ("there is no file '/home/me/text.txt'; (/tmp/a.py:3)", "there is no file 'text.txt'; (a.py:3)"),
        (
            "see http://a.b/c/d, ../x/y.py, ~/x, 1/2, a / b, nats/token, <b>no</b>",
            "see http://a.b/c/d, ../x/y.py, ~/x, 1/2, a / b, nats/token, <b>no</b>",
        ),
    ],
)
def test_an_absolute_path_is_cut_to_what_means_something_elsewhere(text, kept):
    assert without_folders(text) == kept == without_folders(kept)
