"""Say in words which values a key takes, from its JSON schema. Imports no torch."""

import json
from typing import Any

__all__ = ["resolved", "values_in_words"]

_SIMPLE = {"boolean": "true or false", "string": "a text", "integer": "a whole number", "number": "a number"}
_FEW_KEYS = 3
"""A section with at most so many keys is described by them."""


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definition that a `$ref` points to, or the schema itself."""
    reference = schema.get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else schema


def values_in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return which values a key takes, such as `a whole number from 1 to 999`.

    schema: the key's. definitions: the `$defs` that its references point to; one with a title is called so.
    """
    target = resolved(schema, definitions)
    kind = target.get("type")
    if "title" in target:
        return str(target["title"])
    options = [option for option in target.get("anyOf") or target.get("oneOf") or () if list(option) != ["required"]]
    if options:  # others are rules about the keys of a section
        if any(resolved(option, definitions).get("type") == "object" for option in options):
            return "a section"
        return _either([values_in_words(option, definitions) for option in options])
    if "const" in target or "enum" in target:
        values = [target["const"]] if "const" in target else target["enum"]
        return _either([json.dumps(value, ensure_ascii=False) for value in values])
    if kind == "array":
        least = f" of at least {target['minItems']}" if target.get("minItems") else ""
        each = values_in_words(target["items"], definitions)
        return "a list of sections" if each.startswith("a section") else f"a list{least}, each {each}"
    if kind == "object":
        return _section(target, definitions)
    return _SIMPLE.get(str(kind), "any value") + _range(target)


def _section(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    keys, values = list(schema.get("properties", {})), schema.get("additionalProperties")
    if not keys and isinstance(values, dict):
        return f"a section, each of its keys {values_in_words(values, definitions)}"
    return f"a section with {_either(keys, 'and')}" if 0 < len(keys) <= _FEW_KEYS else "a section"


def _range(schema: dict[str, Any]) -> str:
    """Return the bounds of a number, with a space before them; empty where there are none."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    lower = f"of at least {_number(low)}" if low is not None else f"above {_number(above)}" if above is not None else ""
    upper = (
        f"of at most {_number(high)}" if high is not None else f"below {_number(below)}" if below is not None else ""
    )
    both = " and ".join(bound for bound in (lower, upper) if bound)
    return f" {both}" if both else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _either(options: list[str], word: str = "or") -> str:
    """Return the options, each once, with commas and a last `or` between them."""
    different = list(dict.fromkeys(options))
    return f" {word} ".join([", ".join(different[:-1]), different[-1]] if len(different) > 1 else different)
