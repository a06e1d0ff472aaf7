"""SCAN: commands and their actions, generated from the grammar or read from the public files. Imports no torch."""

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
"""Of the length split (Lake & Baroni 2018, section 4, experiment 2)."""
_VALIDATION_SHARE = 0.05
"""Of the training commands."""


class ScanConfig(TaskConfig):
    """The data of task `scan`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("encoder-decoder", "decoder")

    name: Literal["scan"] = "scan"
    source: Literal["generated", "public"] = "generated"
    """All 20,910 commands from the grammar, or the published split's files (the length split is the same in both)."""
    split: Literal["simple", "length"] = "simple"
    """`simple`: a random fifth is tested. `length`: trained on up to 22 actions, tested on more."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What a final evaluation measures."""
        return (VALIDATION_LOSS, EXACT_MATCH, GENERATED_EXACT_MATCH)

    def __str__(self) -> str:
        return f"SCAN, {self.split} split"


@cache
def commands() -> tuple[tuple[str, str], ...]:
    """Every command of the grammar with its actions (Lake & Baroni 2018, figures 6 and 7 of the supplement)."""
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
    found = dict(phrases)
    for first, first_actions in phrases.items():
        for second, second_actions in phrases.items():
            found[f"{first} and {second}"] = f"{first_actions} {second_actions}"
            found[f"{first} after {second}"] = f"{second_actions} {first_actions}"
    return tuple((command, " ".join(actions.split())) for command, actions in found.items())


def scan_pairs(config: ScanConfig) -> dict[str, list[tuple[str, str]]]:
    """Commands and actions of `training`, `tune` and `evaluate`; raises InputError where public files can't be had."""
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
    kept = [pair for pair, out in zip(commands(), tested, strict=True) if not out]
    return kept, [pair for pair, out in zip(commands(), tested, strict=True) if out]
