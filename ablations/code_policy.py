"""Say whose code may be run: what a user names on the command line, and what a study's file has beside it or below.

Files of results, checkpoints and fitted nets are data. One that names code has it run only where it was run already, by
this process, or where the user allows it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from trans4init.ablations.errors import InputError, shown

__all__ = ["check_code", "check_code_beside", "code_policy", "named_by_data"]


_OWN = Path(__file__).resolve().parent
"""The folder of the project's own code."""


@dataclass(frozen=True)
class _Policy:
    allowed: bool = False
    say: Callable[[str], None] | None = None
    data: str = ""
    """What names the code, if that is data."""


_USUAL = _Policy()
_POLICY = ContextVar("_POLICY", default=_USUAL)


@contextmanager
def code_policy(*, allowed: bool, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Within this context, tell `say` whose code a TOML file runs, before it is run.

    allowed: whether code may be run wherever it is, and whatever names it: `--allow-code`.
    """
    with _set(_Policy(allowed, say)):
        yield


@contextmanager
def named_by_data(what: object, *, allowed: bool = False) -> Iterator[None]:
    """Within this context, code is named by a file that is data, called `what`: none is run that wasn't run before.

    allowed: whether it is run even so, as where `code_policy` allows it.
    """
    policy = _POLICY.get()
    with _set(replace(policy, allowed=policy.allowed or allowed, data=str(what))):
        yield


@contextmanager
def _set(policy: _Policy) -> Iterator[None]:
    token = _POLICY.set(policy)
    try:
        yield
    finally:
        _POLICY.reset(token)


def check_code_beside(path: Path, files: list[str]) -> None:
    """Tell whose code a TOML file names; raise InputError for what is neither beside it nor below, unless allowed.

    Nothing is said of the project's own.
    """
    policy, folder = _POLICY.get(), path.parent.resolve()
    files = [file for file in files if not Path(file).resolve().is_relative_to(_OWN)]
    for file in files:
        if not policy.allowed and not Path(file).resolve().is_relative_to(folder):
            raise InputError(
                f"{shown(path)} names the code {file}, which is neither beside it nor below: read it, and run it with "
                "--allow-code."
            )
    if files and policy.say is not None:
        policy.say(f"{shown(path)} runs the code of {', '.join(files)}.")


def check_code(file: Path) -> None:
    """Raise InputError for a file of code that was not run before, if data name it and the user didn't allow that."""
    policy = _POLICY.get()
    if policy.data and not policy.allowed and not file.is_relative_to(_OWN):
        raise InputError(
            f"{policy.data} names the code {shown(file)}, which nothing here has run: read it, and run it with "
            "--allow-code."
        )
