"""The recorded commit is that of the sources, whatever repository the environment names."""

import shutil
import subprocess

import pytest

from trans4init.bench.comparing import sides
from trans4init.reports import machine


@pytest.fixture
def repositories(tmp_path):
    """Two folders with a commit each."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for name in ("ours", "other"):
        subprocess.run(["git", "init", "-q", str(tmp_path / name)], env=machine.git_environment(), check=True)
        subprocess.run(
            ["git", *identity, "commit", "-q", "--allow-empty", "-m", name],
            cwd=tmp_path / name,
            env=machine.git_environment(),
            check=True,
        )
    return tmp_path / "ours", tmp_path / "other"


def test_git_is_asked_about_our_own_files(repositories, monkeypatch):
    ours, other = repositories
    commit = machine._git(ours, "rev-parse", "HEAD")
    assert commit != machine._git(other, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert machine._git(ours, "rev-parse", "HEAD") == commit
    monkeypatch.chdir(ours)
    assert sides._git("rev-parse", "HEAD") == commit
