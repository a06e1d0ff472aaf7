"""Where trials are kept: which addresses are taken, and that their passwords are shown and stored nowhere."""

import os
import socket
import subprocess
import sys

import optuna
import pytest

from trans4init.ablations.errors import FaultError, InputError, without_passwords
from trans4init.ablations.lock import held
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.server import reached, why
from trans4init.ablations.study.storage import StorageSection
from trans4init.reports.machine import capture

URL = "postgresql://me:s3cret@host/trials"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "postgresql://me:***@host/trials"),
        (f"run s --storage '{URL}'", "run s --storage 'postgresql://me:***@host/trials'"),
        ("mysql+pymysql://me:a@b/c:d@host/trials", "mysql+pymysql://me:***@host/trials"),
        ("postgresql://host/trials?user=me&password=s3cret", "postgresql://host/trials?user=me&password=***"),
        ("postgresql://me@host:5432/trials", "postgresql://me@host:5432/trials"),
        ("see https://optuna.org:443/a, or me", "see https://optuna.org:443/a, or me"),
        ("sqlite:///folder/file.db", "sqlite:///folder/file.db"),
    ],
)
def test_a_password_is_masked_and_nothing_else(text, shown):
    assert without_passwords(text) == shown


def test_a_study_keeps_its_address_out_of_results_conditions_and_what_is_printed(tiny_study, tmp_path):
    plain = load_study(str(tiny_study()))
    spec = load_study(str(tiny_study(("[evaluation]", f'[storage]\nurl = "{URL}"\n\n[evaluation]'))))
    assert spec.storage.address() == URL
    for shown in (spec.public(), spec.conditions("f"), repr(spec)):
        assert "s3cret" not in str(shown)
    assert "host/trials" not in str(spec.public())
    studies = [ResolvedStudy(made, "f", capture(), tmp_path, "") for made in (plain, spec)]
    ids = [[request.run_id for request in study.tune_requests()] for study in studies]
    assert ids[0] == ids[1]
    assert studies[0].card() == studies[1].card()


def test_the_command_line_names_another_database_than_the_file(tiny_study):
    study = tiny_study(("[evaluation]", f'[storage]\nurl = "{URL}"\n\n[evaluation]'))
    assert load_study(str(study), storage="sqlite:///a.db").storage.url == "sqlite:///a.db"
    assert load_study(str(tiny_study())).storage is None


def test_an_address_can_name_variables_whose_values_are_encoded_within_it():
    variables = {"SECRET": "a@b/c{d}", "URL": URL}
    assert StorageSection(url="postgresql://me:${SECRET}@h/d").address(variables) == (
        "postgresql://me:a%40b%2Fc%7Bd%7D@h/d"
    )
    assert StorageSection(url="$URL").address(variables) == URL
    with pytest.raises(InputError, match=r"^\[storage\] url names the environment variable NONE, which isn't set\.$"):
        StorageSection(url="${NONE}").address(variables)
    with pytest.raises(InputError, match=r"^\[storage\] url: trials are kept in PostgreSQL"):
        StorageSection(url="${SECRET}").address(variables)


@pytest.mark.parametrize(
    "url", ["journal.log", "./optuna.log", "redis://host/0", "grpc://h:1", "oracle://h/d", "sqlite://"]
)
def test_what_keeps_no_tables_is_refused_by_one_sentence(tiny_study, run_command, url):
    code, output = run_command("run", tiny_study(), "--storage", url)
    assert code == 2
    assert output.startswith("trans4init: ")
    assert "[storage] url: " in output
    assert output.count("\n") == 1


def test_a_password_in_the_wrong_place_is_not_repeated(tiny_study, run_command):
    code, output = run_command("run", tiny_study(("[evaluation]", f'storage = "{URL}"\n[evaluation]')))
    assert (code, "s3cret" in output, output.count("\n")) == (2, False, 1)
    code, output = run_command("run", tiny_study(), "--storag", URL)
    assert (code, "s3cret" in output, output.count("\n")) == (2, False, 1)


def test_a_driver_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(FaultError, match=r"needs the package psycopg, .*: pip install 'trans4init\[postgres\]'\.$"),
        reached(URL, "s"),
    ):
        pass


def test_nobody_answers_is_a_sentence_before_any_run(tiny_study, run_command, tmp_path):
    pytest.importorskip("psycopg")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, output = run_command("run", tiny_study(), "--storage", f"postgresql://me:s3cret@127.0.0.1:{port}/trials")
    assert code == 1
    assert f"postgresql://me:***@127.0.0.1:{port}/trials can't be used: " in output
    assert output.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_reason_of_an_error_is_one_line_of_the_driver():
    inner = RuntimeError("s3cret")
    inner.__cause__ = OSError(f"\n  no way to {URL}.\nmore")
    assert why(inner) == "no way to postgresql://me:***@host/trials"


def test_a_file_that_a_study_names_holds_its_trials_and_is_locked(tiny_study, run_command, tmp_path):
    study = tiny_study()
    with reached(f"sqlite:///{tmp_path}/all.db", "tiny") as server:
        assert server is None
        code, output = run_command("run", study, "--storage", "sqlite:///all.db")
        assert code == 1
        name = f"process {os.getpid()} on {socket.gethostname()}"
        assert f"another trans4init is at work on all.db ({name}); wait for it" in output
    code, output = run_command("run", study, "--storage", "sqlite:///all.db")
    assert code == 0, output
    assert len(optuna.get_all_study_names(f"sqlite:///{tmp_path}/all.db")) == 5
    assert not (tmp_path / "runs" / "tiny" / "optuna.db").exists()
    (tmp_path / "all.db").write_bytes(b"nonsense" * 500)
    code, output = run_command("run", study, "--storage", "sqlite:///all.db")
    assert (code, output.count("can't be used: file is not a database")) == (1, 1)
    assert (tmp_path / "all.db").read_bytes() == b"nonsense" * 500  # it may be other studies' too


def test_whoever_is_refused_is_told_who_holds_a_folder_even_if_an_earlier_holder_was_killed(tmp_path):
    script = "import os, sys; from pathlib import Path; from trans4init.ablations.lock import held\n"
    killed = f"{script}with held(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed, tmp_path], check=False).returncode == -9
    assert (tmp_path / ".holder").exists()
    asks = f"{script}with held(Path(sys.argv[1])): pass"
    with held(tmp_path):
        asked = subprocess.run([sys.executable, "-c", asks, tmp_path], check=False, capture_output=True, text=True)
        assert f"(process {os.getpid()} on {socket.gethostname()}); wait for it" in asked.stderr
    assert not (tmp_path / ".holder").exists()
