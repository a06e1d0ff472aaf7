"""Errors for the person at the keyboard: one sentence with what was given, what was expected, the nearest word."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FaultError", "InputError", "brief", "nearest", "shown", "unknown_name", "without_passwords"]

_PASSWORDS = re.compile(r"(?<=://)([^\s:@/?#]*):\S*(?=@)|((?:password|passwd|sslpassword)=)[^\s&#'\"]+", re.IGNORECASE)
"""The passwords in addresses of databases: between a user's name and the last @, and among the options."""


_LONGEST = 120


class InputError(ValueError):
    """Raised for bad input. The message is one sentence; commands print it and exit with 2."""


class FaultError(Exception):
    """Raised where the machine is at fault: a full disk, a busy study. One sentence; commands exit with 1."""


def brief(text: str) -> str:
    """Return a text that somebody gave, cut in its middle if it is too long for a sentence."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 4 :]}"


def shown(path: Path) -> str:
    """Return a path as a person would type it in the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def without_passwords(text: str) -> str:
    """Return a text in which every password of an address, as in scheme://user:password@host, is `***`."""
    return _PASSWORDS.sub(lambda match: f"{match[2]}***" if match[2] else f"{match[1]}:***", text)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Make the error for a name of a `kind` that is not among the known ones."""
    names = sorted(known)
    close = nearest(name, names)
    hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(names)}."
    return InputError(f"unknown {kind} {brief(name)!r}; {hint}")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name that is most similar to `name`; None where nothing is close.

    cutoff: the least similarity, from 0 to 1.
    """
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return close[0] if close else None
