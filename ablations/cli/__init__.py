"""The command line, `trans4init COMMAND …`: a file per command, which imports torch and the like only when it runs."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import tyro

from trans4init.ablations.cli.bench import Bench
from trans4init.ablations.cli.doctor import Doctor
from trans4init.ablations.cli.fit import Fit
from trans4init.ablations.cli.generate import Generate
from trans4init.ablations.cli.ls import Ls
from trans4init.ablations.cli.report import Report
from trans4init.ablations.cli.run import Run
from trans4init.ablations.cli.sync import Sync
from trans4init.ablations.cli.train import Train
from trans4init.ablations.cli.translate import Translate
from trans4init.ablations.cli.ui import Ui
from trans4init.ablations.errors import FaultError, InputError, unknown_name

__all__ = ["execute", "main"]

_DESCRIPTION = """What happens to accuracy and to throughput when a function inside a Transformer is replaced by a
small trained neural network, frozen or fine-tuned."""

Command = Annotated[
    Ls | Fit | Run | Report | Train | Translate | Generate | Bench | Sync | Ui | Doctor, tyro.conf.AvoidSubcommands
]
_COMMANDS = ("ls", "fit", "run", "report", "train", "translate", "generate", "bench", "sync", "ui", "doctor")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["bench"]:
        # A process, since bench imports this floor. -P: so that a folder `kernels` in the current one isn't imported.
        child = subprocess.Popen([sys.executable, "-P", "-m", "trans4init.bench.cli", *words[1:]])
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the child answers Ctrl-C
                sys.exit(child.wait())
    execute(words, Command, _COMMANDS, "trans4init", _DESCRIPTION)


def execute(words: list[str], commands: Any, names: Sequence[str], program: str, description: str) -> NoReturn:
    """Run the one of `commands` (a union of classes) that the words name, and exit with the codes of `main`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold any bytes, and a terminal lack characters
    again = os.environ.get("TRANS4INIT_INVOKED_AS") or shlex.join([*program.split(), *words])
    try:
        code = _parse(words, commands, names, program, description).run(again)
    except InputError as error:
        sys.exit(_print_error(error, 2))
    except FaultError as error:
        sys.exit(_print_error(error, 1))
    except KeyboardInterrupt:
        print(f"Stopped; to continue: {again}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code)


def _parse(words: list[str], commands: Any, names: Sequence[str], program: str, description: str) -> Any:
    """Return the command that the words name. For bad words, print tyro's boxed error as one sentence, and exit."""
    if names and words and not words[0].startswith("-") and words[0] not in names:
        raise unknown_name("command", words[0], names)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                commands,
                prog=program,
                description=description,
                args=words or (["--help"] if names else []),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as error:
        if error.code:
            print(f"trans4init: {_sentence(errors.getvalue())}", file=sys.stderr)
        raise


def _sentence(box: str) -> str:
    """Return the text of tyro's error box, up to its first rule, in one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    rules = [index for index, line in enumerate(lines) if line.startswith("──")]
    hints = [line for line in lines[rules[0] + 1 :] if line] if rules else []
    head = " ".join(lines[: rules[0]] if rules else lines).strip()
    head = head.split(" Got errors:")[0]
    choice = re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.?", head)
    if choice:
        choices = sorted(word for word in re.findall(r"'([^']*)'", choice[3]) if word != "None")
        head = str(unknown_name(choice[2].removeprefix("--"), choice[1], choices))
    if hints and hints[0].startswith("Perhaps you meant"):
        head += f"; did you mean {hints[1].split()[0]}?"
    return head


def _print_error(error: Exception, code: int) -> int:
    """Print the error, and return the exit code."""
    print(f"trans4init: {error}", file=sys.stderr)
    return code
