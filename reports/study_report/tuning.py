"""Choose the tuning trial whose settings a cell is evaluated with."""

from collections.abc import Sequence

from trans4init.reports.records.schema import Metric, RunRecord

__all__ = ["best_trial"]


def best_trial(trials: Sequence[RunRecord], metric: Metric, budget: int) -> RunRecord | None:
    """Return the best of a cell's trials by `metric`: the earlier one of ties, the first if no trial has a value.

    Trials from number `budget` on, from a time when the study had more, don't count: every cell has the same budget.
    None if no trial is left.
    """
    within = [record for record in trials if record.trial is not None and record.trial < budget]
    ordered = sorted(within, key=lambda record: record.trial or 0)
    if not ordered:
        return None
    best, best_value = ordered[0], None
    for record in ordered:
        value = record.last(metric.name)
        better = value is not None and (
            best_value is None or (value > best_value if metric.higher_is_better else value < best_value)
        )
        if record.status == "ok" and better:
            best, best_value = record, value
    return best
