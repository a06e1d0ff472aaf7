"""Makes the console that commands print on."""

from typing import Any

from rich.console import Console

__all__ = ["plain_console"]


def plain_console(**options: Any) -> Console:
    """Return a console that prints text as it is, whatever in a name or path rich would read as a style or an emoji.

    options: those of rich's Console.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)
