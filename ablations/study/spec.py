"""A study's file: its question, arms, task, model, tuning budget and seeds. Imports no torch."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from trans4init.ablations.data.tasks import AnyTaskConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.errors import brief, unknown_name
from trans4init.ablations.settings.base import (
    Field,
    field_validator,
    model_validator,
)
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.toml_file import shipped_files
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.slots.arms import REFERENCE_ARM, get_arm
from trans4init.ablations.study.error_budget import BUDGET_ARM, FAMILY, ErrorBudgetSection
from trans4init.ablations.study.net_sizes import options_of
from trans4init.ablations.study.sections import (
    Baseline,
    EvaluationSection,
    FitSection,
    NetChoice,
    Section,
    ThroughputSection,
)
from trans4init.ablations.study.space import NET, of_nets
from trans4init.ablations.study.storage import StorageSection
from trans4init.ablations.study.tuning_section import TuningSection
from trans4init.reports.records.metrics import PARAMETERS, PARAMETERS_ADDED, TRAINING_THROUGHPUT
from trans4init.reports.records.schema import CellKey, Metric
from trans4init.reports.records.tuning_design import Setting, TunedRange, of_cell, trials_of_cell
from trans4init.reports.speed.speeds import STUDY
from trans4init.reports.study_report.tuning import Weighing

__all__ = ["COSTS", "FREE", "OF_CELLS", "SEARCHED", "StudySpec", "checked_name", "shipped_studies", "spec_hash"]

SEARCHED = "searched"
"""The name in cells of a net whose kind each trial chooses."""
COSTS = (PARAMETERS, PARAMETERS_ADDED, TRAINING_THROUGHPUT)
"""What a tuning run can be weighed by besides the task's metrics."""
OF_CELLS = ("name", "question", "arms", "nets", "pairs", "baselines")
"""Keys that name a study and its cells: blocks of a grid don't differ in them, and cells of one block may."""
FREE = (
    *(key for key in OF_CELLS if key != "nets"),
    *("throughput", "error_budget", "storage"),
    *(f"tuning.{key}" for key in ("trials", "seeds_per_trial", "times", "objectives", "budgets", "roles")),
    *(f"evaluation.{key}" for key in ("seeds", "target", "margins", "looks")),
)
"""Keys that may change between two commands that run the same study: no run's result depends on them."""
_LONGEST_NAME = 100
"""Characters of a study's name. Names of files have 255 bytes, and the names of Optuna's studies add the cell's."""
_TAKEN_NAMES = (STUDY, "default", "fit", "mlartifacts", "train")
"""Refused as names of studies, with capitals too: what `bench`, `fit`, `train` and MLflow write beside the studies, and
MLflow's own experiment."""


class StudySpec(Section):
    """Describes a study: function × arms × task × model × tuning budget × seeds."""

    name: str
    """Names the study, its folder and its pages: at most 100 letters, digits, dots, hyphens and underscores."""
    question: str
    """What the study asks, in one or two sentences; the report begins with it."""
    function: str
    """The function that arms replace or change."""
    arms: Annotated[tuple[str, ...], Field(min_length=1)]
    """What is in the function's slot, in turn; `analytic` must be one, which the others are compared with."""
    nets: tuple[NetChoice, ...] = ()
    """The nets that stand in for the function; each arm with a net is run with each of them."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Arm and net of each cell, where not every arm is run with every net; empty: every arm with every net."""
    baselines: tuple[Baseline, ...] = ()
    """Other functions for the same slot, which are run beside the arms."""
    fit: FitSection = FitSection()
    """How nets are fitted to the function before the models are trained."""
    task: AnyTaskConfig = TextConfig()
    """What is learned from which data; its other keys depend on the task's name. Left out: task `text`."""
    model: ModelSize
    """The kind of the Transformer, its sizes and its functions."""
    training: TrainingConfig
    """How every model is trained; tuning changes the settings in its space."""
    tuning: TuningSection = TuningSection()
    """The tuning budget, the same for every cell."""
    evaluation: EvaluationSection
    """What the verdict is about, and over how many seeds."""
    throughput: ThroughputSection = ThroughputSection()
    """How speed is measured."""
    error_budget: ErrorBudgetSection | None = None
    """Asks how exact a net must be, with polylines of growing size in the function's place."""
    storage: StorageSection | None = None
    """Where Optuna's view of the trials is kept."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        return checked_name(name)

    @field_validator("arms")
    @classmethod
    def _arms_make_a_study(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            get_arm(arm).description()  # raises for an arm that isn't there or can't be drawn
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is named twice")
        if REFERENCE_ARM not in arms:
            raise ValueError(f"the arms must include {REFERENCE_ARM!r}, which the others are compared with")
        return arms

    @model_validator(mode="after")
    def _parts_fit(self) -> "StudySpec":
        names = self.net_names()
        if len(set(names)) < len(names):
            raise ValueError("a net is named twice in [[nets]]; give one of them a label, or one net a list of sizes")
        with_nets = [arm for arm in self.arms if get_arm(arm).uses_net]
        if not names and with_nets:
            raise ValueError("arms with a net need at least one in [[nets]]")
        self._check_searched_nets()
        if self.error_budget is not None and (self.nets or with_nets != [BUDGET_ARM]):
            raise ValueError(
                f"[error_budget] makes the nets of arm {BUDGET_ARM!r}: list that arm, no other one with a net, and no "
                "[[nets]]"
            )
        known = [metric.name for metric in self.task.metrics]
        if self.evaluation.metric not in known:
            raise ValueError(f"[evaluation] {unknown_name('metric', self.evaluation.metric, known)}")
        judged = {metric.name for metric in self.task.metrics if metric.higher_is_better is not None}
        for name in self.evaluation.margins:
            if name not in judged - {self.evaluation.metric}:
                others = sorted(judged - {self.evaluation.metric})
                raise ValueError(f"[evaluation.margins] {unknown_name('metric', name, others)}")
        target = self.evaluation.target
        if target is not None and target.metric not in judged:
            raise ValueError(f"[evaluation.target] {unknown_name('metric', target.metric, sorted(judged))}")
        asked = self.tuning.model_fields_set & {"trials", "times"}
        if asked and not self.tuning.space:
            raise ValueError(f"[tuning] {max(asked)} needs a [tuning.space]: without one there is nothing to try")
        self._check_own_settings()
        self._check_objectives(judged)
        return self

    def _check_searched_nets(self) -> None:
        """Raise ValueError for a space that chooses nets which the study names itself."""
        searched = [name for name in self.tuning.space if name == NET or name.startswith("nets.")]
        if self.error_budget is not None and searched:
            raise ValueError(f"[error_budget] makes the nets itself: leave {searched[0]} out of [tuning.space]")
        if self.searches_nets() and self.nets:
            raise ValueError("[tuning.space] net chooses the net: leave [[nets]] out")
        for name in searched:
            sizes: dict[str, set[str]] = {}
            for net in self.nets:
                sizes.setdefault(net.name, set()).add(str(net.size().get(name.removeprefix("nets."))))
            several = [net for net, of_net in sizes.items() if len(of_net) > 1]
            if several:
                raise ValueError(f"[tuning.space] chooses {name}: give net {several[0]!r} one size in [[nets]]")

    def _check_own_settings(self) -> None:
        """Raise ValueError if a range lacks the study's own setting, which the first trial tries."""
        for net in self.net_names() or ("",):
            own = self.own_settings(net)
            for tuned in self.tuning.ranges():
                value = own.get(tuned.name)
                if value is None:
                    section = "model" if tuned.name.startswith("model.") else "training"
                    raise ValueError(
                        f"[tuning.space] {tuned.name} has no value of its own, which the first trial tries: set it in "
                        f"[{section}]"
                    )
                if not tuned.has(value):
                    raise ValueError(
                        f"{tuned.name} = {value} is outside its range in [tuning.space]: the first trial tries the "
                        "study's own settings"
                    )

    def _check_objectives(self, judged: set[str]) -> None:
        """Raise ValueError for objectives that no tuning run measures, and for roles of settings that aren't there."""
        objectives, known = self.tuning.objectives, sorted(judged | {metric.name for metric in COSTS})
        for name in objectives:
            if name not in known:
                raise ValueError(f"[tuning] objectives: {unknown_name('metric', name, known)}")
        if objectives and objectives[0] != self.evaluation.metric:
            raise ValueError(f"[tuning] objectives must begin with the judged metric, {self.evaluation.metric}")
        if objectives and self.tuning.sampler.name == "cma-es":
            raise ValueError(
                "[tuning] sampler 'cma-es' searches for one objective; nsga-ii, tpe and gp search for several"
            )

    def other_objectives(self) -> dict[str, bool]:
        """Return the metrics that tuning weighs besides the judged one, and whether more of each is better."""
        known = {metric.name: bool(metric.higher_is_better) for metric in (*self.task.metrics, *COSTS)}
        return {name: known[name] for name in self.tuning.objectives[1:]}

    def weighing(self) -> Weighing | None:
        """Return how tuning weighs several objectives; None for one."""
        return Weighing(self.evaluation.margin, self.other_objectives()) if self.tuning.objectives else None

    def searches_nets(self) -> bool:
        """Return whether the kind of the net is one of the settings that trials change."""
        return NET in self.tuning.space

    def own_settings(self, net: str = "") -> dict[str, Setting]:
        """Return the study's own values of the settings in its space, for a cell with this net or without one.

        Of a net's size that the study doesn't set, it is the first of the range.
        """
        own: dict[str, Setting] = {}
        nets = [of for of in self.nets if of.called == net] or self.nets
        for tuned in self.tuning.ranges():
            section, _, key = tuned.name.rpartition(".")
            sizes = [of.size()[key] for of in nets if section == "nets" and key in of.size()]
            if section == "model":
                own[tuned.name] = getattr(self.model, key)
            elif section == "nets" or tuned.name == NET:
                own[tuned.name] = sizes[0] if sizes else tuned.at(0.0)
            else:
                own[tuned.name] = getattr(self.training, tuned.name)
        return own

    def ranges(self, cell: CellKey) -> tuple[TunedRange, ...]:
        """Return the ranges that act on a cell: those of nets only where it has one."""
        return of_cell(self.tuning.ranges(), bool(cell.net))

    def acting(self, cell: CellKey, settings: Mapping[str, Setting]) -> dict[str, Setting]:
        """Return those of a trial's settings that act on a cell: of a net's size the options that its kind has."""
        own = {tuned.name: settings[tuned.name] for tuned in self.ranges(cell) if tuned.name in settings}
        if not of_nets(own):
            return own
        kind = str(own[NET]) if self.searches_nets() else self.net(cell.net).name
        lacking = of_nets(own).keys() - set(options_of(kind))
        return {name: value for name, value in own.items() if name.removeprefix("nets.") not in lacking}

    def trials(self, cell: CellKey | None = None) -> int:
        """Return the number of tuning trials that are asked for, or those of one cell: 0 without a search space."""
        if not self.tuning.space or cell is None:
            return self.tuning.trials if self.tuning.space else 0
        return trials_of_cell(self.tuning.ranges(), self.tuning.sampler.name, bool(cell.net), self.tuning.trials)

    def times_tuned(self) -> int:
        """Return how often the study is tuned, and every cell evaluated with what that chose: 1 without a space."""
        return self.tuning.times if self.tuning.space else 1

    def budgets(self) -> tuple[int, ...]:
        """Return the smaller numbers of trials whose best setting is evaluated too: none without a search space."""
        return self.tuning.budgets if self.tuning.space else ()

    def tuning_seeds(self, time: int = 0) -> range:
        """Return the seeds that each trial is run with: none without a search space."""
        return self.tuning.seeds(time) if self.tuning.space else range(0)

    def training_runs(self) -> int:
        """Return the number of models that are trained: in every cell trials × their seeds, and evaluation seeds.

        They are as many each time that the study is tuned, and as many seeds for each smaller budget. A run that two of
        these ask for alike counts twice.
        """
        tuned = self.times_tuned() * sum(map(self.trials, self.cells())) * len(self.tuning_seeds())
        evaluated = (self.times_tuned() + len(self.budgets())) * self.evaluation.seeds
        return tuned + len(self.cells()) * evaluated

    def metric(self) -> Metric:
        """Return the metric that the verdict is about."""
        return next(metric for metric in self.task.metrics if metric.name == self.evaluation.metric)

    def reference(self) -> CellKey:
        """Return the cell that the others are compared with."""
        return CellKey(self.function, REFERENCE_ARM)

    def cells(self) -> tuple[CellKey, ...]:
        """Return a cell for every function, arm and net of the study, the reference first."""
        cells = [self.reference()]
        for arm in self.arms:
            nets = self.net_names() if get_arm(arm).uses_net else ("",)
            everything = not self.pairs or self.error_budget is not None
            cells += [CellKey(self.function, arm, net) for net in nets if everything or (arm, net) in self.pairs]
        cells += [CellKey(baseline.function, baseline.arm) for baseline in self.baselines]
        return tuple(dict.fromkeys(cells))

    def net_names(self) -> tuple[str, ...]:
        """Return the names that the nets have in cells; a net whose kind is searched is called so."""
        if self.searches_nets():
            return (SEARCHED,)
        return tuple(net.called for net in self.nets) if self.error_budget is None else self.error_budget.names()

    def net(self, name: str) -> NetChoice:
        """Return the net of that name, with its size; of an error budget's nets every size, chosen yet or not."""
        if self.error_budget is not None:
            return NetChoice.model_validate({"name": FAMILY, "pieces": self.error_budget.pieces_of(name)})
        return NetChoice(name=name) if self.searches_nets() else next(net for net in self.nets if net.called == name)

    def conditions(self, fingerprint: str) -> dict[str, Any]:
        """Return what all runs must share for their numbers to be compared: not how many there are, nor wording."""
        shared = self.model_dump(mode="json", exclude={"nets"})  # a net is a part of the ids of runs with it
        for key in FREE:
            section, _, name = key.rpartition(".")
            (shared[section] if section else shared).pop(name, None)
        if self.error_budget is not None:
            shared["error_budget"] = True  # its nets are fitted on another domain
        shared["task"] |= {"source": fingerprint}
        return shared

    def public(self) -> dict[str, Any]:
        """Return the spec as it goes into results: a user's file by its name alone, and no address of a database."""
        values = self.model_dump(mode="json", exclude={"storage"}) | {"task": self.task.public()}
        return values if self.pairs else {key: value for key, value in values.items() if key != "pairs"}

    def setting(self) -> str:
        """Return task, data, model and training in one line."""
        return f"{self.task}; {self.model}; {self.training}"


def checked_name(name: str) -> str:
    """Return a study's name, checked: a folder and an experiment in MLflow are called so; else raise ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a study's name is made of at most {_LONGEST_NAME} letters, digits, dots, hyphens and underscores and "
            f"begins with a letter or a digit, not {brief(name)!r}"
        )
    if name.lower() in _TAKEN_NAMES or name.lower().startswith("mlflow.db"):
        raise ValueError(f"{name!r} is the name of something else in the folder of all studies; add a word to it")
    return name


def spec_hash(conditions: dict[str, Any]) -> str:
    """Return a short hash of a study's conditions."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:12]


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with the project, by name."""
    return shipped_files("studies")
