"""Answer lines from standard input or a person at a terminal, with the time of each on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from trans4init.ablations.cli.environment import output_error
from trans4init.ablations.errors import InputError

__all__ = ["answer_lines"]


def answer_lines(answer: Callable[[str], tuple[str, int]], lines: Iterable[str] | None = None) -> int:
    """Print the answer to every line, and its tokens per second to standard error; return the exit code.

    `answer` returns the text and its number of tokens. If it raises InputError, the error is printed and the next line
    asked for at a terminal; elsewhere it is raised.
    """
    if lines is None and sys.stdin is None:
        raise InputError("standard input is closed: there are no lines to read.")
    asked = lines is None and sys.stdin.isatty()
    for line in (_asked_for() if asked else (line.rstrip("\n") for line in sys.stdin)) if lines is None else lines:
        start = time.perf_counter()
        try:
            text, tokens = answer(_readable(line))
        except InputError as error:
            if not asked:
                raise
            print(f"trans4init: {error}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        print(text, flush=True)
        if output_error() is not None:  # such as that of a closed pipe: nobody reads the other answers
            break
        print(f"{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s", file=sys.stderr)
    return 0


def _readable(line: str) -> str:
    """Return the line; raises InputError if it holds bytes that are not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the line is not UTF-8 (after {error.start} characters).") from None
    return line


def _asked_for() -> Iterator[str]:
    """Yield lines from a person, until the end of input."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
