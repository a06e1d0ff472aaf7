"""SCAN: commands and their actions, generated from the grammar or read from public files. Imports no torch."""

from functools import cache
from typing import ClassVar, Literal

import numpy as np

from trans4init.ablations.data.config import Kind, TaskConfig
from trans4init.ablations.data.datasets import DATASETS, fetch
from trans4init.ablations.seeding import derived_seed
from trans4init.reports.records.metrics import EXACT_MATCH, GENERATED_EXACT_MATCH, VALIDATION_LOSS
from trans4init.reports.records.schema import Metric

__all__ = ["ScanConfig", "commands", "scan_pairs"]

_LONGEST_TRAINED_ACTIONS = 22
"""The longest trained sequence of the length split (Lake & Baroni 2018, section 4, experiment 2)."""
_VALIDATION_SHARE = 0.05
"""The share of the training commands that is validated on."""


class ScanConfig(TaskConfig):
    """Names the data of task `scan`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("encoder-decoder", "decoder")

    name: Literal["scan"] = "scan"
    source: Literal["generated", "public"] = "generated"
    """All 20,910 commands from the grammar, or the files of the published split; their length splits are equal."""
    split: Literal["simple", "length"] = "simple"
    """`simple` tests a random fifth; `length` trains on up to 22 actions and tests more."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation."""
        return (VALIDATION_LOSS, EXACT_MATCH, GENERATED_EXACT_MATCH)

    def __str__(self) -> str:
        return f"SCAN, {self.split} split"


@cache
def commands() -> tuple[tuple[str, str], ...]:
    """Return every command of the grammar with its actions (Lake & Baroni 2018, figures 6 and 7 of the supplement)."""
    turns = {side: f"I_TURN_{side.upper()}" for side in ("left", "right")}
    primitives = {verb: f"I_{verb.upper()}" for verb in ("walk", "look", "run", "jump")}
    verbs = dict(primitives)
    for side, turn in turns.items():
        for verb, action in (primitives | {"turn": ""}).items():
            verbs[f"{verb} {side}"] = f"{turn} {action}"
            verbs[f"{verb} opposite {side}"] = f"{turn} {turn} {action}"
            verbs[f"{verb} around {side}"] = f"{turn} {action} " * 4
    phrases = {
        f"{verb}{times}": f"{actions} " * count
        for verb, actions in verbs.items()
        for times, count in (("", 1), (" twice", 2), (" thrice", 3))
    }
    actions_by_command = dict(phrases)
    for first, first_actions in phrases.items():
        for second, second_actions in phrases.items():
            actions_by_command[f"{first} and {second}"] = f"{first_actions} {second_actions}"
            actions_by_command[f"{first} after {second}"] = f"{second_actions} {first_actions}"
    return tuple((command, " ".join(actions.split())) for command, actions in actions_by_command.items())


def scan_pairs(config: ScanConfig) -> dict[str, list[tuple[str, str]]]:
    """Return commands and actions of `training`, `tune` and `evaluate`; raises InputError as `fetch` does."""
    if config.source == "public":
        training, tested = (_public(part, config.split) for part in ("train", "test"))
    else:
        training, tested = _generated(config.split)
    generator = np.random.default_rng(derived_seed(0, "scan", "validation"))
    validated = generator.random(len(training)) < _VALIDATION_SHARE
    return {
        "training": [pair for pair, out in zip(training, validated, strict=True) if not out],
        "tune": [pair for pair, out in zip(training, validated, strict=True) if out],
        "evaluate": tested,
    }


def _public(part: str, split: str) -> list[tuple[str, str]]:
    lines = fetch(DATASETS[f"scan/tasks_{part}_{split}.txt"]).read_text().splitlines()
    pairs = (line.removeprefix("IN: ").split(" OUT: ") for line in lines)
    return [(command, actions) for command, actions in pairs]


def _generated(split: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    if split == "length":
        tested = np.array([len(actions.split()) > _LONGEST_TRAINED_ACTIONS for _, actions in commands()])
    else:
        tested = np.random.default_rng(derived_seed(0, "scan", "simple")).random(len(commands())) < 0.2
    trained = [pair for pair, out in zip(commands(), tested, strict=True) if not out]
    return trained, [pair for pair, out in zip(commands(), tested, strict=True) if out]
