"""`trans4init ls`: list what can be named in commands and studies."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

__all__ = ["Ls"]


@dataclass(frozen=True)
class Ls:
    """List functions, nets, arms, tasks, recipes or studies, or the keys of study files and recipes."""

    kind: Positional[Literal["functions", "nets", "arms", "tasks", "recipes", "studies"] | None] = None
    """The list to print; all of them if left out. With --keys or --schema: studies (if left out) or recipes."""
    keys: bool = False
    """Print every key of a study file or a recipe: which values it takes, its default, what it means."""
    schema: bool = False
    """Print the JSON schema of a study file or a recipe, which editors read."""
    markdown: bool = False
    """Print the keys as a page in Markdown."""

    def run(self, command: str) -> int:
        """Print the lists, the keys or the schema."""
        if self.keys or self.schema or self.markdown:
            return self._print_keys()
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

    def _print_keys(self) -> int:
        """Print what a study file or a recipe may hold."""
        from trans4init.ablations.errors import InputError

        if self.kind not in (None, "studies", "recipes"):
            raise InputError(f"--keys and --schema are for studies or recipes, not for {self.kind}.")
        if self.schema and (self.keys or self.markdown):
            raise InputError("--schema prints JSON: leave out --keys and --markdown.")
        from trans4init.ablations.cli.keys import markdown, print_sections, sections
        from trans4init.ablations.cli.schemas import recipe_schema, study_file_schema, study_schema

        schema = recipe_schema() if self.kind == "recipes" else study_schema()
        if self.schema:
            import json

            of_file = schema if self.kind == "recipes" else study_file_schema()
            print(json.dumps(of_file, indent=2, ensure_ascii=False))
        elif self.markdown:
            print(markdown(schema, f"trans4init ls {self.kind or 'studies'} --keys --markdown"), end="")
        else:
            print_sections(sections(schema))
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
    from trans4init.ablations.study.grid import load_grid
    from trans4init.ablations.study.spec import shipped_studies

    return [(name, load_grid(name).question) for name in shipped_studies()]
