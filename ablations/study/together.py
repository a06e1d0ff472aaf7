"""Say which runs of a study may be trained together, as one tensor program. Imports torch where it says so."""

import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.ablations.study.space import shapes_runs
from trans4init.reports.records.metrics import TRAINING_THROUGHPUT
from trans4init.reports.sealed_tensors import checked_header

__all__ = ["FEWEST_STEPS", "Alike", "automatic_size", "begun_arrays"]

_AUTOMATIC = {"cpu": 8, "gpu": 64}
"""How many runs are trained together at most, if nothing is said. More gain a CPU nothing: their activations leave its
caches."""
FEWEST_STEPS = 50
"""Runs of fewer steps are made one by one: to try whether an array is faster takes about so many."""


def automatic_size() -> int:
    """Return how many runs are trained together at most on this machine, if nothing is said. Imports torch."""
    from trans4init.ablations.device import accelerator_name

    return _AUTOMATIC["gpu" if accelerator_name() else "cpu"]


class Alike:
    """Tells a study's runs that differ in their seeds, rates and decays alone: they may be trained together."""

    def __init__(self, studies: Sequence[ResolvedStudy], say: Callable[[str], None]) -> None:
        """say: called with each reason why some can't be, once."""
        self._studies = {study.spec_hash: study for study in studies}
        self._say, self._told = say, set[str]()

    def key(self, request: Request) -> Hashable | None:
        """Return what a run shares with those that it may be trained with; None for one that is run alone."""
        if request.phase not in ("tune", "evaluate"):
            return None
        study = self._studies[request.spec_hash].of(request)
        why = self._why_alone(study, request)
        if why and why not in self._told:
            self._told.add(why)
            cell = request.cell.label(study.spec.function)
            self._say(f"Runs such as {request.phase} {cell} are made one by one, since {why}.")
        if why or study.training.steps < FEWEST_STEPS:
            return None
        shapes = json.dumps(shapes_runs(request.parameters), sort_keys=True)
        return request.spec_hash, request.phase, request.cell, shapes, json.dumps(study.training.shared())

    @staticmethod
    def _why_alone(study: ResolvedStudy, request: Request) -> str:
        if request.phase == "tune" and TRAINING_THROUGHPUT.name in study.spec.tuning.objectives:
            return "tuning weighs their speed"
        return study.training.why_alone()


def begun_arrays(checkpoints: Path, say: Callable[[str], None]) -> list[list[str]]:
    """Return the ids of the runs of each array that was ended amid its work, from the folder of its checkpoint.

    say: called with a sentence for each checkpoint that is damaged, which is removed.
    """
    begun = []
    for path in sorted(checkpoints.glob("array-*.safetensors")):
        try:
            begun.append(checked_header(path.read_bytes(), "card")["runs"])
        except (OSError, KeyError, ValueError):
            path.unlink()
            say(f"{path.name} was damaged and is removed; the runs that it was of begin anew.")
    return begun
