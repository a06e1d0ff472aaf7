"""Name the blocks of a grid by what differs between them: function, task, model, and other settings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trans4init.ablations.study.spec import OF_CELLS, StudySpec

__all__ = ["block_labels"]

_AXES = ("function", "task", "model")


def block_labels(specs: Sequence[StudySpec], own: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a label for each block, such as `gelu · text · 2x64`; an empty one for a grid of one block.

    own: for each block the labels that the file gives its task and its model, by axis. Where two tasks or two models
    would be called alike, they are followed by the settings that they differ in, or else by a number.
    """
    values = [spec.public() for spec in specs]
    functions, models = [spec.function for spec in specs], [f"{s.model.layers}x{s.model.width}" for s in specs]
    tasks = [spec.task.name for spec in specs]
    others = [{key: of[key] for key in of if key not in (*_AXES, *OF_CELLS)} for of in values]
    parts = [
        _named(functions, functions, [{} for _ in specs], [""] * len(specs)),
        _named(tasks, [repr(spec.task) for spec in specs], [of["task"] for of in values], _of(own, "task")),
        _named(models, [repr(spec.model) for spec in specs], [of["model"] for of in values], _of(own, "model")),
        [", ".join(said) for said in _differences(others)],
    ]
    return _numbered([" · ".join(filter(None, of_block)) for of_block in zip(*parts, strict=True)])


def _of(own: Sequence[Mapping[str, str]], axis: str) -> list[str]:
    return [labels.get(axis, "") for labels in own]


def _named(
    names: Sequence[str], told: Sequence[str], values: Sequence[Mapping[str, Any]], own: Sequence[str]
) -> list[str]:
    """Return what each block's function, task or model is called: empty where all blocks have the same one.

    told: what is the same for the same one alone. values: its settings. own: its label; empty for none.
    """
    if len(set(told)) == 1:
        return [""] * len(told)
    labels = [label or name for label, name in zip(own, names, strict=True)]
    by_label: dict[str, dict[str, Mapping[str, Any]]] = {}
    for label, one, of in zip(labels, told, values, strict=True):
        by_label.setdefault(label, {})[one] = of
    called: dict[tuple[str, str], str] = {}
    for label, alike in by_label.items():
        said = _numbered([" ".join([label, *different]) for different in _differences(list(alike.values()))])
        called |= {(label, one): text for one, text in zip(alike, said, strict=True)}
    return [called[label, one] for label, one in zip(labels, told, strict=True)]


def _differences(values: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return for each of several groups of settings what it has where they differ, such as `steps 500`."""
    flat = [_flat(of) for of in values]
    keys = list(dict.fromkeys(key for of in flat for key in of))
    differing = [key for key in keys if any(of.get(key) != flat[0].get(key) for of in flat)]
    last = Counter(key.rpartition(".")[2] for key in differing)
    short = {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in differing}
    return [[f"{short[key]} {_written(of[key])}" for key in differing if key in of] for of in flat]


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted keys, without those that are not set."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}{key}.")
        elif value is not None:
            flat[f"{path}{key}"] = value
    return flat


def _numbered(labels: Sequence[str]) -> list[str]:
    """Return the labels, those that are there more than once followed by a number."""
    counts, numbers, numbered = Counter(labels), Counter[str](), []
    for label in labels:
        numbers[label] += 1
        numbered.append(f"{label} ({numbers[label]})" if counts[label] > 1 else label)
    return numbered


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
