"""Make a net of each size that a study's file lists for it. Imports torch for nets that it doesn't know alone."""

import itertools
from collections.abc import Mapping
from typing import Any, get_origin

from trans4init.ablations.errors import InputError

__all__ = ["OPTIONS", "nets_of_each_size", "options_of"]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "deep-set": ("summed", "hidden"),
    "fourier": ("frequencies",),
    "fourier-mlp": ("hidden", "frequencies", "fixed"),
    "linear": (),
    "mlp": ("hidden", "activation"),
    "mlp-gelu": ("hidden",),
    "mlp-relu": ("hidden",),
    "piecewise-linear": ("pieces",),
    "rational": ("numerator", "denominator"),
    "siren": ("hidden", "omega"),
    "spline": ("intervals",),
}
"""The options of each net's size. Nets that aren't here are asked, which imports torch: seconds, in commands that need
no torch otherwise."""
_LISTED = tuple((net, "hidden") for net in ("fourier-mlp", "mlp", "mlp-gelu", "mlp-relu", "siren"))
"""The options that are lists themselves, each with its net."""
_NAMES = ("name", "label")


def nets_of_each_size(net: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a net for every size: for each combination of the options that have several values.

    An option has several values if it is a list, or a list of lists where the net's option is itself a list. Such nets
    get a label, the net's followed by the values that tell them apart: `piecewise-linear-8`, `mlp-relu-8x8`.
    Raises InputError with `where` for an option without a value, or twice with the same.
    """
    several = {key: value for key, value in net.items() if key not in _NAMES and _has_several(net, key, value)}
    for key, values in several.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            problem = "has no value" if not values else "has a value twice"
            raise InputError(f"{where}: [[nets]] {key} of net {net.get('name')!r} {problem}.")
    if not several:
        return [dict(net)]
    called = net.get("label") or net.get("name")
    return [
        {**net, **dict(zip(several, values, strict=True)), "label": "-".join([str(called), *map(_written, values)])}
        for values in itertools.product(*several.values())
    ]


def options_of(net: str) -> tuple[str, ...]:
    """Return the names of the options of a net's size; raises InputError for a net that there isn't."""
    if net in OPTIONS:
        return OPTIONS[net]
    from trans4init.ablations.nets import net_class

    return tuple(net_class(net).Size.model_fields)


def _has_several(net: Mapping[str, Any], key: str, value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return not _is_listed(net.get("name"), key) or any(isinstance(entry, list) for entry in value)


def _is_listed(name: Any, option: str) -> bool:
    """Return whether an option of a net is itself a list; of a net that isn't there, that all lists are."""
    if isinstance(name, str) and name in OPTIONS:
        return (name, option) in _LISTED
    from trans4init.ablations.nets import net_class

    try:
        field = net_class(str(name)).Size.model_fields.get(option)
    except InputError:
        return True
    return field is None or get_origin(field.annotation) in (tuple, list)


def _written(value: Any) -> str:
    """Write a value of an option in a label: 8, 8x8, 0.5."""
    if isinstance(value, list):
        return "x".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
