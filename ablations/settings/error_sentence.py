"""Turn a pydantic error into one sentence: the key, what was expected, what was given, the nearest right word."""

from typing import get_origin

from trans4init.ablations.errors import nearest, unknown_name
from trans4init.ablations.settings.base import BaseModel, ValidationError

__all__ = ["sentence"]


def sentence(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Return the first problem in `error` as one sentence; `where` is the file or thing that holds the keys."""
    if error.errors()[0]["type"] == "union_tag_invalid":
        context = error.errors()[0]["ctx"]
        known = str(context["expected_tags"]).replace("'", "").split(", ")
        return f"{where}: {unknown_name(str(error.errors()[0]['loc'][-1]), str(context['tag']), known)}"
    # A mistyped key is a missing one too: the mistyped word helps more, so it comes first.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    location = [str(part) for part in first["loc"]]
    path = [part for place, part in enumerate(location) if not _is_tag(model, location[:place], part)]
    section = f"[{'.'.join(path[:-1])}] " if len(path) > 1 else ""
    key = path[-1] if path else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        close = nearest(key, known)
        hint = f"did you mean {close!r}?" if close else f"the keys there are: {', '.join(known)}."
        text = f"{section}unknown key {key!r}; {hint}"
    elif first["type"] == "missing":
        text = f"{section}key {key!r} is missing."
    elif first["type"] == "value_error":
        whole_section = bool(_keys_at(model, location)) and bool(path)
        place = f"[{'.'.join(path)}] " if whole_section else f"{section}{key + ': ' if key else ''}"
        message = str(first["ctx"]["error"])
        text = f"{place}{message if message.endswith(('.', '?')) else message + '.'}"
    else:
        expected = first["msg"][0].lower() + first["msg"][1:]
        text = f"{section}{key}: {expected}, and {first['input']!r} was given."
        if first["type"] == "literal_error":
            close = nearest(str(first["input"]), str(first["ctx"]["expected"]).replace("'", "").split(" or "))
            text += f" Did you mean {close!r}?" if close else ""
    more = f" ({len(problems) - 1} more after this.)" if len(problems) > 1 else ""
    return f"{where}: {text}{more}"


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
