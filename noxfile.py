"""Sessions: `nox -s tests | faults | mutants | gpu | cluster | lint | typing | bench | ablate | report | ui`.

Words after `--` go to the command.
"""

import shlex
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2.9"

GROUPS = nox.project.dependency_groups
PYPROJECT = nox.project.load_toml("pyproject.toml")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, without a GPU: a process per core, and what measures time when the others are done."""
    install(session, "-e", ".", *GROUPS(PYPROJECT, "test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    together = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal", "-m", "not alone")
    session.run("pytest", *together, env={"OMP_NUM_THREADS": "1"})
    session.run("pytest", "-m", "alone")


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, damage and interrupt hundreds of times, where `tests` does a few times (an hour)."""
    install(session, "-e", ".", *GROUPS(PYPROJECT, "test"))
    together = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
    words = session.posargs or ("tests/faults",)
    session.run("pytest", *together, *words, env={"OMP_NUM_THREADS": "1", "TRANS4INIT_FAULTS": "full"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant known faults one by one: do the tests fail? `nox -s mutants [-- NAME …]`, by default all (half an hour)."""
    install(session, "-e", ".", *GROUPS(PYPROJECT, "test"))
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session
def calibration(session: nox.Session) -> None:
    """How often a study's words are wrong, by 2000 small trainings: `nox -s calibration [-- FOLDER]` (half an hour)."""
    install(session, "-e", ".")
    folder = session.posargs or ["runs/calibration"]
    session.run("python", "-m", "trans4init.ablations.study.calibration", *folder)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need a GPU; fails where torch can't use one."""
    install(session, "-e", ".", *GROUPS(PYPROJECT, "test"))
    session.run("python", "-c", "import sys, torch; sys.exit(not torch.cuda.is_available() and 'torch can use no GPU')")
    session.run("pytest", "-m", "gpu", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """The tests that start a PostgreSQL server or a Ray cluster of their own; fails where one isn't installed."""
    install(session, "-e", ".", *GROUPS(PYPROJECT, "test", "cluster"))
    there = "shutil.which('postgres') or glob.glob('/usr/lib/postgresql/*/bin/postgres')"
    session.run("python", "-c", f"import glob, shutil, sys; sys.exit(not ({there}) and 'PostgreSQL is not installed')")
    session.run("pytest", "-m", "cluster", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install(session, *GROUPS(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Types, against an installed wheel: what a user's checker sees."""
    install(session, ".", *GROUPS(PYPROJECT, "typing"))
    config = Path("pyproject.toml").resolve()
    packages = [
        word for floor in ("ablations", "bench", "kernels", "reports") for word in ("-p", f"trans4init.{floor}")
    ]
    with session.chdir(session.create_tmp()):  # away from the sources, so that the wheel is what is checked
        session.run("mypy", "--config-file", str(config), *packages)


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory beside peers: `nox -s bench [-- --quick] [-- --suite NAME]`, by default all suites."""
    trans4init(session, "bench", *session.posargs)


@nox.session
def ablate(session: nox.Session) -> None:
    """A study, from data to verdict: `nox -s ablate [-- STUDY …]`, by default first-look."""
    named = session.posargs[:1] and not session.posargs[0].startswith("-")
    trans4init(session, "run", *([] if named else ["first-look"]), *session.posargs)


@nox.session
def report(session: nox.Session) -> None:
    """The report of a study: `nox -s report [-- DIR]`; then the documents' figures, from the published results."""
    if session.posargs or Path("runs/first-look").exists():
        trans4init(session, "report", *(session.posargs or ["runs/first-look"]))
    else:
        install(session, "-e", ".")
    session.run("python", "-P", "-m", "trans4init.reports.documents.fill")


@nox.session
def ui(session: nox.Session) -> None:
    """MLflow's pages on the runs, until Ctrl-C."""
    trans4init(session, "ui", *session.posargs)


def trans4init(session: nox.Session, *words: str) -> None:
    """Install the project and run its command; what it prints names the nox session that goes on."""
    install(session, "-e", ".")
    again = ["nox", "-s", session.name, *(["--", *session.posargs] if session.posargs else [])]
    # Ctrl-C is the command's to answer: it finishes the runs under way.
    session.run("trans4init", *words, env={"TRANS4INIT_INVOKED_AS": shlex.join(again)}, interrupt_timeout=None)


def install(session: nox.Session, *what: str) -> None:
    """Install within the pinned set, which was resolved for Python 3.11."""
    session.install("-c", "constraints.txt", *what)
