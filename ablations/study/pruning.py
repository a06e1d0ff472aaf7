"""Decide whether a tuning run, or the rest of a trial, is stopped, by one of Optuna's pruners.

A pruner knows the trials of the generations before and nothing of those that run beside: what is stopped doesn't hang
on which run was faster, and a study that was interrupted stops the same runs.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.optuna_names import PRUNERS
from trans4init.ablations.study.proposals import directions, without_optunas_warnings

if TYPE_CHECKING:
    import optuna

    from trans4init.ablations.study.spec import StudySpec

__all__ = ["RunPruner", "check_pruner", "stops_trial"]


class RunPruner:
    """Is told a run's evaluations, and says whether the run should stop."""

    def __init__(self, spec: "StudySpec", rivals: Sequence[Mapping[int, float]], place: int) -> None:
        """rivals: the judged metric by step of the earlier trials. place: the trial's place in its generation."""
        self._study = _study(spec)
        with without_optunas_warnings():
            for rival in rivals:
                trial = self._study.ask()
                for step, value in sorted(rival.items()):
                    trial.report(value, step)
                    trial.should_prune()  # some pruners note what they would have done
                self._study.tell(trial, list(rival.values())[-1] if rival else None, state=_state(rival))
            for _ in range(place):
                self._study.ask()
            self._trial = self._study.ask()

    def stops(self, step: int, value: float) -> bool:
        """Return whether the run, whose metric has this value at this step, falls behind."""
        with without_optunas_warnings():
            self._trial.report(value, step)
            return self._trial.should_prune()


def stops_trial(spec: "StudySpec", earlier: Sequence[Sequence[float]], values: Sequence[float]) -> bool:
    """Return whether a trial with these values on its first tuning seeds is worse than the best one, seed by seed.

    earlier: the values of each trial of the generations before, on its seeds.
    """
    study = _study(spec)
    with without_optunas_warnings():
        for of_trial in earlier:
            trial = study.ask()
            for place, value in enumerate(of_trial):
                trial.report(value, place)
            study.tell(trial, sum(of_trial) / len(of_trial))
        trial = study.ask()
        for place, value in enumerate(values):
            trial.report(value, place)
        return trial.should_prune()


def check_pruner(spec: "StudySpec") -> None:
    """Raise InputError if a pruner can't be made, since an option can't have its value."""
    if spec.tuning.pruner.name == "none":
        return
    try:
        _study(spec)
    except (TypeError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"[tuning] pruner {spec.tuning.pruner} can't be used: {reason}") from None


def _study(spec: "StudySpec") -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with without_optunas_warnings():
        pruner = _pruner(spec, spec.tuning.pruner.name, spec.tuning.pruner.options())
        return optuna.create_study(study_name=spec.name, pruner=pruner, directions=directions(spec)[:1])


def _pruner(spec: "StudySpec", name: str, options: Mapping[str, Any]) -> "optuna.pruners.BasePruner":
    import optuna

    options, training = dict(options), spec.training
    if name == "patient":
        inner = options.pop("wrapped", "none")
        wrapped = None if inner == "none" else _pruner(spec, PRUNERS.checked(inner)["name"], {})
        return optuna.pruners.PatientPruner(wrapped, **{"patience": 1, **options})
    if name == "percentile":
        options = {"percentile": 50.0, **options}
    if name in ("hyperband", "successive-halving"):
        options = {"min_resource": max(1, training.steps // training.evaluations), **options}
    if name == "hyperband":
        options = {"max_resource": training.steps, **options}
    made: optuna.pruners.BasePruner = getattr(optuna.pruners, PRUNERS.classes[name])(**options)
    return made


def _state(rival: Mapping[int, float]) -> Any:
    from optuna.trial import TrialState

    return TrialState.COMPLETE if rival else TrialState.FAIL
