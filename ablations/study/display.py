"""Show a running study: in one live view on a terminal, in plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.executors.protocol import Advanced
from trans4init.ablations.study.grid_agenda import GridAgenda
from trans4init.ablations.study.requests import Request
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import CellKey, Metric, RunRecord
from trans4init.reports.study_report.tuning import Trial, best_first

__all__ = ["Display", "LiveDisplay", "PlainDisplay", "duration", "make_display"]


class Display(Protocol):
    """Is told what happens in a study, and shows it."""

    def __enter__(self) -> "Display":
        """Begin to show the study."""

    def __exit__(self, *_: object) -> None:
        """Stop, and leave the screen tidy."""

    def started(self, requests: Sequence[Request]) -> None:
        """Note that runs were started."""

    def advanced(self, event: Advanced[Request]) -> None:
        """Note how far a run is."""

    def finished(self, record: RunRecord) -> None:
        """Note that a run's record is written."""

    def say(self, line: str) -> None:
        """Show a line of text."""


_SHOWN_WAITING = 4
"""How many runs the live view names of those that wait or start."""


class Clock:
    """Estimates the time left from this session's training runs. Fits are excluded: they take a different time."""

    def __init__(self, agenda: Agenda | GridAgenda) -> None:
        self._agenda, self._start = agenda, time.monotonic()
        self._runs_before = self._runs()

    def elapsed(self) -> float:
        """Return the seconds since this session began."""
        return time.monotonic() - self._start

    def remaining(self) -> float | None:
        """Return the seconds left; None before the first run of this session is finished."""
        done = self._runs() - self._runs_before
        if not done:
            return None
        return self.elapsed() / done * (self._agenda.total() - self._agenda.done())

    def _runs(self) -> int:
        return self._agenda.done() - self._agenda.fitted()


class PlainDisplay:
    """Prints a line for each run that ends: for logs and pipes."""

    def __init__(self, agenda: Agenda | GridAgenda, console: Console) -> None:
        self._agenda, self._console, self._clock = agenda, console, Clock(agenda)

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self, requests: Sequence[Request]) -> None:
        """Announce fits and throughput sessions only, which take a while."""
        if requests[0].phase in ("fit", "throughput"):
            self.say(f"{_in_block(self._agenda.block_of(requests[0]))}{_together(requests)} ...")

    def advanced(self, event: Advanced[Request]) -> None:
        """Show nothing: a line per run is enough."""

    def finished(self, record: RunRecord) -> None:
        """Print the run's result and the time left."""
        left = self._clock.remaining()
        eta = f", {duration(left)} left" if left else ""
        total = self._agenda.total()
        block = self._agenda.block_of(record)
        run = Request(record.run_id, record.phase, record.cell, record.seed, record.trial).label(
            block.study.spec.function
        )
        number = f"[{self._agenda.done():{len(str(total))}}/{total}]"
        self.say(f"{number} {_in_block(block)}{run}: {_outcome(record, block.study.spec)}{eta}")

    def say(self, line: str) -> None:
        """Print the line."""
        self._console.print(line, soft_wrap=True)


class LiveDisplay:
    """Shows a view that stays in place: how far the study is, what runs, and the best results so far."""

    def __init__(self, agenda: Agenda | GridAgenda, console: Console) -> None:
        self._agenda, self._console, self._clock = agenda, console, Clock(agenda)
        self._running: dict[str, tuple[Sequence[Request], Advanced[Request] | None]] = {}
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._view)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, requests: Sequence[Request]) -> None:
        """Add the run to those that are shown as running."""
        self._running[requests[0].run_id] = (requests, None)

    def advanced(self, event: Advanced[Request]) -> None:
        """Show the run's step and loss; runs that are trained together are one line."""
        for request in event.requests:
            self._running.pop(request.run_id, None)
        self._running[event.requests[0].run_id] = (event.requests, event)

    def finished(self, record: RunRecord) -> None:
        """Remove the run from those that are running; its cell's line shows its result."""
        self._running.pop(record.run_id, None)

    def say(self, line: str) -> None:
        """Print the line above the view."""
        self._console.print(line, soft_wrap=True)

    def _view(self) -> RenderableType:
        return Group(self._headline(), self._cells(), *self._running_lines())

    def _headline(self) -> RenderableType:
        done, total = self._agenda.done(), self._agenda.total()
        failed = sum(record.status not in ("ok", "pruned") for record in self._agenda.finished.values())
        left = self._clock.remaining()
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(self._agenda.blocks[0].study.spec.name, style="bold"),
            ProgressBar(total=total, completed=done, width=24),
            f"{done}/{total} done",
            f"{sum(len(requests) for requests, event in self._running.values() if event)} running",
            Text(f"{failed} failed", style="red" if failed else ""),
            f"{duration(self._clock.elapsed())} gone, {duration(left)} left" if left else "",
        )
        return line

    def _cells(self) -> RenderableType:
        metrics_judged = dict.fromkeys(block.study.spec.evaluation.metric for block in self._agenda.blocks)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("cell", "trials", "seeds", f"best trial, {' or '.join(metrics_judged)}", "mean over seeds"):
            table.add_column(title, justify="left" if title == "cell" else "right")
        for block in self._agenda.blocks:
            for cell in block.study.spec.cells():
                table.add_row(*_row(block, cell))
        return table

    def _running_lines(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        waiting = 0
        for requests, event in self._running.values():
            if event is None:
                waiting += 1
                if waiting > _SHOWN_WAITING:
                    continue
            far = f"step {event.step}/{event.steps}, loss {event.loss:.4g}" if event else "starting"
            block = self._agenda.block_of(requests[0])
            name = requests[0].label(block.study.spec.function) if len(requests) == 1 else _together(requests)
            lines.append(Text(f"  {_in_block(block)}{name}: {far}", style="dim"))
        if waiting > _SHOWN_WAITING:
            lines.append(Text(f"  {waiting - _SHOWN_WAITING} more wait or start", style="dim"))
        return lines


def make_display(agenda: Agenda | GridAgenda, console: Console) -> Display:
    """Return the live view on a terminal, plain lines otherwise."""
    return LiveDisplay(agenda, console) if console.is_terminal else PlainDisplay(agenda, console)


def duration(seconds: float) -> str:
    """Write seconds as 8 s, 2 min 05 s or 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _outcome(record: RunRecord, spec: StudySpec) -> str:
    """Write a run's result in a few words."""
    if record.status != "ok":
        return f"{record.status} ({record.error.strip().splitlines()[-1]})" if record.error else record.status
    if (value := record.last(spec.evaluation.metric)) is not None:
        return f"{spec.evaluation.metric} {value:.4f}"
    if (speed := record.last(metrics.TRAINING_THROUGHPUT.name)) is not None:
        return f"{speed:,.0f} {metrics.TRAINING_THROUGHPUT.unit} in training"
    return "done"


def _in_block(block: Agenda) -> str:
    """Return the label of a run's block, to be written before the run; an empty string in a grid of one block."""
    return f"{block.study.block}: " if block.study.block else ""


def _row(block: Agenda, cell: CellKey) -> tuple[str, ...]:
    """Return what the live view says of a cell."""
    spec = block.study.spec
    times = range(spec.times_tuned())
    trials = [block.trials(cell, time) for time in times]
    evaluated = [block.evaluated(cell, time) for time in times]
    return (
        f"{_in_block(block)}{cell.label(spec.function)}",
        f"{sum(map(len, trials))}/{len(times) * spec.trials(cell)}",
        f"{sum(map(len, evaluated))}/{len(times) * spec.evaluation.seeds}",
        _best(trials[0], spec.metric()),
        _mean(evaluated[0], spec.evaluation.metric),
    )


def _best(trials: Sequence[Trial], metric: Metric) -> str:
    """Write the best trial's mean over the tuning seeds."""
    best = best_first(trials, metric)[:1]
    return f"{best[0].mean:.4f}" if best and best[0].mean is not None else ""


def _together(requests: Sequence[Request]) -> str:
    """Write what is run as one unit in a few words."""
    phase, net, count = requests[0].phase, requests[0].cell.net, len(requests)
    if phase == "fit":
        return f"fit: {net}" if count == 1 else f"fit: {net} with {count} seeds"
    if phase != "throughput":
        return f"{phase}: {count} runs of {requests[0].cell} together"
    return f"{phase}: {count} cells in turn"


def _mean(records: Sequence[RunRecord], metric: str) -> str:
    values = [value for record in records if (value := record.last(metric)) is not None]
    return f"{sum(values) / len(values):.4f}" if values else ""
