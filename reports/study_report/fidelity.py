"""Sum up how well nets were fitted: a net's errors by region of its inputs, over all its fits in a study."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trans4init.reports.formats import setting, spoken
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord

__all__ = ["FidelityRow", "fidelity"]


@dataclass(frozen=True)
class FidelityRow:
    """Holds a net's errors on one region of its inputs."""

    function: str
    net: str
    """The net's name, with what its trial has chosen."""
    region: str
    """The region's name, such as 0..127."""
    fitted: bool
    """Whether the net was fitted on this region."""
    errors: Mapping[str, float]
    """The errors on this region, by quantity: the mean over the fits."""
    costs: Mapping[str, float]
    """What the whole net costs, by quantity: parameters, FLOP, times. The same in every row of a net."""
    leads: bool = True
    """Whether this is the first row of its net."""
    fits: int = 1
    """The number of fits, each with a seed of its own, that the errors and costs are the means of."""
    spreads: Mapping[str, float] = field(default_factory=dict)
    """The standard deviation of each error over the fits; empty for one fit."""


def fidelity(records: Iterable[RunRecord]) -> tuple[FidelityRow, ...]:
    """Return the rows of all nets, sorted by function, net and number of trained values.

    In a study, the fits of a net that differ in nothing but their seed are summed up; single fits have rows each.
    Fits that went wrong have none.
    """
    fits = sorted(
        (record for record in records if record.phase == "fit"),
        key=lambda fit: (fit.cell.function, fit.cell.net, fit.last(metrics.NET_PARAMETERS.name) or 0, fit.seed),
    )
    alike: dict[tuple[object, ...], list[RunRecord]] = {}
    for fit in fits:
        single = fit.run_id if fit.card is None else ""
        parameters = fit.last(metrics.NET_PARAMETERS.name)
        if _by_region(fit)[0]:
            alike.setdefault(
                (fit.cell, parameters, _with_settings(fit), fit.spec_hash, fit.notes.get("fitted_on"), single), []
            ).append(fit)
    return tuple(row for group in alike.values() for row in _rows(group))


def _rows(fits: Sequence[RunRecord]) -> list[FidelityRow]:
    """Return a row for each region of fits that are alike."""
    first, measured = fits[0], [_by_region(fit) for fit in fits]
    costs = _over_fits(np.mean, [costs for _, costs in measured])
    rows = []
    for index, region in enumerate(measured[0][0]):
        errors = [regions.get(region, {}) for regions, _ in measured]
        spreads = _over_fits(lambda values: np.std(values, ddof=1), errors) if len(fits) > 1 else {}
        fitted = region == first.notes.get("fitted_on", "")
        row = FidelityRow(
            first.cell.function,
            _with_settings(first),
            region,
            fitted,
            _over_fits(np.mean, errors),
            costs,
            leads=not index,
            fits=len(fits),
            spreads=spreads,
        )
        rows.append(row)
    return rows


def _with_settings(fit: RunRecord) -> str:
    """Return the name of a fit's net, with the settings that tuning chose: "searched (rational, numerator 3)"."""
    kind = [str(value) for name, value in fit.parameters.items() if name == "net"]
    sizes = [
        f"{spoken(name.rpartition('.')[2])} {setting(value)}" for name, value in fit.parameters.items() if name != "net"
    ]
    return f"{fit.cell.net} ({', '.join([*kind, *sizes])})" if fit.parameters else fit.cell.net


def _by_region(record: RunRecord) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return a fit's errors by region and quantity, and its costs by quantity.

    A metric is called `quantity/region`; a cost has no region.
    """
    by_region: dict[str, dict[str, float]] = {}
    costs: dict[str, float] = {}
    for m in record.measurements:
        quantity, _, region = m.metric.name.partition("/")
        if m.value is not None:
            (by_region.setdefault(region, {}) if region else costs)[quantity] = m.value
    return by_region, costs


def _over_fits(
    sum_up: Callable[[list[float]], np.floating[Any]], fits: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Sum up each quantity over the fits; one that only some of them have is left out."""
    return {
        quantity: float(sum_up([fit[quantity] for fit in fits]))
        for quantity in fits[0]
        if all(quantity in fit for fit in fits)
    }
