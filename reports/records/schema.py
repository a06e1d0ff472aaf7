"""Define the record of a run, and the card of its study."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trans4init.reports.files import without_folders
from trans4init.reports.machine import Environment
from trans4init.reports.records.error_budget import BudgetDesign
from trans4init.reports.records.tuning_design import Setting, TuningDesign
from trans4init.reports.records.vocabulary import PHASES, STATUSES, ArmRole, Phase, Status

__all__ = [
    "RUN_COLUMNS",
    "ArmDescription",
    "CellKey",
    "DroppedBlock",
    "Measurement",
    "Metric",
    "Plan",
    "RunRecord",
    "StudyCard",
    "largest_card",
]


@dataclass(frozen=True)
class Metric:
    """Names a quantity. `higher_is_better` is None for a quantity that is only shown, never judged."""

    name: str
    unit: str
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Measurement:
    """Holds one value of a metric at one training step. NaN and infinity are stored as None: the value is missing."""

    metric: Metric
    value: float | None
    step: int = 0

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)


@dataclass(frozen=True, order=True)
class CellKey:
    """Names a cell of a study: one function in one arm with one net. `net` is empty for an arm without a net."""

    function: str
    arm: str
    net: str = ""

    def __str__(self) -> str:
        return " · ".join(word for word in (self.arm, self.net) if word)

    def label(self, function: str) -> str:
        """Return the cell's name in a study of `function`; the cell's own function is named only if it is another."""
        return str(self) if self.function == function else f"{self.function} ({self})"


@dataclass(frozen=True)
class ArmDescription:
    """Says what reports write of an arm and how they draw it; the defaults stand for one of which nothing is known."""

    name: str
    holds: str = ""
    """What the slot holds."""
    moves: str = ""
    """What training moves."""
    uses_net: bool = False
    """Whether the slot holds a net."""
    needs_fit: bool = False
    """Whether that net is fitted to the function before the model is trained."""
    colour: str = "#444444"
    symbol: str = "circle"
    """One of `SYMBOLS`; the colour is #RRGGBB."""
    role: ArmRole | None = None
    """None in results that were written before arms had roles; `records.roles` then goes by what the card does say."""
    cost_rank: int = 100
    """The place of a control among all controls, the cheapest first; an arm that states none comes last."""


@dataclass(frozen=True)
class Plan:
    """Says what a study stated before its first evaluation run: what its words are held to."""

    cells: tuple[CellKey, ...]
    seeds: int
    margins: tuple[tuple[str, float], ...] = ()
    """Each metric that gets a word, with its margin; the first is the one that the verdict is about."""
    looks: tuple[int, ...] = ()
    """The numbers of seeds at which the study is judged; empty if once, when all are run."""
    trials: int | None = None
    """How many trials each cell is tuned with."""


@dataclass(frozen=True)
class DroppedBlock:
    """Names a block of a grid that was evaluated and then taken out: its comparisons are still corrected for."""

    spec_hash: str
    label: str
    words: int
    """How many comparisons it had."""


@dataclass(frozen=True)
class StudyCard:
    """Says what a report needs to know of a study beyond its rows, and which runs its verdict is about.

    Each run holds the card that the study had then. The card that counts is the one that was written last beside the
    runs, when the study was run with the number of seeds and trials and the cells that it names.
    """

    name: str
    question: str
    metric: str
    """The metric that the verdict is about."""
    margin: float
    """Differences smaller than this count as equivalent. In the metric's unit; stated before any run."""
    reference: CellKey
    cells: tuple[CellKey, ...]
    seeds: int
    command: str
    """The command that reproduces the study."""
    setting: str
    """Task, data, model and training in one line."""
    arms: tuple[ArmDescription, ...] = ()
    """The arms of the cells; empty in results that were written before cards had them."""
    trials: int | None = None
    """How many tuning trials each cell has; 0 if nothing is tuned, None in results written before cards said it."""
    spec_hash: str = ""
    """The hash of the conditions that the runs share; empty in results that were written before cards had it."""
    throughput_runs: tuple[str, ...] = ()
    """The ids of the runs that time the cells; empty in results that were written before cards had them."""
    margins: tuple[tuple[str, float], ...] = ()
    """The other metrics that get a word of their own, each with its margin."""
    looks: tuple[int, ...] = ()
    """The numbers of seeds at which the study is judged, which share the level; empty if it is judged once."""
    controls_left_out: tuple[str, ...] | None = None
    """The controls that apply to the function and that the study doesn't run; None where nobody looked: in the cards of
    runs, and in results from before."""
    stated: Plan | None = None
    """The plan when the first evaluation run was made; None in the cards of runs, and in results from before."""
    tuning: TuningDesign = field(default_factory=TuningDesign)
    error_budget: BudgetDesign | None = None
    """The nets of the study's error budget; None for a study that asks for none."""
    target: tuple[str, float] | None = None
    """A metric and the value of it whose first time the report says; None for a study that asks for none."""
    block: str = ""
    """What tells the study's cells from those of the other blocks of its grid; empty for a grid of one block."""
    together: int | None = None
    """How many comparisons are corrected together in all blocks of the grid; None for a grid of one block."""
    dropped: tuple["DroppedBlock", ...] = ()
    """The blocks that the grid had when runs of them were evaluated, and that it has no more."""

    def as_fields(self) -> dict[str, Any]:
        """Return the card as JSON has it."""
        return dataclasses.asdict(self) | {"tuning": self.tuning.as_fields()}

    def plan(self) -> Plan:
        """Return what the study states now."""
        return Plan(self.cells, self.seeds, ((self.metric, self.margin), *self.margins), self.looks, self.trials)

    def arm(self, name: str) -> ArmDescription:
        """Return the description of the arm called `name`: one without words or colour where the card has none."""
        return next((arm for arm in self.arms if arm.name == name), ArmDescription(name))

    def comparisons(self) -> tuple[CellKey, ...]:
        """Return the cells that are compared with the reference: all others."""
        return tuple(cell for cell in self.cells if cell != self.reference)

    def words(self) -> int:
        """Return how many comparisons are corrected together: those of the study, or of all blocks of its grid."""
        return self.own_words() if self.together is None else self.together

    def own_words(self) -> int:
        """Return how many comparisons this study or block has: cells × metrics.

        Cells that were dropped since count too, and those that an error budget's bisection may still add.
        """
        plans = [plan for plan in (self.plan(), self.stated) if plan is not None]
        cells = {cell for plan in plans for cell in plan.cells if cell != self.reference}
        planned = self.error_budget.planned if self.error_budget else 0
        return max(len(cells), planned) * len({metric for plan in plans for metric, _ in plan.margins})


@dataclass(frozen=True)
class RunRecord:
    """Records one run: what was run, what it measured, and where."""

    run_id: str
    study: str
    spec_hash: str
    cell: CellKey
    task: str
    model: str
    trial: int | None
    seed: int
    phase: Phase
    status: Status
    device: str
    created_at: datetime
    measurements: Sequence[Measurement]
    """As a tuple; of a run that was read from a bundle they are made when they are looked at."""
    environment: Environment
    card: StudyCard | None = None
    """None for a run that belongs to no study, such as a single fit."""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    """The hyper-parameters of the run's trial, where they are not the study's own."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts about the run that are not numbers: what may move, which checkpoint was used."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The resolved study file."""
    error: str = ""
    """Why the run is not `ok`; the traceback where there is one. Files are named without the folders above them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", without_folders(self.error))
        if self.phase not in PHASES:
            raise ValueError(f"phase {self.phase!r} is not one of {', '.join(PHASES)}")
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if not self.measurements:
            raise ValueError(f"run {self.run_id} has no measurement: a run that failed records its metric as missing")

    def digest(self) -> str:
        """Return the SHA-256 of all that the run is and measured, without the card: the study's may change later."""
        known: str | None = self.__dict__.get(KNOWN_DIGEST)
        if known is not None:
            return known
        values = [m.value if m.value is None else float(m.value) for m in self.measurements]  # as Parquet has them
        metrics = [(m.metric.name, m.metric.unit, m.metric.higher_is_better, m.step) for m in self.measurements]
        content = [
            [getattr(self, name) for name in RUN_COLUMNS],
            dataclasses.astuple(self.cell),
            [metrics, values],
            dataclasses.asdict(self.environment),
            [dict(self.parameters), dict(self.notes), dict(self.spec), self.error],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def last(self, metric: str) -> float | None:
        """Return the value of `metric` at its last step: None where that is missing, as in a run that diverged."""
        measured = self._of(metric)
        return max(measured, key=lambda m: m.step).value if measured else None

    def by_step(self, metric: str) -> dict[int, float]:
        """Return the values of `metric` by step (of a speed, by round), without those that are missing."""
        return {m.step: m.value for m in self._of(metric) if m.value is not None}

    def _of(self, metric: str) -> list[Measurement]:
        named = getattr(
            self.measurements, "named", None
        )  # of those in a bundle, which are made when they are looked at
        return named(metric) if named else [m for m in self.measurements if m.metric.name == metric]


KNOWN_DIGEST = "_known_digest"
"""The attribute of a record that has its digest, if it was read from a file that is known to be whole. A copy of the
record that `replace` makes doesn't have it."""
RUN_COLUMNS = (
    "run_id", "study", "spec_hash", "task", "model", "trial", "seed", "phase", "status", "device", "created_at"
)  # fmt: skip


def largest_card(records: Sequence[RunRecord]) -> StudyCard | None:
    """Return the card of most trials, seeds and cells among those of the runs, for results without a card beside them.

    None if no run has a card.
    """
    cards = {record.card for record in records if record.card is not None}
    return max(cards, key=lambda card: (card.trials or 0, card.seeds, len(card.cells), repr(card)), default=None)
