"""Parse the words of a command line by tyro; what tyro says of a mistake in a box is printed as one sentence."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from trans4init.ablations.errors import unknown_name, without_passwords

__all__ = ["parse"]


def parse(words: list[str], commands: Any, names: Sequence[str], program: str, description: str) -> Any:
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
            print(f"trans4init: {without_passwords(_sentence(errors.getvalue()))}", file=sys.stderr)
        raise


def _sentence(box: str) -> str:
    """Return the text of tyro's error box, up to its first rule, in one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]]
    if lines and _is_rule(lines[0]):  # below the title, where the terminal's encoding has no boxes
        del lines[0]
    rules = [index for index, line in enumerate(lines) if _is_rule(line)]
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


def _is_rule(line: str) -> bool:
    return line.startswith("──") or (line.startswith("--") and not line.strip("-"))
