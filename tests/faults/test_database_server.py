"""A PostgreSQL server that keeps trials: two studies at once, one twice, a killed holder, a server that goes away."""

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import optuna
import pytest

from trans4init.ablations.cli.ui import DASHBOARD
from trans4init.ablations.study.optuna_database import BEST
from trans4init.reports.records.store import load_results

PASSWORD = "p@ss:w/rd %1{x}"
ENDLESS = ("steps = 6", "steps = 100000")
OF_A_SECOND = ("steps = 6", "steps = 400")


def program(name):
    """The path of one of PostgreSQL's programs: Debian has them in no folder that is searched."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(places[-1]) if places else None)


needed = {
    "the program postgres": program("postgres") and program("initdb"),
    "the package psycopg": importlib.util.find_spec("psycopg"),
}
missing = [name for name, there in needed.items() if not there]
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}")]


class Postgres:
    """A server on a free port of this machine, with a data folder of its own and a password."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.whose = {}
        if os.geteuid() == 0:  # the server refuses to be root
            user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if name in {u[0] for u in pwd.getpwall()})
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.whose = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.data, self.process = self.folder / "data", None
        self.call("initdb", "-D", self.data, "-U", "me", "--auth=scram-sha-256", f"--pwfile={secret}", "-N")
        self.start()

    def call(self, name, *words):
        subprocess.run(
            [program(name), *map(str, words)], cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **self.whose
        )

    def start(self):
        words = ("-D", self.data, "-h", "127.0.0.1", "-p", self.port, "-k", self.folder, "-F")
        self.process = subprocess.Popen(
            [program("postgres"), *map(str, words)], cwd=self.folder, stderr=subprocess.DEVNULL, **self.whose
        )
        wait_for(self.answers)

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def stop(self):
        """End the server and its connections at once; the next start recovers."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=60)

    def processes(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, path.read_text().split())]

    def url(self, database):
        return f"postgresql://me:{urllib.parse.quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server():
    made = Postgres()
    yield made
    made.stop()
    shutil.rmtree(made.folder)


@pytest.fixture
def url(server, request):
    """The address of a new database."""
    import psycopg

    if server.process.poll() is not None:
        server.start()
    name = f"of_{abs(hash(request.node.name))}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def stored(url):
    """The values of every Optuna study's trials, and its best trial, by name."""
    storage = optuna.storages.RDBStorage(url)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    try:
        return {study.study_name: ([t.value for t in study.trials], study.user_attrs[BEST]) for study in studies}
    finally:
        storage.engine.dispose()


def tuned(folder):
    """The number of trials of the tiny study in a folder that are finished."""
    records = load_results(folder / "results").records if (folder / "results").is_dir() else ()
    return sum(record.phase == "tune" for record in records)


def said_of(process):
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def nothing_holds_the_password(folder):
    quoted = urllib.parse.quote(PASSWORD, safe="")
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "tiny.toml":
            content = path.read_bytes()
            assert PASSWORD.encode() not in content, path
            assert quoted.encode() not in content, path


def test_two_studies_share_a_server_and_no_file_or_message_has_the_password(write_study, command, url, tmp_path):
    processes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        study = write_study(tmp_path / name, ('name = "tiny"', f'name = "{name}"'))
        processes.append(command("run", study, "--storage", url))
    for process in processes:
        code, output = said_of(process)
        assert code == 0, output
        assert PASSWORD not in output
        assert urllib.parse.quote(PASSWORD, safe="") not in output
    kept = stored(url)
    assert {name.split(" / ")[0] for name in kept} == {"one", "two"}
    assert all(len(values) == 2 and best == values.index(min(values)) for values, best in kept.values())
    assert len(kept) == 10
    nothing_holds_the_password(tmp_path)
    assert "--storage 'postgresql://me:***@" in (tmp_path / "runs" / "one" / "spec.json").read_text()


def test_an_address_in_a_file_can_leave_the_password_to_the_environment(write_study, run_command, url, tmp_path):
    address = url.replace(urllib.parse.quote(PASSWORD, safe=""), "${SECRET}")
    study = write_study(tmp_path, ("[evaluation]", f'[storage]\nurl = "{address}"\n\n[evaluation]'))
    code, output = run_command("run", study, SECRET=PASSWORD)
    assert code == 0, output
    assert len(stored(url)) == 5
    code, output = run_command("run", study, SECRET="another")
    assert code == 1
    assert "password authentication failed" in output
    assert output.count("\n") == 1


def test_the_same_study_twice_is_refused_by_the_name_of_the_holder(write_study, command, run_command, url, tmp_path):
    """In two folders, as on two machines; once the holder is killed, the other one is free to go."""
    study = write_study(tmp_path, ENDLESS)
    holder = command("run", study, "--storage", url)
    wait_for(lambda: (tmp_path / "runs" / "tiny" / "results").is_dir())
    code, output = run_command("run", study, "--storage", url, "--out", "other")
    assert code == 1
    assert f"another trans4init (process {holder.pid} on {socket.gethostname()}) is at work on the study tiny" in output
    assert output.count("\n") == 1
    assert not (tmp_path / "other").exists()
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    code, output = run_command("run", write_study(tmp_path), "--storage", url, "--out", "other")
    assert code == 0, output
    assert all(len(values) == 2 for values, _ in stored(url).values())


def test_a_server_that_goes_away_in_a_studys_midst_loses_nothing(
    write_study, command, run_command, server, tmp_path, url
):
    study = write_study(tmp_path, OF_A_SECOND)
    process = command("run", study, "--storage", url)
    wait_for(lambda: tuned(tmp_path / "runs" / "tiny") >= 2)
    server.stop()
    code, output = said_of(process)
    assert code == 0, output
    assert "Optuna's database lacks trials (" in output
    assert tuned(tmp_path / "runs" / "tiny") == 10
    code, output = run_command("run", study, "--storage", url)
    assert code == 1
    assert "Connection refused" in output
    assert output.count("\n") == 1
    server.start()
    code, output = run_command("run", study, "--storage", url)
    assert code == 0, output
    assert "Nothing left to run" in output
    assert "lacks" not in output
    kept = stored(url)
    assert len(kept) == 5
    assert all(len(values) == 2 for values, _ in kept.values())


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the server's processes in /proc")
def test_a_server_that_answers_no_more_holds_a_study_up_for_seconds(write_study, command, server, tmp_path, url):
    """Its connections stay open, as where a machine is frozen; it comes back before the study ends."""
    study = write_study(tmp_path, OF_A_SECOND)
    process = command("run", study, "--storage", url)
    wait_for(lambda: tuned(tmp_path / "runs" / "tiny") >= 2)
    frozen = server.processes()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        finished = tuned(tmp_path / "runs" / "tiny")
        wait_for(lambda: tuned(tmp_path / "runs" / "tiny") >= min(10, finished + 3), 90)
        assert time.monotonic() - began < 90
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    code, output = said_of(process)
    assert code == 0, output
    assert "lacks" not in output
    assert all(len(values) == 2 for values, _ in stored(url).values())


def test_optunas_dashboard_shows_the_studies(write_study, run_command, tmp_path, url):
    pytest.importorskip("optuna_dashboard")
    code, output = run_command("run", write_study(tmp_path), "--storage", url)
    assert code == 0, output
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-c", DASHBOARD, url, "--host", "127.0.0.1", "--port", str(port)]
    dashboard = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:

        def asked(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as answer:
                return json.load(answer)

        def up():
            with contextlib.suppress(urllib.error.URLError):
                return bool(asked("studies"))

        wait_for(up)
        summaries = asked("studies")["study_summaries"]
        assert {summary["study_name"].split(" / ")[0] for summary in summaries} == {"tiny"}
        assert all([mark["key"] for mark in summary["user_attrs"]] == [BEST] for summary in summaries)
        shown = asked(f"studies/{summaries[0]['study_id']}?after=0")
        assert len(shown["trials"]) == 2
        assert shown["objective_names"] == ["validation_loss (nats/token)"]
    finally:
        dashboard.terminate()
        dashboard.wait(timeout=30)
