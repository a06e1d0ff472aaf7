"""Errors for the person at the keyboard: one sentence with what was given, what was expected, the nearest word."""

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FaultError", "InputError", "nearest", "shown", "unknown_name"]


class InputError(ValueError):
    """Raised for bad input. The message is one sentence; commands print it and exit with 2."""


class FaultError(Exception):
    """Raised where the machine is at fault: a full disk, a busy study. One sentence; commands exit with 1."""


def shown(path: Path) -> str:
    """Return a path as a person would type it in the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Make the error for a name of a `kind` that is not among the known ones."""
    names = sorted(known)
    close = nearest(name, names)
    hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(names)}."
    return InputError(f"unknown {kind} {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`; None where nothing is close."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return close[0] if close else None
