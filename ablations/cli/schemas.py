"""The JSON schemas of study files and recipes: the settings' own, and the names that may stand in them."""

import json
import re
from typing import Any, get_args

from trans4init.ablations.data.config import TaskConfig
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.nets import list_nets, net_class
from trans4init.ablations.settings.key_schema import DIALECT, key_schema
from trans4init.ablations.settings.key_words import resolved
from trans4init.ablations.settings.toml_file import IN_FILE
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm, list_arms
from trans4init.ablations.study.optuna_names import PRUNERS, SAMPLERS, Names
from trans4init.ablations.study.space import NET, tunable
from trans4init.ablations.study.spec import StudySpec
from trans4init.ablations.training.recipe import Recipe

__all__ = ["recipe_schema", "study_file_schema", "study_schema"]

Schema = dict[str, Any]

_IN_FILE: Schema = {"type": "string", "pattern": f"^{IN_FILE.pattern}$"}
"""What is in a file of the user's."""


def study_file_schema() -> Schema:
    """Return the JSON schema of a study file as it may stand: with lists that make a grid, cells, and another's keys.

    A file that extends another one may lack any key, so that its keys are listed but not checked.
    """
    whole = study_schema()
    header = {key: whole.pop(key) for key in ("$schema", "title")}
    definitions, keys = whole.pop("$defs"), whole["properties"]
    for axis in ("function", "task", "model"):
        described = {"description": keys[axis].pop("description", "")}
        keys[axis] = {"anyOf": [keys[axis], {"type": "array", "minItems": 1, "items": keys[axis]}], **described}
    for name, net in definitions.items():
        if name.startswith("net-") and name != "net-in-file":
            options = net["properties"]
            options |= {key: _or_several(option) for key, option in options.items() if key not in ("name", "label")}
    for name in [*(reference["$ref"].rpartition("/")[2] for reference in _options(keys["task"])), "ModelSize"]:
        definitions[name]["properties"]["label"] = {"type": "string", "description": "What reports call it in a grid."}
    table = {"type": "object"}
    keys["cell"] = {"type": "array", "items": table, "description": "Cells that say what differs, in place of lists."}
    extended = {
        **keys,
        "extends": {"type": "string", "description": "A study whose keys count where this has none."},
    }
    free = {key: {"description": of.get("description", "")} for key, of in extended.items()}
    names = {"propertyNames": {"enum": list(extended)}, "properties": free}
    in_parts = {"anyOf": [{"required": ["extends"]}, {"required": ["cell"]}]}
    return {**header, "if": in_parts, "then": names, "else": whole, "$defs": definitions}


def _options(axis: Schema) -> list[Schema]:
    """Return the kinds of table that an axis of a grid can be, each a reference."""
    return list(axis["anyOf"][0]["oneOf"])


def _or_several(option: Schema) -> Schema:
    """Allow an option of a net, or a list of values, each of which makes a net."""
    return {"anyOf": [option, {"type": "array", "minItems": 1, "items": option}]}


def study_schema() -> Schema:
    """Return the JSON schema of a study of one function, task and model: each key once, as tables of keys show them."""
    schema = _with_header(key_schema(StudySpec), "The keys of a study file")
    keys, definitions = schema["properties"], schema["$defs"]
    del keys["pairs"]  # which cells of a file make
    _name_tasks(keys["task"], definitions)
    _name_functions(definitions)
    functions = _named(definitions, "function", "the name of a function", list_functions())
    keys["function"] |= functions
    arms = _named(definitions, "arm", "the name of an arm", list_arms())
    keys["arms"] |= {"items": arms, "uniqueItems": True, "contains": {"const": REFERENCE_ARM}}
    without_net = [arm for arm in list_arms() if not get_arm(arm).uses_net]
    baseline = definitions["Baseline"]["properties"]
    baseline["function"] |= functions
    baseline["arm"] |= _named(definitions, "arm-without-net", "the name of an arm without a net", without_net)
    keys["nets"]["items"] = _nets(definitions)
    _name_tuned_settings(definitions)
    _name_metrics(schema, definitions)
    return schema


def recipe_schema() -> Schema:
    """Return the JSON schema of a recipe."""
    schema = _with_header(key_schema(Recipe), "The keys of a recipe")
    _name_tasks(schema["properties"]["task"], schema["$defs"])
    _name_functions(schema["$defs"])
    return schema


def _with_header(schema: Schema, title: str) -> Schema:
    return {"$schema": DIALECT, "title": title, **schema}


def _named(definitions: Schema, key: str, title: str, names: list[str]) -> Schema:
    """Define a name out of several, or of something in a file of the user's; return the reference to it."""
    definitions[key] = {"title": f"{title}, or FILE.py:NAME", "anyOf": [{"enum": names}, _IN_FILE]}
    return {"$ref": f"#/$defs/{key}"}


def _name_functions(definitions: Schema) -> None:
    """Let each function of a model be one that fits its slot."""
    by_slot: dict[str, list[str]] = {}
    for name in list_functions():
        by_slot.setdefault(get_function(name).slot or "", []).append(name)
    keys = definitions["ModelSize"]["properties"]
    for slot, names in by_slot.items():
        key = slot.replace("-", "_")
        if key in keys:
            del keys[key]["type"]
            keys[key] |= _named(definitions, f"function-{slot}", f"the name of a function of slot {slot}", names)


def _task_configs() -> list[type[TaskConfig]]:
    """Return the settings of every shipped task; that of a task in a user's file is known to the file alone."""
    union = StudySpec.model_fields["task"].annotation
    configs = [get_args(option)[0] for option in get_args(union)]
    return [config for config in configs if config is not TaskConfig]


def _name_tasks(task: Schema, definitions: Schema) -> None:
    """Tell the tasks apart by their names. A section without a name is one of task `text`."""
    default = StudySpec.model_fields["task"].default.name
    for option in task["oneOf"]:
        definition = resolved(option, definitions)
        name = definition["properties"]["name"]
        if "const" not in name:
            definition |= {"additionalProperties": True, "description": "Names a task in a file: FILE.py:NAME."}
            name |= _IN_FILE
        if name.get("const") != default:
            name.pop("default", None)
            definition["required"] = sorted({*definition.get("required", []), "name"})


def _nets(definitions: Schema) -> Schema:
    """Define each net with the options of its size; return the schema of any net."""
    options = []
    for name in list_nets():
        kind = net_class(name)
        schema = key_schema(kind.Size)
        definitions.update(schema.pop("$defs", {}))
        known = {**definitions["NetChoice"]["properties"]["name"], "const": name}
        label = definitions["NetChoice"]["properties"]["label"]
        schema["properties"] = {"name": known, "label": label, **schema.get("properties", {})}
        for key, on_reals in kind.size_on_reals.items():
            option = schema["properties"][key]
            usual = json.dumps(option.pop("default"))
            real = json.dumps(on_reals)
            option["description"] += f" Left out: {usual}, and {real} in place of a function of one real number."
        definitions[f"net-{name}"] = schema | {"required": ["name"]}
        options.append({"$ref": f"#/$defs/net-{name}"})
    in_file = definitions.pop("NetChoice")
    in_file["properties"]["name"] |= _IN_FILE
    definitions["net-in-file"] = in_file | {"description": "Names a net in a file: FILE.py:NAME."}
    return {"oneOf": [*options, {"$ref": "#/$defs/net-in-file"}]}


def _name_tuned_settings(definitions: Schema) -> None:
    """Let the search space have a range for each setting that can be tuned, with the setting's meaning."""
    definitions["Range"]["oneOf"] = [{"required": ["low", "high"]}, {"required": ["choices"]}]
    space = definitions["TuningSection"]["properties"]["space"]
    allowed, owners = space["additionalProperties"], {"training": "TrainingConfig", "model": "ModelSize"}
    ranges: dict[str, Schema] = {}
    within: dict[str, dict[str, Schema]] = {section: {} for section in owners}
    for name in tunable():
        section, _, key = name.rpartition(".")
        section = section or "training"
        meaning = definitions[owners[section]]["properties"][key]["description"]
        ranges[name] = within[section][key] = {**allowed, "description": meaning}
    space["properties"] = {
        **ranges,
        NET: {**allowed, "description": "The kind of the fitted net."},
        "nets": {"type": "object", "additionalProperties": allowed, "description": "Sizes of the nets."},
    }
    space["properties"]["nets"]["title"] = "a range of each option"
    for section, keys in within.items():
        table = {"type": "object", "properties": keys, "additionalProperties": False}
        described = {"description": f"Settings of [{section}].", "title": "a range of each setting"}
        space["properties"][section] = table | described
    space["patternProperties"] = {r"^nets\.": allowed, r"^training\.": allowed}
    space["additionalProperties"] = False
    tuning = definitions["TuningSection"]["properties"]
    _name_choices(tuning["sampler"], SAMPLERS)
    _name_choices(tuning["pruner"], PRUNERS)


def _name_choices(key: Schema, names: Names) -> None:
    """Let a key name one of Optuna's classes, alone or in a table with its options."""
    known = [names.own, *names.classes, *names.classes.values()]
    tables = [
        {
            "type": "object",
            "properties": {"name": {"enum": [short, *filter(None, [names.classes.get(short)])]}}
            | {option: {} for option in names.options.get(short, ())},
            "required": ["name"],
            "additionalProperties": False,
        }
        for short in (names.own, *names.classes)
    ]
    default = names.own
    description = key["description"]
    key.clear()
    key |= {"anyOf": [{"enum": known}, *tables], "default": default, "description": description}
    key["title"] = f"the name of a {names.kind}, or a table of it and its options"


def _name_metrics(schema: Schema, definitions: Schema) -> None:
    """Let a study be about its task's metrics, which that section lists; those of a task in a file are unknown."""
    names: dict[str, None] = {}
    for config in _task_configs():
        found = [metric.name for metric in config.model_validate({}).metrics]
        names |= dict.fromkeys(found)
        definitions[config.__name__]["description"] += f" Metrics: {', '.join(f'`{name}`' for name in found)}."
    title = "the name of one of the task's metrics"
    definitions["metric"] = {"title": title, "type": "string", "examples": list(names)}
    for owner in ("EvaluationSection", "TargetSection"):
        key = definitions[owner]["properties"]["metric"]
        del key["type"]
        key["$ref"] = "#/$defs/metric"
    schema["allOf"] = [_metrics_of(config) for config in _task_configs()]


def _metrics_of(config: type[TaskConfig]) -> Schema:
    """Return the rule that a study of a task is about the task's metrics."""
    metrics = config.model_validate({}).metrics
    judged = [metric.name for metric in metrics if metric.higher_is_better is not None]
    evaluation = {
        "metric": _one_of([metric.name for metric in metrics]),
        "margins": {"propertyNames": _one_of(judged)},
        "target": {"properties": {"metric": _one_of(judged)}},
    }
    name = config.model_fields["name"].default
    chosen: Schema = {"properties": {"task": {"type": "object", "properties": {"name": {"const": name}}}}}
    if name != StudySpec.model_fields["task"].default.name:
        chosen = {"required": ["task"], "properties": {"task": {**chosen["properties"]["task"], "required": ["name"]}}}
    return {"if": chosen, "then": {"properties": {"evaluation": {"properties": evaluation}}}}


def _one_of(names: list[str]) -> Schema:
    """Allow these metrics; where one is of a length, those of other lengths too, which the task's settings decide."""
    if not any(re.search(r"/length_\d+$", name) for name in names):
        return {"enum": names}
    patterns = dict.fromkeys(re.sub(r"/length_\d+$", r"/length_[0-9]+", name) for name in names)
    return {"pattern": f"^({'|'.join(patterns)})$"}
