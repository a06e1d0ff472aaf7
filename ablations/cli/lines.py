"""Lines in, lines out: from standard input or a person at a terminal, with the time each took on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from trans4init.ablations.errors import InputError

__all__ = ["answer_lines"]


def answer_lines(answer: Callable[[str], tuple[str, int]], lines: Iterable[str] | None = None) -> int:
    """Print the answer to every line, and to standard error its tokens per second; the exit code.

    `answer` gives the text and its number of tokens. At a terminal a line that it can't answer is only complained of.
    """
    if lines is None and sys.stdin is None:
        raise InputError("there is no standard input to read lines from.")
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
        print(f"{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s", file=sys.stderr)
    return 0


def _readable(line: str) -> str:
    """The line; raises InputError where it holds bytes that are no characters."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the line is not UTF-8 (after {error.start} characters).") from None
    return line


def _asked_for() -> Iterator[str]:
    """Lines from a person, until the end of input."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
