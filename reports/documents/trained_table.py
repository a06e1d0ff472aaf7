"""A table of trained models: what each recipe reached on its test split, and what that took."""

from collections.abc import Sequence

from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord

__all__ = ["trained_table"]

_TESTED = "/test"


def trained_table(records: Sequence[RunRecord], wanted: Sequence[str]) -> str:
    """Markdown: a line for each recipe, its seeds together.

    wanted: names of metrics; each line has those of them that its task was tested in.
    """
    recipes: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (_task(record), record.model, record.cell.function, record.seed)):
        key = (_task(record), record.model, record.cell.function, str(record.spec["training"]["steps"]))
        recipes.setdefault(key, []).append(record)
    lines = ["| task | model | positions | steps | test | processor time |", "| --- | --- | --- | ---: | --- | ---: |"]
    for (*words, steps), runs in recipes.items():
        reached = [f"{name.replace('_', ' ')} {found}" for name in wanted if (found := _reached(runs, name))]
        seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
        cells = [*words, f"{int(steps):,}", ", ".join(reached) + seeds, _span(_took(runs)) or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _task(record: RunRecord) -> str:
    """The task, and which of its data: what tells two recipes of one task apart."""
    task = record.spec["task"]
    which = [str(task[key]) for key in ("source", "split") if task.get(key, "generated") != "generated"]
    return " ".join([record.task, *which])


def _reached(runs: Sequence[RunRecord], name: str) -> str:
    """What the runs were tested to, lowest and highest, or what sums their training up; empty without both."""
    found = [run.last(name + _TESTED) if _tested(run, name) else run.last(name) for run in runs]
    return _span([f"{value:.4g}" for value in sorted(value for value in found if value is not None)])


def _tested(run: RunRecord, name: str) -> bool:
    return any(m.metric.name == name + _TESTED for m in run.measurements)


def _took(runs: Sequence[RunRecord]) -> list[str]:
    values = sorted(value for run in runs if (value := run.last(metrics.PROCESSOR_TIME.name)) is not None)
    return [f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.0f} s" for seconds in values]


def _span(words: Sequence[str]) -> str:
    return "" if not words else words[0] if words[0] == words[-1] else f"{words[0]} to {words[-1]}"
