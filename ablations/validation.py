"""One sentence out of a pydantic error: which key, what was expected, what was given, the nearest right word."""

from pydantic import BaseModel, ValidationError

from trans4init.ablations.errors import nearest

__all__ = ["sentence"]


def sentence(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """The first problem in `error` as one sentence; `where` is the file or thing that holds the keys."""
    # A mistyped key is also a missing one: the mistyped word is what helps.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    path = [str(part) for part in first["loc"]]
    section = f"[{'.'.join(path[:-1])}] " if len(path) > 1 else ""
    key = path[-1] if path else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        close = nearest(key, known)
        hint = f"did you mean {close!r}?" if close else f"the keys there are: {', '.join(known)}."
        text = f"{section}unknown key {key!r}; {hint}"
    elif first["type"] == "missing":
        text = f"{section}key {key!r} is missing."
    elif first["type"] == "value_error":
        whole_section = bool(_keys_at(model, path)) and bool(path)
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
    """The keys of the model that the path leads to; indices of lists are stepped over."""
    here: object = model
    for part in path:
        if part.isdigit() or not (isinstance(here, type) and issubclass(here, BaseModel)):
            continue
        field = here.model_fields.get(part)
        here = _inner_model(field.annotation) if field else None
    return sorted(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _inner_model(annotation: object) -> object:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_inner_model(argument) for argument in getattr(annotation, "__args__", ())]
    return next((found for found in inner if found is not None), None)
