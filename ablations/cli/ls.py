"""`trans4init ls`: list what can be named in commands and studies."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

__all__ = ["Ls"]


@dataclass(frozen=True)
class Ls:
    """List functions, nets, arms, tasks, recipes or studies."""

    kind: Positional[Literal["functions", "nets", "arms", "tasks", "recipes", "studies"] | None] = None
    """The list to print; all of them if left out."""

    def run(self, command: str) -> int:
        """Print the lists."""
        from rich.table import Table

        from trans4init.ablations.console import plain_console

        console = plain_console()
        lists = {
            "functions": _functions,
            "nets": _nets,
            "arms": _arms,
            "tasks": _tasks,
            "recipes": _recipes,
            "studies": _studies,
        }
        for title, rows in lists.items():
            if self.kind in (None, title):
                table = Table(title, "", box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
                for name, text in rows():
                    table.add_row(name, text)
                console.print(table)
                console.print()
        return 0


def _functions() -> list[tuple[str, str]]:
    from trans4init.ablations.functions import get_function, list_functions

    return [
        (name, f"slot {function.slot}; {function.source}")
        for name in list_functions()
        if (function := get_function(name))
    ]


def _nets() -> list[tuple[str, str]]:
    from trans4init.ablations.nets import list_nets, net_class

    return [(name, net_class(name).source) for name in list_nets()]


def _arms() -> list[tuple[str, str]]:
    from trans4init.ablations.slots.arms import get_arm, list_arms

    arms = map(get_arm, list_arms())
    return [(arm.name, f"holds {arm.holds}; training moves {arm.moves}") for arm in arms]


def _tasks() -> list[tuple[str, str]]:
    from trans4init.ablations.tasks import TASKS, list_tasks

    return [(name, (TASKS.get(name).__doc__ or "").splitlines()[0]) for name in list_tasks()]


def _recipes() -> list[tuple[str, str]]:
    from trans4init.ablations.training.recipe import load_recipe, shipped_recipes

    return [(name, load_recipe(name).about) for name in shipped_recipes()]


def _studies() -> list[tuple[str, str]]:
    from trans4init.ablations.study.spec import load_study, shipped_studies

    return [(name, load_study(name).question) for name in shipped_studies()]
