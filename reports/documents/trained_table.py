"""Make a table of trained models: what each recipe reached on its test split, and how long that took."""

from collections.abc import Sequence

from trans4init.reports.formats import spoken
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord

__all__ = ["trained_table"]

_TESTED = "/test"
"""The end of a metric's name that was measured on the test split."""


def trained_table(records: Sequence[RunRecord], wanted: Sequence[str]) -> str:
    """Return a Markdown table with a line for each recipe, all its seeds together.

    wanted: names of metrics; each line shows those of them that its task has.
    """
    recipes: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: (_task(record), record.model, record.cell.function, record.seed)):
        key = (_task(record), record.model, record.cell.function, str(record.spec["training"]["steps"]))
        recipes.setdefault(key, []).append(record)
    lines = ["| task | model | positions | steps | test | processor time |", "| --- | --- | --- | ---: | --- | ---: |"]
    for (*names, steps), runs in recipes.items():
        reached = [f"{spoken(name)} {span}" for name in wanted if (span := _reached(runs, name))]
        seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
        cells = [*names, f"{int(steps):,}", ", ".join(reached) + seeds, _span(_took(runs)) or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _task(record: RunRecord) -> str:
    """Return the task with its data, which tells two recipes of one task apart."""
    task = record.spec["task"]
    data = [str(task[key]) for key in ("source", "split") if task.get(key, "generated") != "generated"]
    return " ".join([record.task, *data])


def _reached(runs: Sequence[RunRecord], name: str) -> str:
    """Return the lowest and the highest test value of the runs; empty if they have none.

    A metric that was not measured on the test split is taken from training; a test without a value is left out.
    """
    values = [run.last(name + _TESTED) if _tested(run, name) else run.last(name) for run in runs]
    return _span([f"{value:.4g}" for value in sorted(value for value in values if value is not None)])


def _tested(run: RunRecord, name: str) -> bool:
    return any(m.metric.name == name + _TESTED for m in run.measurements)


def _took(runs: Sequence[RunRecord]) -> list[str]:
    """Return the processor times of the runs, ascending."""
    values = sorted(value for run in runs if (value := run.last(metrics.PROCESSOR_TIME.name)) is not None)
    return [f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.0f} s" for seconds in values]


def _span(texts: Sequence[str]) -> str:
    """Return the first and the last of ascending values; one where they are the same, and empty for no values."""
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
