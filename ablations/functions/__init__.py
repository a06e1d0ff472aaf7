"""The functions of a Transformer that a net can stand in for. One class per function, in a file per family."""

from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function
from trans4init.ablations.registry import import_all

__all__ = ["Domain", "Function", "get_function", "list_functions"]

import_all(__name__, __path__)


def get_function(name: str) -> Function:
    """Return the function called `name`, or `my/file.py:name`; raises InputError with the nearest name."""
    function = FUNCTIONS.get(name)()
    function.located = name
    return function


def list_functions() -> list[str]:
    """Return the names of all functions."""
    return FUNCTIONS.names()
