"""The samplers and pruners that a study file may name: Optuna's, by names that its users know. Imports no Optuna."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trans4init.ablations.errors import nearest
from trans4init.ablations.settings.base import BaseModel, ConfigDict

__all__ = ["BY_SEED", "PRUNERS", "SAMPLERS", "Names", "OptunaChoice"]

BY_SEED = "wilcoxon"
"""The pruner that compares trials seed by seed: it stops the rest of a trial, never a run."""


class OptunaChoice(BaseModel):
    """Names a sampler or a pruner, with the options that Optuna's class takes."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    """One of Optuna's, by a short name or that of its class; the other keys are its options."""

    def options(self) -> dict[str, Any]:
        """Return the options: every key but the name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        options = ", ".join(f"{key} = {value}" for key, value in self.options().items())
        return f"{self.name} ({options})" if options else self.name


@dataclass(frozen=True)
class Names:
    """Lists what there is to choose from: a short name for each of Optuna's classes, and one of our own."""

    kind: str
    own: str
    """The default, which is none of Optuna's."""
    classes: Mapping[str, str]
    """The name of the class in Optuna by the short name."""
    options: Mapping[str, tuple[str, ...]]
    """The options of each class that a file can set, by the short name."""

    def checked(self, value: Any) -> Any:
        """Return a name or a table as a table with the short name; raises ValueError with the nearest word."""
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            return value
        short = {name: short for short, name in self.classes.items()}.get(table["name"], table["name"])
        known = [self.own, *self.classes]
        if short not in known:
            close = nearest(short, known)
            hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(known)}"
            raise ValueError(f"there is no {self.kind} {short!r}; {hint}")
        for option in table:
            allowed = self.options.get(short, ())
            if option != "name" and option not in allowed:
                close = nearest(option, allowed)
                hint = f"did you mean {close!r}?" if close else f"it takes: {', '.join(allowed) or 'none'}"
                raise ValueError(f"{self.kind} {short!r} has no option {option!r}; {hint}")
        return {**table, "name": short}


SAMPLERS = Names(
    "sampler",
    "shared",
    {
        "random": "RandomSampler",
        "tpe": "TPESampler",
        "cma-es": "CmaEsSampler",
        "gp": "GPSampler",
        "qmc": "QMCSampler",
        "nsga-ii": "NSGAIISampler",
        "nsga-iii": "NSGAIIISampler",
        "grid": "GridSampler",
        "brute-force": "BruteForceSampler",
    },
    {
        "tpe": ("n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar"),
        "cma-es": ("n_startup_trials", "sigma0", "popsize", "use_separable_cma", "with_margin", "lr_adapt"),
        "gp": ("n_startup_trials", "deterministic_objective"),
        "qmc": ("qmc_type", "scramble"),
        "nsga-ii": ("population_size", "mutation_prob", "crossover_prob", "swapping_prob"),
        "nsga-iii": ("population_size", "mutation_prob", "crossover_prob", "swapping_prob", "dividing_parameter"),
    },
)

PRUNERS = Names(
    "pruner",
    "none",
    {
        "median": "MedianPruner",
        "percentile": "PercentilePruner",
        "successive-halving": "SuccessiveHalvingPruner",
        "hyperband": "HyperbandPruner",
        "wilcoxon": "WilcoxonPruner",
        "patient": "PatientPruner",
        "threshold": "ThresholdPruner",
    },
    {
        "median": ("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials"),
        "percentile": ("percentile", "n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials"),
        "successive-halving": ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count"),
        "hyperband": ("min_resource", "max_resource", "reduction_factor", "bootstrap_count"),
        "wilcoxon": ("p_threshold", "n_startup_steps"),
        "patient": ("patience", "min_delta", "wrapped"),
        "threshold": ("lower", "upper", "n_warmup_steps", "interval_steps"),
    },
)
