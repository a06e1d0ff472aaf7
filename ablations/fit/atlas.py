"""The atlas: fits of every function by every net in several sizes, beside published approximations and lower bounds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fidelity import QUANTITIES, region_errors
from trans4init.ablations.fit.jobs import Wanted, fit_many
from trans4init.ablations.fit.optimise import FitDivergedError
from trans4init.ablations.fit.records import fit_request, record_of, run_id_of, save_fit
from trans4init.ablations.functions import Domain, Function, get_function, list_functions
from trans4init.ablations.nets import build_net, list_nets, net_class
from trans4init.ablations.nets.best_polyline import limit
from trans4init.ablations.nets.best_relu import curvature_points
from trans4init.ablations.slots.contents import Analytic, Content
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement, RunRecord
from trans4init.reports.records.store import path_of, write_run

__all__ = ["Entry", "entries", "make"]

STEPS = 600
"""Steps of Adam for nets that don't start from the data."""

_LIMIT_PIECES = (4, 8, 16, 32)
"""Numbers of lines for which the atlas shows the smallest possible largest error."""


@dataclass(frozen=True)
class Entry:
    """Holds one point of the atlas. kind: `net`, `published` (an approximation) or `limit` (of K pieces)."""

    function: str
    net: str
    size: dict[str, Any]
    kind: str = "net"


def entries(only: str | None = None) -> list[Entry]:
    """List the points of all functions, or of one; raises InputError for a function that can't be fitted."""
    if only is not None and not get_function(only).fittable():
        raise InputError(f"{only} can't be fitted: {get_function(only).tails}.")
    names = [only] if only is not None else list_functions()
    return [entry for name in names if get_function(name).fittable() for entry in _of(get_function(name))]


def make(folder: Path, plan: list[Entry]) -> Iterator[tuple[Entry, str]]:
    """Make the points that are not in `folder` yet, fits that are alike together.

    Yields each point with "made", "found" (it was there) or "diverged".
    """
    waiting: list[Entry] = []
    for entry in plan:
        function = get_function(entry.function)
        request = _request(entry, function)
        if path_of(folder / "results", run_id_of(request, 0)).exists():
            yield entry, "found"
        elif entry.kind == "net":
            waiting.append(entry)
        else:
            write_run(_reference(entry, function, request), folder / "results")
            yield entry, "made"
    wanted = [Wanted(entry.function, entry.net, entry.size) for entry in waiting]
    for index, outcome in fit_many(wanted, steps=STEPS):
        entry = waiting[index]
        if isinstance(outcome, FitDivergedError):
            loss = (Measurement(metrics.FIT_LOSS, None),)
            request = _request(entry, get_function(entry.function))
            write_run(record_of(request, 0, loss, {}, status="diverged", error=str(outcome)), folder / "results")
            yield entry, "diverged"
        else:
            save_fit(outcome, {"steps": STEPS}, folder)
            yield entry, "made"


def _of(function: Function) -> Iterator[Entry]:
    """List the points of a function: its nets, its published approximations, and the limits of lines."""
    name = function.located
    for net in list_nets():
        kind = net_class(net)
        if kind.takes == function.takes:
            for size in kind.atlas_position_sizes if function.domain.integer else kind.atlas_sizes:
                yield Entry(name, net, dict(size))
    for other in list_functions():
        if get_function(other).approximates == name:
            yield Entry(name, other, {}, "published")
    if function.takes == "numbers" and function.elementwise and not function.domain.integer and not function.log_values:
        for pieces in _LIMIT_PIECES:
            yield Entry(name, "limit", {"pieces": pieces}, "limit")


def _request(entry: Entry, function: Function) -> dict[str, Any]:
    shape = dict(function.default_shape)
    if entry.kind == "net":
        net = build_net(entry.net, function.domain, function.outputs(**shape), **entry.size)
        return fit_request(function, shape, net, {"steps": STEPS})
    return {"function": entry.function, "net": entry.net, "size": entry.size, "kind": entry.kind}


def _reference(entry: Entry, function: Function, request: dict[str, Any]) -> RunRecord:
    """Measure a published approximation as a net is measured, or compute the largest error of the best K lines."""
    notes = {"kind": entry.kind, "fitted_on": str(function.domain)}
    if entry.kind == "published":
        content = _InPlaceOf(function, get_function(entry.net))
        measurements = []
        for region in (function.domain, *function.domain.beyond(function.support)):
            errors = region_errors(
                content, function.points(region, 4001), str(region), fitted=region is function.domain
            )
            measurements += [
                Measurement(metrics.over_region(quantity, errors.region), getattr(errors, quantity))
                for quantity in QUANTITIES
            ]
        return record_of(request, 0, tuple(measurements), notes)
    pieces = entry.size["pieces"]
    return record_of(request, 0, tuple(_limit(function, function.domain, pieces)), notes)


def _limit(function: Function, domain: Domain, pieces: int) -> list[Measurement]:
    x = domain.points(8001).numpy()
    dense = curvature_points(x, function.analytic(domain.points(8001)).numpy(), 1001)
    y = function.analytic(torch.from_numpy(dense)).numpy()
    return [
        Measurement(metrics.over_region("max_error", str(domain)), limit(dense, y, pieces)),
        Measurement(metrics.NET_PARAMETERS, 2 * pieces),  # a polyline of so many pieces has that many kinks and values
    ]


class _InPlaceOf(Content):
    """Puts a published approximation in the place of its function."""

    def __init__(self, function: Function, approximation: Function) -> None:
        super().__init__(function, {})
        self.approximation: Content = Analytic(approximation, {})

    def value(self, inputs: Tensor) -> Tensor:
        return self.approximation.value(inputs)
