"""The keys of a study file or a recipe as tables, made from its JSON schema."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trans4init.ablations.settings.key_words import resolved, values_in_words

__all__ = ["Key", "Section", "markdown", "print_sections", "sections"]

Schema = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """Describes a key of a section: in words what it takes, what it is where it is left out, and what it means."""

    name: str
    values: str
    default: str
    """As it stands in a file; `required`, or empty where the meaning says what happens without the key."""
    meaning: str


@dataclass(frozen=True)
class Section:
    """Describes a section of a file."""

    heading: str
    """As in a file, such as `[training]`; of several kinds with the name that tells them apart."""
    meaning: str
    keys: tuple[Key, ...]


def sections(schema: Schema) -> list[Section]:
    """Return the sections of a file in their order; the keys at the top of the file are the first one's."""
    return list(_sections(schema, "", "", schema["$defs"]))


def markdown(schema: Schema, command: str) -> str:
    """Return the sections as a page in Markdown that names the command it was made by."""
    lines = [f"# {schema['title']}", "", f"Made by `{command}`. A key may be left out where its default isn't"]
    lines += ["*required*. `trans4init ls` lists the names of functions, nets, arms and tasks."]
    for section in sections(schema):
        lines += ["", f"## {section.heading}", "", section.meaning, ""]
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for key in section.keys:
            default = key.default if key.default in ("", "required") else f"`{key.default}`"
            cells = (f"`{key.name}`", key.values, default, key.meaning)
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def print_sections(found: list[Section]) -> None:
    """Print the sections as tables."""
    from rich.table import Table

    from trans4init.ablations.console import plain_console

    console = plain_console()
    for section in found:
        console.print(section.heading, style="bold")
        console.print(section.meaning)
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("key", no_wrap=True)
        for title in ("value", "default", "meaning"):
            table.add_column(title)
        for key in section.keys:
            table.add_row(key.name, key.values, key.default, key.meaning)
        console.print(table)
        console.print()


def _sections(schema: Schema, path: str, label: str, definitions: Schema) -> Iterator[Section]:
    """Yield a section with its keys, then the sections inside it. path: its dotted name. label: it as a heading."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    keys = [
        Key(name, values_in_words(key, definitions), _default(key, name in required), key.get("description", ""))
        for name, key in properties.items()
    ]
    yield Section(label or "The top of the file", schema.get("description", ""), tuple(keys))
    inside: dict[str, list[str]] = {}
    for name, key in properties.items():
        shared = key.get("$ref", name)
        inside.setdefault(shared, []).append(name)
    for names in inside.values():
        name = names[0] if len(names) == 1 else "KEY"
        yield from _inner(properties[names[0]], f"{path}.{name}" if path else name, definitions)


def _inner(key: Schema, path: str, definitions: Schema) -> Iterator[Section]:
    """Yield the sections that a key can hold; none where it holds a value, or what its title says is enough."""
    target = resolved(key, definitions)
    if "title" in target:
        return
    opened, closed = "[", "]"
    if target.get("type") == "array":
        target, opened, closed = resolved(target["items"], definitions), "[[", "]]"
    heading = f"{opened}{path}{closed}"
    options = [resolved(option, definitions) for option in target.get("oneOf", [])]
    options = [option for option in options if "properties" in option]  # a rule about keys is none
    for option in options:
        name = option["properties"]["name"]
        called = json.dumps(name["const"]) if "const" in name else '"FILE.py:NAME"'
        yield from _sections(option, path, f"{heading} with name = {called}", definitions)
    if target.get("type") == "object" and target.get("properties"):
        yield from _sections(target, path, heading, definitions)


def _default(key: Schema, required: bool) -> str:
    if required:
        return "required"
    return json.dumps(key["default"], ensure_ascii=False) if "default" in key else ""
