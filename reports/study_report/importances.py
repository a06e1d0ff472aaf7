"""Estimate how much each tuned setting matters, from the trials in the results: Optuna does it, if it is installed."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trans4init.reports.records.optuna_ranges import distribution, for_optuna
from trans4init.reports.records.schema import CellKey, Metric
from trans4init.reports.records.tuning_design import TuningDesign
from trans4init.reports.study_report.summary import Summary
from trans4init.reports.study_report.tuning import Trial

__all__ = ["FEWEST_TRIALS", "Importances", "estimate_importances"]

FEWEST_TRIALS = 10
"""Of fewer trials with a value no importance is estimated: it would be that of chance."""
_SEED = 0
"""Of the random forests, so that the same results give the same report."""


@dataclass(frozen=True)
class Importances:
    """Says how much of the differences between trials each setting explains, or why nobody can say."""

    shares: Mapping[CellKey, Mapping[str, float]] = field(default_factory=dict)
    """The share of each setting by name, of the cells that have trials enough; a cell's shares add up to 1."""
    why_not: str = ""
    """A sentence about the cells that have none; empty if there are no such cells."""

    def settings(self) -> tuple[str, ...]:
        """Return the names of the settings, in order."""
        return tuple(sorted({name for shares in self.shares.values() for name in shares}))


def estimate_importances(summary: Summary) -> Importances:
    """Return the importances of every tuned cell's settings by functional ANOVA (Hutter et al., ICML 2014).

    A trial with a run that diverged or failed has no value, and doesn't count. A setting that is alone explains all of
    the variance, and has no share.
    """
    if summary.card is None or summary.metric is None:
        return Importances()
    design = summary.card.tuning
    whole = {
        cell.cell: [trial for trial in cell.tuning.trials if not trial.failures]
        for cell in summary.cells
        if cell.tuning is not None and design.ranges
    }
    many = {cell: trials for cell, trials in whole.items() if len(trials) >= FEWEST_TRIALS}
    enough = {cell: trials for cell, trials in many.items() if len({trial.mean for trial in trials}) > 1}
    few = ""
    if len(many) < len(whole):
        few = f"How much each setting matters is not estimated from fewer than {FEWEST_TRIALS} trials with a value."
    elif len(enough) < len(many):
        few = "Where all trials have the same value, no setting matters more than another."
    if any(len({frozenset(trial.settings) for trial in trials}) > 1 for trials in enough.values()):
        of_some = "Of settings that only some trials have, such as the size of one kind of net, none is estimated."
        few = f"{few} {of_some}".lstrip()
    try:
        shares = {cell: _shares(trials, summary.metric, design) for cell, trials in enough.items()}
        return Importances({cell: of_cell for cell, of_cell in shares.items() if len(of_cell) > 1}, few)
    except ModuleNotFoundError as error:
        return Importances({}, f"How much each setting matters is not estimated: {error.name} is not installed here.")


def _shares(trials: Sequence[Trial], metric: Metric, design: TuningDesign) -> Mapping[str, float]:
    """Return the share of each setting in the variance of the trials' means that a forest of regression trees sees."""
    import optuna  # here, since it takes a second, and most reports have fewer trials

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    by_name = {tuned.name: distribution(tuned) for tuned in design.ranges}
    study = optuna.create_study(direction="maximize" if metric.higher_is_better else "minimize")
    for trial in sorted(trials, key=lambda trial: trial.number):
        settings = {name: for_optuna(value) for name, value in trial.settings.items() if name in by_name}
        ranges = {name: by_name[name] for name in settings}
        study.add_trial(optuna.trial.create_trial(value=trial.mean, params=settings, distributions=ranges))
    with warnings.catch_warnings(action="ignore"):
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: shares[name] for name in sorted(shares)}
