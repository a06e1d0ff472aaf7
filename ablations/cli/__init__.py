"""The command line, `trans4init COMMAND …`: a file per command, which imports torch and the like only when it runs."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from trans4init.ablations.cli.environment import check_environment, open_streams, output_error
from trans4init.ablations.cli.stopping import SIGNALS, TerminatedError, answered_signals, leave, say_stopped
from trans4init.ablations.errors import FaultError, InputError, without_passwords

__all__ = ["execute", "main"]

_DESCRIPTION = """What happens to accuracy and to throughput when a function inside a Transformer is replaced by a
small trained neural network, frozen or fine-tuned."""
_COMMANDS = (
    "ls",
    "fit",
    "run",
    "report",
    "train",
    "translate",
    "generate",
    "bench",
    "pack",
    "sync",
    "reproduce",
    "ui",
    "doctor",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C, 143 by SIGTERM."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["bench"]:
        # Another program, since bench imports this floor. -P: so that a folder `kernels` in the current one isn't
        # imported. Its `execute` answers the signals, which are blocked until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "trans4init.bench.cli", *words[1:]])
    execute(words, _commands, _COMMANDS, "trans4init", _DESCRIPTION)


def execute(
    words: list[str], commands: Callable[[], Any], names: Sequence[str], program: str, description: str
) -> NoReturn:
    """Run the command that the words name, and exit with the codes of `main`.

    commands: imports and returns a class, or a union of classes that are commands called by `names`.
    """
    words_again = shlex.join([*program.split(), *map(without_passwords, words)])
    again = without_passwords(os.environ.get("TRANS4INIT_INVOKED_AS", "")) or words_again
    try:
        with answered_signals(again):
            open_streams()
            code = _run(words, commands, names, program, description, again)
    except (KeyboardInterrupt, TerminatedError) as stop:
        say_stopped(again)
        code = 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
    error = output_error()
    if error is not None and not isinstance(error, BrokenPipeError):  # a reader, such as `head`, may have had enough
        code = _print_error(FaultError(f"standard output can't be written: {error.strerror}."), code or 1)
    if code > 128:
        leave(code)
    sys.exit(code)


def _run(
    words: list[str], commands: Callable[[], Any], names: Sequence[str], program: str, description: str, again: str
) -> int:
    """Run the command and return its exit code; print what is wrong."""
    try:
        check_environment()
        from trans4init.ablations.cli.parsing import parse

        code: int = parse(words, commands(), names, program, description).run(again)
    except SystemExit as ended:
        return int(ended.code or 0)
    except InputError as error:
        return _print_error(error, 2)
    except FaultError as error:
        return _print_error(error, 1)
    return code


def _commands() -> Any:
    from trans4init.ablations.cli.commands import Command

    return Command


def _print_error(error: Exception, code: int) -> int:
    """Print the error, and return the exit code."""
    print(f"trans4init: {without_passwords(str(error))}", file=sys.stderr)
    return code
