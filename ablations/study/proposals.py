"""The settings that a sampler of Optuna's proposes for one cell, generation by generation."""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.study.optuna_names import SAMPLERS
from trans4init.ablations.study.space import NET
from trans4init.ablations.study.tuner import rounded
from trans4init.ablations.study.tuning_section import SHARED
from trans4init.reports.records.optuna_ranges import for_optuna, suggested
from trans4init.reports.records.tuning_design import EXHAUSTIVE, Setting, TunedRange

if TYPE_CHECKING:
    import optuna

    from trans4init.ablations.study.spec import StudySpec
    from trans4init.reports.records.schema import CellKey
    from trans4init.reports.study_report.tuning import Trial

__all__ = ["Proposals", "check_sampler", "directions", "without_optunas_warnings"]

_WITHOUT_RESULTS = ("random", "qmc", "grid", "brute-force")
"""Samplers whose proposals depend on no result: all of theirs are one generation."""


class Proposals:
    """Proposes the settings of a cell's trials: each generation depends on the results of all generations before.

    Optuna's study is kept in memory alone, and is told the results in the order of the trials, whenever they came: a
    study that was interrupted proposes what it would have proposed. Within a generation trials know of each other.
    """

    def __init__(self, spec: "StudySpec", cell: "CellKey", time: int) -> None:
        """time: which time the study is tuned, from 0."""
        self._spec, self._cell = spec, cell
        self._ranges = sorted(spec.ranges(cell), key=lambda tuned: tuned.name != NET)
        seed = derived_seed(spec.tuning.seed + time, str(cell), cell.function, "sampler") % 2**32
        self._study = _study(spec, self._ranges, seed)
        if spec.tuning.sampler.name not in EXHAUSTIVE:
            own = spec.acting(cell, spec.own_settings(cell.net))
            self._study.enqueue_trial({name: for_optuna(value) for name, value in own.items()})
        self._asked: list[optuna.Trial] = []
        self._told = 0
        self.settings: list[dict[str, Setting]] = []
        """The settings of every trial that was proposed so far."""

    def learn(self, finished: Sequence["Trial"]) -> bool:
        """Propose the next generation if every trial proposed so far is among the finished ones; return whether."""
        done = {trial.number: trial for trial in finished}
        asked = self._spec.trials(self._cell)
        if len(self.settings) >= asked or any(n not in done for n in range(len(self.settings))):
            return False
        with without_optunas_warnings():
            for number in range(self._told, len(self._asked)):
                self._tell(self._asked[number], done[number])
            self._told = len(self._asked)
            for _ in range(min(self._generation(), asked - len(self.settings))):
                self._asked.append(self._study.ask())
                self.settings.append(self._suggested(self._asked[-1]))
        return True

    def _generation(self) -> int:
        tuning = self._spec.tuning
        return tuning.trials if tuning.sampler.name in _WITHOUT_RESULTS else tuning.generation

    def _tell(self, trial: "optuna.Trial", result: "Trial") -> None:
        from optuna.trial import TrialState

        if result.pruned:
            for step, value in result.curve(self._spec.evaluation.metric).items():
                trial.report(value, step)
            self._study.tell(trial, state=TrialState.PRUNED)
        elif result.failures:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, list(result.weighed))

    def _suggested(self, trial: "optuna.Trial") -> dict[str, Setting]:
        """Return what the sampler suggests of the settings that act on the cell: of those of nets, the kind decides."""
        settings: dict[str, Setting] = {}
        for tuned in self._ranges:
            if self._spec.acting(self._cell, {**settings, tuned.name: tuned.at(0.0)}).keys() > settings.keys():
                settings[tuned.name] = self._value(tuned, suggested(tuned, trial))
        return dict(sorted(settings.items()))

    def _value(self, tuned: TunedRange, value: Any) -> Setting:
        if tuned.choices:
            return next(list(c) if isinstance(c, tuple) else c for c in tuned.choices if for_optuna(c) == value)
        return rounded(tuned, value)


@contextmanager
def without_optunas_warnings() -> Iterator[None]:
    """Keep quiet what Optuna says of its experimental parts and of settings that it samples alone, and nothing else."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        yield


def check_sampler(spec: "StudySpec") -> None:
    """Raise InputError if a sampler can't be made: a package is missing, or an option can't have its value."""
    if spec.tuning.sampler.name == SHARED:
        return
    try:
        _study(spec, spec.tuning.ranges(), 0)
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"[tuning] sampler {spec.tuning.sampler} can't be used: {reason}") from None


def _study(spec: "StudySpec", ranges: Sequence[TunedRange], seed: int) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = spec.tuning.sampler
    options = sampler.options()
    if sampler.name == "grid":
        options["search_space"] = {tuned.name: [for_optuna(value) for value in tuned.values()] for tuned in ranges}
    with without_optunas_warnings():
        made = getattr(optuna.samplers, SAMPLERS.classes[sampler.name])(seed=seed, **options)
        if sampler.name == "cma-es":
            importlib.import_module("cmaes")  # Optuna imports it at the first proposal
    return optuna.create_study(sampler=made, directions=directions(spec))


def directions(spec: "StudySpec") -> "list[optuna.study.StudyDirection]":
    """Return the direction in which the judged metric is better, and then that of each further one tuning weighs."""
    from optuna.study import StudyDirection

    more = (bool(spec.metric().higher_is_better), *spec.other_objectives().values())
    return [StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE for higher in more]
