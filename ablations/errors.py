"""Errors for the person at the keyboard: one sentence with what was given, what was expected and the nearest word."""

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FaultError", "InputError", "nearest", "shown", "unknown_name"]


class InputError(ValueError):
    """Bad input. The message is one sentence; commands print it and exit with 2."""


class FaultError(Exception):
    """The machine let us down: a full disk, a busy study. The message is one sentence; commands exit with 1."""


def shown(path: Path) -> str:
    """A path as a person would type it from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def unknown_name(kind: str, given: str, known: Iterable[str]) -> InputError:
    """The error for a `given` name of a `kind` that is not among the `known` ones."""
    names = sorted(known)
    close = nearest(given, names)
    hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(names)}."
    return InputError(f"unknown {kind} {given!r}; {hint}")


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that `given` most probably stands for, None where nothing is close."""
    close = difflib.get_close_matches(given.lower(), list(known), n=1, cutoff=0.5)
    return close[0] if close else None
