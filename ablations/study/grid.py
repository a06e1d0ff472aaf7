"""Load a study's file as the blocks that it asks for: one function, task, model and training each. Imports no torch."""

import copy
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from trans4init.ablations.data.text import NAMED_SOURCES
from trans4init.ablations.errors import InputError, nearest
from trans4init.ablations.settings.extends import merged, read_extended
from trans4init.ablations.settings.toml_file import checked, set_value
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm
from trans4init.ablations.study.labels import block_labels
from trans4init.ablations.study.net_sizes import nets_of_each_size
from trans4init.ablations.study.sections import NetChoice
from trans4init.ablations.study.spec import OF_CELLS, StudySpec, checked_name, shipped_studies

__all__ = ["Block", "Grid", "load_grid", "load_study"]

_AXES = ("function", "task", "model")
"""The keys of a file that may be lists: a block is made of each combination of their entries."""
_LABELLED = ("task", "model")
"""Those of them whose tables may have a label of their own."""
_CELLS, _EXTENDS = "cell", "extends"
_SHARED = {"name", "question", "storage"}
"""What a cell can't change."""


@dataclass(frozen=True)
class Block:
    """Is a study within a grid: its cells are compared with one another, and with no cell of another block."""

    label: str
    """What differs from the other blocks, such as `gelu · text`; empty in a grid of one block."""
    spec: StudySpec


@dataclass(frozen=True)
class Grid:
    """Is what a study's file asks for: one block, or several that share name, folder and report."""

    name: str
    question: str
    blocks: tuple[Block, ...]

    @staticmethod
    def of(spec: StudySpec) -> "Grid":
        """Return the grid of a single study."""
        return Grid(spec.name, spec.question, (Block("", spec),))


@dataclass(frozen=True)
class _Draft:
    """Is a block before it is checked: the content of its file, its own labels, and the place that it comes from."""

    content: dict[str, Any]
    labels: Mapping[str, str]
    where: str
    cell: int | None = None
    """The number of its `[[cell]]`, from 1; None in a file without cells."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Which of several tasks or models it has, in words, by axis."""


class Changes(TypedDict, total=False):
    """Names what a command may change of a study's file; None, like a key that isn't there, changes nothing."""

    seeds: int | None
    trials: int | None
    tunings: int | None
    data: Path | None
    function: str | None
    storage: str | None


def load_grid(name_or_path: str, **changed: Unpack[Changes]) -> Grid:
    """Load the study of that name or in that file, with what the command line changes in all of its blocks.

    A file or a named source in `data` makes a study of its own, called after both, and so does a `function` other than
    the study's. Raises InputError with the file, the key, what was expected and the nearest word.
    """
    data, function = changed.get("data"), changed.get("function")
    asked = {
        "evaluation.seeds": changed.get("seeds"),
        "tuning.trials": changed.get("trials"),
        "tuning.times": changed.get("tunings"),
        "task.source": data and (str(data) if str(data) in NAMED_SOURCES else str(data.absolute())),
        "function": function,
        "storage.url": changed.get("storage"),
    }
    changes = {key: value for key, value in asked.items() if value is not None}
    content, path = read_extended("study", name_or_path, shipped_studies())
    grid = _grid(content, changes, name_or_path, path.parent)
    if function is not None:
        own = _grid(content, {}, name_or_path, path.parent)
        if {block.spec.function for block in own.blocks} != {function}:
            grid = _called_after(grid, f"--function {function}", function)
    if data is not None:
        grid = _called_after(grid, f"--data {data}", data.stem, "; rename the file")
    return grid


def load_study(name_or_path: str, **changed: Unpack[Changes]) -> StudySpec:
    """Load the study of that name or in that file as `load_grid` does; raises InputError for one of several blocks."""
    grid = load_grid(name_or_path, **changed)
    if len(grid.blocks) > 1:
        raise InputError(f"{name_or_path}: a study of one block was expected, and this one has {len(grid.blocks)}.")
    return grid.blocks[0].spec


def _grid(content: Mapping[str, Any], changes: Mapping[str, Any], file: str, folder: Path) -> Grid:
    """Return the grid of a file's content; a relative path in it is relative to `folder`."""
    drafts = [draft for cell in _cells(content, file) for draft in _product(cell, changes, file)]
    together: dict[str, list[tuple[_Draft, StudySpec]]] = {}
    for draft in drafts:
        spec = _checked(draft, content, file)
        spec = spec.model_copy(update={"task": spec.task.located(folder)})
        together.setdefault(_conditions(spec), []).append((draft, spec))
    specs = [_one_block(alike, file) for alike in together.values()]
    labels = block_labels(specs, [alike[0][0].labels for alike in together.values()])
    return Grid(specs[0].name, specs[0].question, tuple(map(Block, labels, specs)))


def _cells(content: Mapping[str, Any], file: str) -> list[_Draft]:
    """Return the file's content with the changes of each `[[cell]]`, or as it is in a file without cells."""
    base = {key: value for key, value in content.items() if key != _CELLS}
    cells = content.get(_CELLS)
    for part in (base, *(cells if isinstance(cells, list) else ())):
        if isinstance(part, dict) and "pairs" in part:
            raise InputError(f"{file}: key 'pairs' can't be set: name arm and net in [[cell]]s.")
    unknown = [key for key in base if key not in StudySpec.model_fields]
    for key in unknown:
        if (close := nearest(key, [*StudySpec.model_fields, _CELLS, _EXTENDS])) in (_CELLS, _EXTENDS):
            raise InputError(f"{file}: unknown key {key!r}; did you mean {close!r}?")
    if _CELLS not in content:
        return [_Draft(base, {}, file)]
    cells = content[_CELLS]
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, dict) for cell in cells):
        raise InputError(f"{file}: cell: tables were expected, each headed [[cell]], that say what differs.")
    return [_cell(base, cell, number, f"{file}: [[cell]] {number}") for number, cell in enumerate(cells, 1)]


def _cell(base: Mapping[str, Any], cell: Mapping[str, Any], number: int, where: str) -> _Draft:
    """Return the base study with a cell's changes: its `arm` and its `net` are the only ones beside the reference."""
    for key in _SHARED & cell.keys():
        raise InputError(f"{where}: {key}: the cells of a study share it; set it above all of them.")
    changes = {key: value for key, value in cell.items() if key not in ("arm", "net")}
    content = merged(base, changes)
    if "arm" in cell:
        arms = cell["arm"] if isinstance(cell["arm"], list) else [cell["arm"]]
        content["arms"] = [REFERENCE_ARM, *(arm for arm in arms if arm != REFERENCE_ARM)]
        content["baselines"] = changes.get("baselines", [])
    if "net" in cell:
        content["nets"] = _nets_called(cell["net"], content.get("nets", []), where)
    return _Draft(content, {}, where, number)


def _nets_called(net: Any, nets: Any, where: str) -> list[Any]:
    """Return the nets that a cell's `net` is about: those of the study with that label or name, or one of its own."""
    if isinstance(net, dict):
        return [net]
    if not isinstance(net, str):
        raise InputError(f"{where}: net: the name of a net or a table was expected, and {net!r} was given.")
    several = [each for of in nets if isinstance(of, dict) for each in nets_of_each_size(of, where)]
    found = [each for each in several if each.get("label") == net] or [
        each for each in several if each.get("name") == net
    ]
    return found or [{"name": net}]


def _product(draft: _Draft, changes: Mapping[str, Any], file: str) -> list[_Draft]:
    """Return a draft for every combination of the functions, tasks and models that a draft lists."""
    content = copy.deepcopy(draft.content)
    for axis in _AXES:
        if isinstance(content.get(axis), list) and len(content[axis]) == 1:
            [content[axis]] = content[axis]
    if isinstance(content.get("nets"), list):
        of_sizes = [nets_of_each_size(net, draft.where) if isinstance(net, dict) else [net] for net in content["nets"]]
        content["nets"] = list(itertools.chain(*of_sizes))
    for key, value in changes.items():
        if key == "task.source" and isinstance(content.get("task"), list):
            raise InputError(f"{draft.where}: --data is for a study of one task, and this one has several.")
        set_value(content, key, value, file)
    axes = {axis: content[axis] for axis in _AXES if isinstance(content.get(axis), list)}
    for axis, entries in axes.items():
        if not entries:
            raise InputError(f"{draft.where}: {axis}: at least one was expected, and an empty list was given.")
    drafts = []
    for places in itertools.product(*(range(len(entries)) for entries in axes.values())):
        chosen = {axis: axes[axis][place] for axis, place in zip(axes, places, strict=True)}
        several = {
            axis: f"{axis} {place + 1} of {len(axes[axis])}"
            for axis, place in zip(axes, places, strict=True)
            if len(axes[axis]) > 1
        }
        own, labels = _without_labels(content | chosen, draft.where)
        drafts.append(_Draft(own, labels, draft.where, draft.cell, several))
    return drafts


def _without_labels(content: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the content without the labels of its task and model, and these labels."""
    labels: dict[str, str] = {}
    for axis in _LABELLED:
        table = content.get(axis)
        if isinstance(table, dict) and "label" in table:
            if not isinstance(table["label"], str) or not table["label"]:
                raise InputError(f"{where}: [{axis}] label: a word was expected, and {table['label']!r} was given.")
            labels[axis] = table["label"]
            content = content | {axis: {key: value for key, value in table.items() if key != "label"}}
    return content, labels


def _checked(draft: _Draft, content: Mapping[str, Any], file: str) -> StudySpec:
    """Return the study of a draft. An error says which task or model it is about, and which cell.

    One that a cell shares with the study below all cells names none.
    """
    try:
        return checked(StudySpec, draft.content, draft.where)
    except InputError as error:
        problem = str(error).removeprefix(draft.where)
        if draft.cell is not None and _first(problem) == _first(_problem_without_cells(content)):
            raise InputError(f"{file}{problem}") from None
        place = next((place for axis, place in draft.places.items() if problem.startswith(f": [{axis}")), "")
        raise InputError(f"{draft.where}{', ' * bool(place)}{place}{problem}") from None


def _problem_without_cells(content: Mapping[str, Any]) -> str:
    """Return what is wrong with the study below all cells, which may be incomplete; an empty string if nothing is."""
    try:
        checked(StudySpec, {key: value for key, value in content.items() if key != _CELLS}, "")
    except InputError as error:
        return str(error)
    return ""


def _first(problem: str) -> str:
    """Return a problem without the number of those after it."""
    return re.sub(r" \(\d+ more after this\.\)$", "", problem)


def _conditions(spec: StudySpec) -> str:
    """Return what tells a block from others, as text: its conditions, with the place of its data."""
    return json.dumps(spec.conditions(repr(spec.task)), sort_keys=True)


def _one_block(alike: Sequence[tuple[_Draft, StudySpec]], file: str) -> StudySpec:
    """Return the study of all cells that share their conditions: its arms and nets are those that they name.

    Raises InputError where two cells differ in what a block has once, and where the file lists something twice.
    """
    (first, spec), *others = alike
    for draft, other in others:
        if draft.cell is None or draft.cell == first.cell:
            raise InputError(f"{first.where}: the same function, task and model are listed twice.")
        for key in StudySpec.model_fields.keys() - set(OF_CELLS):
            if getattr(other, key) != getattr(spec, key):
                raise InputError(
                    f"{file}: [[cell]] {first.cell} and {draft.cell} train alike and so are one block, but differ in "
                    f"[{key}]; give both the same."
                )
    if first.cell is None:
        return spec
    return _of_cells([of for _, of in alike], file)


def _of_cells(specs: Sequence[StudySpec], file: str) -> StudySpec:
    """Return a study with the cells of all of `specs`, which differ in arms, nets and baselines alone."""
    pairs, nets, baselines = dict[tuple[str, str], None](), dict[str, NetChoice](), dict[Any, None]()
    for spec in specs:
        own = [(cell.arm, cell.net) for cell in spec.cells() if cell.function == spec.function]
        pairs |= dict.fromkeys(own)
        baselines |= dict.fromkeys((baseline.function, baseline.arm) for baseline in spec.baselines)
        for net in spec.nets:
            if net.called in {name for _, name in own} and nets.setdefault(net.called, net) != net:
                raise InputError(f"{file}: net {net.called!r} has two sizes in one block; give one of them a label.")
    arms = list(dict.fromkeys(arm for arm, _ in pairs))
    names = dict.fromkeys(name for spec in specs for name in spec.net_names())
    everything = {(arm, net) for arm in arms for net in (names if get_arm(arm).uses_net else ("",))}
    content = specs[0].model_dump(mode="json", exclude_unset=True) | {
        "arms": arms,
        "nets": [net.model_dump(mode="json") for net in nets.values()],
        "baselines": [{"function": function, "arm": arm} for function, arm in baselines],
        "pairs": list(pairs) if everything != pairs.keys() else [],
    }
    made = checked(StudySpec, content, file)
    return made.model_copy(
        update={key: getattr(specs[0], key) for key in StudySpec.model_fields.keys() - set(OF_CELLS)}
    )


def _called_after(grid: Grid, option: str, word: str, advice: str = "") -> Grid:
    """Return the grid with a word after its name; raises InputError with the option if that makes no name."""
    try:
        name = checked_name(f"{grid.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', word)}")
    except ValueError as error:
        raise InputError(f"{option}: {error}{advice}.") from None
    blocks = [Block(block.label, block.spec.model_copy(update={"name": name})) for block in grid.blocks]
    return Grid(name, grid.question, tuple(blocks))
