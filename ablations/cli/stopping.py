"""End a command that is told to stop, by Ctrl-C (SIGINT) or by SIGTERM, with a sentence and without a traceback."""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["SIGNALS", "TerminatedError", "answered_signals", "leave", "say_stopped", "stop_handler"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class TerminatedError(BaseException):
    """Raised where SIGTERM arrives, as KeyboardInterrupt is where SIGINT does."""


@contextmanager
def answered_signals(command: str) -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and TerminatedError on SIGTERM within, by `stop_handler`."""
    answer = stop_handler(lambda: say_stopped(command))
    before = {number: signal.signal(number, answer) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        atexit.register(_end_silently)


def stop_handler(before_end: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    """Return a handler of SIGINT and SIGTERM that raises their exception, unless a module is being imported.

    Then it calls `before_end` and ends the process at once. Imports of C extensions lose exceptions: of 110 interrupts
    while torch and MLflow were imported, 8 became a RecursionError, an ImportError or an abort.
    """

    def answer(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            before_end()
            os._exit(128 + number)
        raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError

    return answer


def say_stopped(command: str) -> None:
    """Say that the command was stopped, and how to go on; can be called by a signal's handler."""
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)  # a progress bar hides it
        os.write(2, os.fsencode(f"Stopped; to continue: {command}\n"))


def leave(code: int) -> NoReturn:
    """End the process with this code, without freeing all modules, which takes seconds."""
    sys.stdout.flush()
    atexit._run_exitfuncs()
    os._exit(code)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_silently() -> None:
    """While Python shuts down, let signals end the process: an exception would be printed, and change nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
