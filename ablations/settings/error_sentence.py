"""One sentence out of a pydantic error: which key, what was expected, what was given, the nearest right word."""

from trans4init.ablations.errors import nearest, unknown_name
from trans4init.ablations.settings.base import BaseModel, ValidationError

__all__ = ["sentence"]


def sentence(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """The first problem in `error` as one sentence; `where` is the file or thing that holds the keys."""
    # A mistyped key is also a missing one: the mistyped word is what helps.
    if error.errors()[0]["type"] == "union_tag_invalid":
        context = error.errors()[0]["ctx"]
        known = str(context["expected_tags"]).replace("'", "").split(", ")
        return f"{where}: {unknown_name(str(error.errors()[0]['loc'][-1]), str(context['tag']), known)}"
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    whole = [str(part) for part in first["loc"]]
    path = [part for place, part in enumerate(whole) if not _is_tag(model, whole[:place], part)]
    section = f"[{'.'.join(path[:-1])}] " if len(path) > 1 else ""
    key = path[-1] if path else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, whole[:-1])
        close = nearest(key, known)
        hint = f"did you mean {close!r}?" if close else f"the keys there are: {', '.join(known)}."
        text = f"{section}unknown key {key!r}; {hint}"
    elif first["type"] == "missing":
        text = f"{section}key {key!r} is missing."
    elif first["type"] == "value_error":
        whole_section = bool(_keys_at(model, whole)) and bool(path)
        place = f"[{'.'.join(path)}] " if whole_section else f"{section}{key + ': ' if key else ''}"
        said = str(first["ctx"]["error"])
        text = f"{place}{said if said.endswith(('.', '?')) else said + '.'}"
    else:
        expected = first["msg"][0].lower() + first["msg"][1:]
        text = f"{section}{key}: {expected}, and {first['input']!r} was given."
        if first["type"] == "literal_error":
            close = nearest(str(first["input"]), str(first["ctx"]["expected"]).replace("'", "").split(" or "))
            text += f" Did you mean {close!r}?" if close else ""
    more = f" ({len(problems) - 1} more after this.)" if len(problems) > 1 else ""
    return f"{where}: {text}{more}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys of the model that the path leads to."""
    return sorted({key for here in _models_at(model, path) for key in here.model_fields})


def _is_tag(model: type[BaseModel], path: list[str], part: str) -> bool:
    """Whether the part after the path says which of several models is meant, rather than a key."""
    here = _models_at(model, path)
    return len(here) > 1 and part in {one.model_fields["name"].default for one in here if "name" in one.model_fields}


def _models_at(model: type[BaseModel], path: list[str]) -> list[type[BaseModel]]:
    """The models that the path leads to; indices of lists are stepped over."""
    here = [model]
    for place, part in enumerate(path):
        if part.isdigit():
            continue
        if _is_tag(model, path[:place], part):
            here = [one for one in here if one.model_fields["name"].default == part]
            continue
        fields = [field for one in here if (field := one.model_fields.get(part))]
        here = [inner for field in fields for inner in _inner_models(field.annotation)]
    return here


def _inner_models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _inner_models(argument)]
