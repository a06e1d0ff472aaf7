"""Read what each key of settings means from the docstring under it, when a message or a schema asks. Imports no torch.

Nothing is read when the settings are imported, so that commands start quickly.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

__all__ = ["first_sentence", "meanings"]


def meanings(settings: type) -> dict[str, str]:
    """Return the docstring under each attribute of a class, by the attribute's name; a subclass's own replaces it.

    A class whose source isn't there, such as one that was typed into an interpreter, has none.
    """
    found: dict[str, str] = {}
    for part in reversed(settings.__mro__):
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        if part.__module__.startswith("trans4init") and file is not None:
            found |= _in_file(file).get(part.__qualname__, {})
    return found


def first_sentence(meaning: str) -> str:
    """Return a meaning up to its first full stop before a capital letter, without that stop."""
    words = meaning.split()
    for count, (word, after) in enumerate(pairwise(words), 1):
        if word.endswith(".") and word not in _ABBREVIATIONS and after[0].isupper():
            return " ".join(words[:count]).removesuffix(".")
    return " ".join(words).removesuffix(".")


_ABBREVIATIONS = ("al.", "e.g.", "i.e.")
"""Words whose full stop ends no sentence. Read by `first_sentence`."""


@cache
def _in_file(file: str) -> dict[str, dict[str, str]]:
    """Return the docstrings under attributes in a source file: by the class's name, then by the attribute's."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    return {node.name: dict(_under_attributes(node.body)) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _under_attributes(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for line, below in pairwise(body):
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            yield line.target.id, " ".join(below.value.value.split())
