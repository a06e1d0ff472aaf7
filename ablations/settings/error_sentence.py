"""Turn a pydantic error into one sentence: the key, what was expected, what was given, the nearest right word."""

import json
from typing import Any, get_origin

from trans4init.ablations.errors import brief, nearest, unknown_name
from trans4init.ablations.settings.base import BaseModel, ValidationError

__all__ = ["sentence"]


def sentence(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Return the first problem in `error` as one sentence; `where` is the file or thing that holds the keys.

    A sentence on what the key means may follow.
    """
    if error.errors()[0]["type"] == "union_tag_invalid":
        context = error.errors()[0]["ctx"]
        known = str(context["expected_tags"]).replace("'", "").split(", ")
        return f"{where}: {unknown_name(str(error.errors()[0]['loc'][-1]), str(context['tag']), known)}"
    # A mistyped key is a missing one too: the mistyped word helps more, so it comes first.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    more = f" ({len(problems) - 1} more after this.)" if len(problems) > 1 else ""
    return f"{where}: {_first(problems[0], model)}{more}"


def _first(problem: Any, model: type[BaseModel]) -> str:
    """Return a problem as a sentence, without the file."""
    location = [str(part) for part in problem["loc"]]
    path = [part for place, part in enumerate(location) if not _is_tag(model, location[:place], part)]
    item = f", item {int(path.pop()) + 1}," if path and path[-1].isdigit() else ""
    section = f"[{'.'.join(path[:-1])}] " if len(path) > 1 else ""
    key = path[-1] if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{section}unknown key {brief(key)!r}; {_place(model, location[:-1], key)}"
    if problem["type"] == "value_error":
        whole_section = bool(_keys_at(model, location)) and bool(path)
        place = f"[{'.'.join(path)}] " if whole_section else f"{section}{key + ': ' if key else ''}"
        message = str(problem["ctx"]["error"])
        return f"{place}{message if message.endswith(('.', '?')) else message + '.'}"
    if problem["type"] == "tuple_type" and isinstance(problem["input"], dict):
        place = ".".join(path)
        return f"{place} is a list of sections: head each with [[{place}]], not with [{place}]."
    values, meaning = _expected(model, location)
    if problem["type"] == "missing":
        return f"{section}key {key!r} is missing: give {values}.{meaning}"
    if problem["type"] == "finite_number":
        values = values.replace("a number", "a finite number")
    text = f"{section}{key}{item} must be {values}, and {_given(problem['input'])} was given."
    if problem["type"] == "literal_error":
        close = nearest(str(problem["input"]), str(problem["ctx"]["expected"]).replace("'", "").split(" or "))
        text += f' Did you mean "{close}"?' if close else ""
    return text + meaning


def _given(value: object) -> str:
    """Return a value as it stands in a TOML file; of a section only that it is one."""
    if isinstance(value, dict):
        return "a section"
    return brief(json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else repr(value))


_SLIP = 0.8
"""How similar a key must be to one of its section to be taken for a slip, whatever other sections have."""


def _place(model: type[BaseModel], section: list[str], key: str) -> str:
    """Say which key was meant: a very similar name in this section, that name in another, or a similar one here."""
    known = _keys_at(model, section)
    if slip := nearest(key, known, cutoff=_SLIP):
        return f"did you mean {slip!r}?"
    here = ".".join(part for part in section if not part.isdigit())
    owners = [name for name in _sections_with(key, model) if name not in (here, here.rpartition(".")[0])]
    if owners:
        return f"it belongs {' or '.join(f'in [{name}]' if name else 'at the top of the file' for name in owners)}."
    close = nearest(key, known)
    return f"did you mean {close!r}?" if close else f"the keys there are: {', '.join(known)}."


def _sections_with(key: str, model: type[BaseModel], path: str = "") -> list[str]:
    """Return the sections that have such a key, in the order of the file; the top of the file is called ``."""
    own = [path] if key in model.model_fields else []
    inner = [
        section
        for name, field in model.model_fields.items()
        for part in _inner_models(field.annotation)
        for section in _sections_with(key, part, f"{path}.{name}" if path else name)
    ]
    return list(dict.fromkeys([*own, *inner]))


def _expected(model: type[BaseModel], location: list[str]) -> tuple[str, str]:
    """Return in words which values the key at a place takes, and a sentence on its meaning; empty if it has none."""
    from trans4init.ablations.settings.key_schema import key_schema  # pydantic's: the stand-in makes no such errors
    from trans4init.ablations.settings.key_words import values_in_words
    from trans4init.ablations.settings.meanings import first_sentence

    place = len(location) - 1
    inside = 0  # how deep in the key's own value the mistake is
    while not (owners := [m for m in _models_at(model, location[:place]) if location[place] in m.model_fields]):
        place, inside = place - 1, inside + 1
    schema = key_schema(owners[0])
    own, definitions = schema["properties"][location[place]], schema.get("$defs", {})
    value = own
    for _ in range(inside):
        value = value.get("items") or value.get("additionalProperties") or value
    text = first_sentence(own.get("description", ""))
    meaning = f" What it means: {text[0].lower() if text[1:2].islower() else text[0]}{text[1:]}." if text else ""
    return values_in_words(value, definitions), meaning


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys of the models that the path leads to."""
    return sorted({key for reached in _models_at(model, path) for key in reached.model_fields})


def _is_tag(model: type[BaseModel], path: list[str], part: str) -> bool:
    """Return whether the part after the path says which of several models is meant, rather than being a key."""
    reached = _models_at(model, path)
    names = {option.model_fields["name"].default for option in reached if "name" in option.model_fields}
    return len(reached) > 1 and part in names


def _models_at(model: type[BaseModel], path: list[str]) -> list[type[BaseModel]]:
    """Return the models that the path leads to; indices of lists are stepped over."""
    reached, tables = [model], False
    for place, part in enumerate(path):
        if part.isdigit():
            continue
        if _is_tag(model, path[:place], part):
            reached = [option for option in reached if option.model_fields["name"].default == part]
            continue
        fields = [field for option in reached if (field := option.model_fields.get(part))]
        if not fields and tables:
            tables = False  # the part is a key of the user's, such as a hyper-parameter's name
            continue
        reached = [inner for field in fields for inner in _inner_models(field.annotation)]
        tables = any(get_origin(field.annotation) is dict for field in fields)
    return reached


def _inner_models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _inner_models(argument)]
