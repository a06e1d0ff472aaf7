"""Print the structure of a checkout: `python tests/house.py [FOLDER]`.

A floor is a top-level folder. A room is a folder below a floor, or a file that lies flat on one. An arrow goes from a
room to another whose modules it imports. Imports are read from the syntax tree, those inside functions too; nothing of
the project is run.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FLOORS = ("kernels", "reports", "ablations", "bench")
MAY_IMPORT = {
    "kernels": {"kernels"},
    "reports": {"reports"},
    "ablations": {"ablations", "kernels", "reports"},
    "bench": set(FLOORS),
}


@dataclass(frozen=True)
class House:
    """Lists the modules of a checkout by dotted name (without `trans4init.`), and which modules each imports."""

    files: Mapping[str, Path]
    imports: Mapping[str, frozenset[str]]

    def room(self, module: str) -> str:
        """The room that a module lies in: its folder, or the file itself where it lies flat on a floor."""
        path = self.files[module]
        return str(path.parent if len(path.parts) > 2 else path)

    def rooms(self) -> set[str]:
        """All rooms."""
        return {self.room(module) for module in self.files}

    def arrows(self) -> dict[str, set[str]]:
        """For each room, the other rooms that it imports from."""
        arrows: dict[str, set[str]] = {room: set() for room in self.rooms()}
        for module, imported in self.imports.items():
            arrows[self.room(module)] |= {self.room(name) for name in imported} - {self.room(module)}
        return arrows

    def upward(self) -> list[str]:
        """Every import of a floor that the importing floor does not stand on."""
        return [
            f"{self.files[module]} imports {name}"
            for module, imported in self.imports.items()
            for name in sorted(imported)
            if name.partition(".")[0] not in MAY_IMPORT[module.partition(".")[0]]
        ]

    def unused(self) -> list[str]:
        """Modules that no other module names: what a person or a tool starts, and what a registry imports."""
        imported = {name for names in self.imports.values() for name in names}
        return sorted(set(self.files) - imported)


def read_house(root: Path) -> House:
    """Read every Python file of the four floors below `root`."""
    paths = [
        path.relative_to(root)
        for floor in FLOORS
        for path in sorted((root / floor).rglob("*.py"))
        if "__pycache__" not in path.parts
    ]
    files = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    imports = {module: frozenset(_imports(root / path, files) - {module}) for module, path in files.items()}
    return House(files, imports)


def _imports(path: Path, modules: Iterable[str]) -> set[str]:
    """The modules of the project that a file imports anywhere in it."""
    known, imported = set(modules), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("trans4init.") in known else node.module for name in inside]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        imported |= {name.removeprefix("trans4init.") for name in names if name.startswith("trans4init.")}
    return imported & known


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, each sorted; by Tarjan's algorithm."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in graph:
        if node not in order:
            visit(node)
    return groups


def main(root: Path) -> None:
    """Print how many rooms and arrows each floor has, every circle, and every import that goes up."""
    house = read_house(root)
    arrows = house.arrows()
    for floor in FLOORS:
        rooms = sorted(room for room in arrows if Path(room).parts[0] == floor)
        print(f"{floor}: {len(rooms)} rooms")
    print(f"in all: {len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows")
    lines = sum(len((root / path).read_text(encoding="utf-8").splitlines()) for path in house.files.values())
    print(f"{len(house.files)} files, {lines:,} lines")
    for kind, graph in (("modules", house.imports), ("rooms", arrows)):
        print(f"circles of {kind}: {circles(graph) or 'none'}")
    print(f"imports that go up: {house.upward() or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
