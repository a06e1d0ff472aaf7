"""Make a command independent of what its process inherits: closed or full streams, and variables that break it."""

import io
import os
import re
import sys
from typing import TextIO

from trans4init.ablations.errors import InputError

__all__ = ["check_environment", "open_streams", "output_error"]

_LEAST_SIZES = {"COLUMNS": 20, "LINES": 2}
"""The smallest terminal that these variables can claim: in a smaller one help takes forever, and tables are empty."""
_FOREIGN = ("MPLBACKEND", "PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_PLUGINS", "PYTHON_TYRO_")
"""How variables begin that are meant for other programs, and change or end this one by Matplotlib, pytest or tyro."""


class _Stream(io.TextIOWrapper):
    """Writes to a standard stream. From the first error on, such as that of a closed pipe, what is written is dropped.

    Errors are caught here, outside of the buffer: a signal that arrives while Python code writes for the buffer would
    make it write the same once more.
    """

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write a text, or drop it; return its length."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Write, or drop, what is in the buffer."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let the stream, and what its buffer still holds, go to /dev/null."""
        self.error = self.error or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()


def open_streams() -> None:
    """Let standard output and error take every character, and let no error in writing them end the command.

    A closed one is opened on /dev/null: otherwise a file that is opened later has its number, and gets what is printed.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _opened(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(sys.stderr, 2)


def _opened(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream on the descriptor in place of Python's, which is None where the descriptor was closed."""
    binary = io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False))
    encoding = stream.encoding if stream else "utf-8"
    return _Stream(binary, encoding, errors="backslashreplace", line_buffering=True)


def output_error() -> OSError | None:
    """Return the first error in writing standard output, up to now; None if there was none."""
    sys.stdout.flush()
    return sys.stdout.error if isinstance(sys.stdout, _Stream) else None


def check_environment() -> None:
    """Leave out of the environment what would make a command fail; raises InputError for what can't be left out."""
    for name, least in _LEAST_SIZES.items():
        size = os.environ.get(name, "")
        if not (re.fullmatch("[0-9]{1,6}", size) and int(size) >= least):
            os.environ.pop(name, None)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    if sys.flags.optimize > 1:
        raise InputError("PYTHONOPTIMIZE=2 or -OO strips the help of the commands; leave it out, or take 1 or -O.")
    if any(option.startswith("error") for option in sys.warnoptions):
        raise InputError("PYTHONWARNINGS=error or -W error makes errors of warnings in torch and MLflow; leave it out.")
    if os.path.expanduser("~") == "~":
        raise InputError("HOME isn't set, and the system knows no home of this user; set HOME to a folder.")
    try:
        os.getcwd()
    except OSError:
        raise InputError("the current folder was deleted; change to another.") from None
