"""The server that workers are forked from starts, ends and is interrupted as the process that started it wants."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

START = """
import multiprocessing.forkserver, sys
from trans4init.ablations.study.executors.local import start_server
start_server("imported_for_long")
print(multiprocessing.forkserver._forkserver._forkserver_pid, flush=True)
sys.stdin.read()
"""
"""Python that starts a server, prints its id, and waits."""
IMPORTED = """
import time
from pathlib import Path
Path("imports").touch()
time.sleep(60)
"""


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the server of other systems ends when it has imported all modules")
def test_a_server_that_imports_is_not_interrupted_and_ends_with_its_starter(tmp_path):
    (tmp_path / "imported_for_long.py").write_text(IMPORTED)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    starter = subprocess.Popen(
        [sys.executable, "-c", START],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    server = int(starter.stdout.readline())
    end = time.monotonic() + 60
    while not (tmp_path / "imports").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(server, signal.SIGINT)
    time.sleep(0.2)  # an interrupt would have ended the sleep of 60 s
    assert is_alive(server)
    starter.kill()
    starter.communicate()
    end = time.monotonic() + 10
    while is_alive(server):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_socket_that_can_not_be_made_is_one_sentence(tmp_path):
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    script = "from trans4init.ablations.study.executors.local import start_server; start_server()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert f"InputError: no worker can be started with a socket in {folder}" in last
    assert last.endswith("set TMPDIR to a folder with a short name.")


IN_A_WORKER = """
import multiprocessing, subprocess, sys
from trans4init.ablations.study.executors.local import start_server

def work():
    done = subprocess.run([sys.executable, "-c", "import trans4init.ablations.study.executors.server"])
    print("ended with", done.returncode, flush=True)

if __name__ == "__main__":
    start_server()
    worker = multiprocessing.get_context("forkserver").Process(target=work)
    worker.start()
    worker.join()
"""
"""Python whose worker starts a command that imports what the server does."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' servers end by themselves")
def test_a_command_that_a_worker_starts_does_not_take_itself_for_the_server(tmp_path):
    """It ended at once, without a word, since the server isn't its parent."""
    (tmp_path / "script.py").write_text(IN_A_WORKER)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ended with 0\n", done.stderr
