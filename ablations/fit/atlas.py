"""The atlas: every function with every net in several sizes, the published approximations, and what can't be beaten."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fidelity import QUANTITIES, region_errors
from trans4init.ablations.fit.jobs import FitDivergedError, Wanted, fit_many
from trans4init.ablations.fit.records import asked, keep, record_of, run_id_of
from trans4init.ablations.functions import Domain, Function, get_function, list_functions
from trans4init.ablations.nets import build_net, list_nets, net_class
from trans4init.ablations.nets.best_polyline import limit
from trans4init.ablations.nets.best_relu import curvature_points
from trans4init.ablations.slots.contents import Analytic, Content
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement, RunRecord
from trans4init.reports.records.store import path_of, write_run

__all__ = ["SIZES", "Entry", "entries", "make"]

STEPS = 600
"""Steps of Adam for nets that can't be placed."""

_LIMIT_PIECES = (4, 8, 16, 32)

SIZES: dict[str, tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]] = {
    "deep-set": (({"summed": 2, "hidden": 8}, {"summed": 4, "hidden": 32}), ()),
    "fourier": (({"frequencies": 4}, {"frequencies": 16}), ({"frequencies": 16}, {"frequencies": 64})),
    "fourier-mlp": (({"hidden": (8,), "frequencies": 4},), ({"hidden": (64,), "frequencies": 32},)),
    "linear": (({},), ()),
    "mlp": (({"hidden": (8, 8)}, {"hidden": (32, 32)}), ({"hidden": (64, 64)},)),
    "mlp-gelu": (({"hidden": (8,)}, {"hidden": (32,)}), ({"hidden": (128,)},)),
    "mlp-relu": (({"hidden": (3,)}, {"hidden": (7,)}, {"hidden": (15,)}), ({"hidden": (128,)},)),
    "piecewise-linear": (tuple({"pieces": k} for k in (4, 8, 16, 32)), ({"pieces": 32}, {"pieces": 128})),
    "rational": (
        tuple({"numerator": m, "denominator": n} for m, n in ((3, 2), (5, 4), (7, 6))),
        ({"numerator": 7, "denominator": 6},),
    ),
    "siren": (({"hidden": (8,)}, {"hidden": (32,)}), ({"hidden": (64, 64)},)),
    "spline": (tuple({"intervals": k} for k in (4, 16, 64)), ({"intervals": 64}, {"intervals": 512})),
}
"""Sizes of each net: for functions of reals, and for positions, which have many outputs. Others: their default."""


@dataclass(frozen=True)
class Entry:
    """One point of the atlas. kind: a net that is fitted, a published approximation, or the limit for K pieces."""

    function: str
    net: str
    size: dict[str, Any]
    kind: str = "net"


def entries(only: str | None = None) -> list[Entry]:
    """All points, function by function, or those of one function; raises InputError for one that can't be fitted."""
    if only is not None and not get_function(only).fittable():
        raise InputError(f"{only} can't be fitted: {get_function(only).tails}.")
    names = [only] if only is not None else list_functions()
    return [entry for name in names if get_function(name).fittable() for entry in _of(get_function(name))]


def make(folder: Path, plan: list[Entry]) -> Iterator[tuple[Entry, str]]:
    """Do what is not in `folder` yet, fits that are alike together; yields each with "made", "found" or "diverged"."""
    waiting: list[Entry] = []
    for entry in plan:
        function = get_function(entry.function)
        words = _words(entry, function)
        if path_of(folder / "results", run_id_of(words, 0)).exists():
            yield entry, "found"
        elif entry.kind == "net":
            waiting.append(entry)
        else:
            write_run(_reference(entry, function, words), folder / "results")
            yield entry, "made"
    wanted = [Wanted(entry.function, entry.net, entry.size) for entry in waiting]
    for index, outcome in fit_many(wanted, steps=STEPS):
        entry = waiting[index]
        if isinstance(outcome, FitDivergedError):
            nothing = (Measurement(metrics.FIT_LOSS, None),)
            words = _words(entry, get_function(entry.function))
            write_run(record_of(words, 0, nothing, {}, status="diverged", error=str(outcome)), folder / "results")
            yield entry, "diverged"
        else:
            keep(outcome, {"steps": STEPS}, folder)
            yield entry, "made"


def _of(function: Function) -> Iterator[Entry]:
    name = function.located
    for net in list_nets():
        if net_class(net).takes == function.takes:
            for size in SIZES.get(net, (({},), ({},)))[function.domain.integer]:
                yield Entry(name, net, size)
    for other in list_functions():
        if get_function(other).approximates == name:
            yield Entry(name, other, {}, "published")
    if function.takes == "numbers" and function.elementwise and not function.domain.integer and not function.log_values:
        for pieces in _LIMIT_PIECES:
            yield Entry(name, "limit", {"pieces": pieces}, "limit")


def _words(entry: Entry, function: Function) -> dict[str, Any]:
    shape = dict(function.default_shape)
    if entry.kind == "net":
        net = build_net(entry.net, function.domain, function.outputs(**shape), **entry.size)
        return asked(function, shape, net, {"steps": STEPS})
    return {"function": entry.function, "net": entry.net, "size": entry.size, "kind": entry.kind}


def _reference(entry: Entry, function: Function, words: dict[str, Any]) -> RunRecord:
    """A published approximation, measured as a net is; or the largest error of the best K lines."""
    notes = {"kind": entry.kind, "fitted_on": str(function.domain)}
    if entry.kind == "published":
        content = _InPlaceOf(function, get_function(entry.net))
        found = []
        for region in (function.domain, *function.domain.beyond(function.support)):
            errors = region_errors(
                content, function.points(region, 4001), str(region), fitted=region is function.domain
            )
            found += [
                Measurement(metrics.over_region(quantity, errors.region), getattr(errors, quantity))
                for quantity in QUANTITIES
            ]
        return record_of(words, 0, tuple(found), notes)
    pieces = entry.size["pieces"]
    return record_of(words, 0, tuple(_limit(function, function.domain, pieces)), notes)


def _limit(function: Function, domain: Domain, pieces: int) -> list[Measurement]:
    x = domain.points(8001).numpy()
    dense = curvature_points(x, function.analytic(domain.points(8001)).numpy(), 1001)
    y = function.analytic(torch.from_numpy(dense)).numpy()
    return [
        Measurement(metrics.over_region("max_error", str(domain)), limit(dense, y, pieces)),
        Measurement(metrics.NET_PARAMETERS, 2 * pieces),  # as a polyline of so many pieces has: inner knots and values
    ]


class _InPlaceOf(Content):
    """A published approximation in the place of its function."""

    def __init__(self, function: Function, approximation: Function) -> None:
        super().__init__(function, {})
        self.approximation: Content = Analytic(approximation, {})

    def value(self, inputs: Tensor) -> Tensor:
        return self.approximation.value(inputs)
