"""Computes the one-hidden-layer ReLU net of one number with the smallest largest error, without training.

A net of K − 1 units is a polyline of K pieces whose first slope is not free: each unit that faces left adds −Δ to it,
where Δ is the change of slope at its kink. The units that face left are chosen so that the sum is near the first slope
of the best polyline; linear programs then move kinks and changes until the largest error stops falling.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.nets.best_polyline import Polyline, best_polyline, exact_polyline

__all__ = ["ReluUnits", "best_relu_units", "curvature_points", "interpolated", "resampled"]

Floats = NDArray[np.float64]

_ENUMERATED = 15
"""Up to this many units K, all 2^K choices of facing are compared: each more doubles time and memory."""


@dataclass(frozen=True)
class ReluUnits:
    """Is the function c + Σ Δ_k relu(±(x − t_k)), with + where unit k faces right."""

    kinks: Floats
    changes: Floats
    left: NDArray[np.bool_]
    offset: float
    error: float


def curvature_points(x: Floats, y: Floats, count: int) -> Floats:
    """Spread `count` points between the ends of x [N], denser where y [N] curves.

    Each piece of a best polyline gets about as many.
    """
    curvature = np.sqrt(np.abs(np.gradient(np.gradient(y, x), x)))
    curvature[:3], curvature[-3:] = curvature[3], curvature[-4]
    density = curvature / (curvature.mean() or 1.0) + 0.1
    share = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    points: Floats = np.interp(np.linspace(0, share[-1], count), share, x)
    return points


def interpolated(x: Floats, y: Floats, at: Floats) -> Floats:
    """Evaluate a cubic spline through (x, y) [N], which between dense points is nearly as exact as the function."""
    from scipy.interpolate import CubicSpline  # slow to import, and only needed here

    values: Floats = CubicSpline(x, y)(at)
    return values


def resampled(x: Floats, y: Floats, count: int, pieces: int) -> tuple[Floats, Floats]:
    """Reduce (x, y) [N] to `count` points, denser where y curves; leave them as they are on `pieces` lines."""
    if exact_polyline(x, y, pieces) is not None:
        return x, y
    dense = curvature_points(x, y, min(count, len(x)))
    return dense, interpolated(x, y, dense)


def best_relu_units(x: Floats, y: Floats, units: int) -> ReluUnits:
    """Compute the best net of so many units on points (x, y) [N], x ascending, from several starts."""
    free = best_polyline(x, y, units + 1)
    starts: list[tuple[Polyline, NDArray[np.bool_] | None]] = [(free, left) for left in _facings(free)]
    starts.append((best_polyline(x, y, units + 1, flat=0), None))
    nets = [_improved(x, y, *_units(polyline, units, left)) for polyline, left in starts]
    return min(nets, key=lambda net: net.error)


def _facings(polyline: Polyline) -> list[NDArray[np.bool_]]:
    """Return the two choices of facing that come nearest to the polyline's first slope; none above _ENUMERATED."""
    slopes = np.diff(polyline.y) / np.diff(polyline.x)
    changes = np.diff(slopes)
    if not 0 < len(changes) <= _ENUMERATED:
        return []
    ways = np.array(list(product((False, True), repeat=len(changes))))
    order = np.argsort(np.abs(ways @ changes + slopes[0]), kind="stable")
    return [ways[index] for index in order[:2]]


def _units(polyline: Polyline, units: int, left: NDArray[np.bool_] | None) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return kinks, slope changes and facing of units that make the polyline; spare units are spread over its range."""
    kinks, changes = polyline.x[1:-1], np.diff(np.diff(polyline.y) / np.diff(polyline.x))
    facing = np.zeros(len(kinks), dtype=bool) if left is None else left
    idle = units - len(kinks)
    spare = np.linspace(polyline.x[0], polyline.x[-1], idle + 2)[1:-1]
    kinks, changes = np.concatenate([kinks, spare]), np.concatenate([changes, np.zeros(idle)])
    facing = np.concatenate([facing, np.zeros(idle, dtype=bool)])
    order = np.argsort(kinks, kind="stable")
    return kinks[order], changes[order], facing[order]


def _improved(x: Floats, y: Floats, kinks: Floats, changes: Floats, left: NDArray[np.bool_]) -> ReluUnits:
    """Improve a net by sequential linear programs with a trust region on the kinks."""
    changes, offset, error, _ = _program(x, y, kinks, changes, left, 0.0)
    trust = 0.3
    while trust > 3e-3:
        moved = kinks + _program(x, y, kinks, changes, left, trust)[3]
        better = _program(x, y, moved, changes, left, 0.0)
        if better[2] < error * (1 - 1e-4):
            kinks, changes, offset, error = moved, better[0], better[1], better[2]
            trust = min(0.45, 1.5 * trust)
        else:
            trust /= 3
    return ReluUnits(kinks, changes, left, offset, error)


def _program(
    x: Floats, y: Floats, kinks: Floats, changes: Floats, left: NDArray[np.bool_], trust: float
) -> tuple[Floats, float, float, Floats]:
    """Solve for slope changes, offset, largest error and steps of the kinks, with the net linearised in the kinks."""
    from scipy.optimize import linprog

    x, y = np.concatenate([x, kinks]), np.concatenate([y, interpolated(x, y, kinks)])  # where errors are largest
    units, ahead = len(kinks), x[:, None] > kinks
    columns = [
        np.where(left, np.maximum(kinks - x[:, None], 0), np.maximum(x[:, None] - kinks, 0)),
        np.ones((len(x), 1)),
    ]
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * (units + 1)
    if trust:
        columns.append(np.where(left, ~ahead * changes, -(ahead * changes)))
        edges = np.concatenate([[x.min()], kinks, [x.max()]])
        room = np.minimum(np.diff(edges)[:-1], np.diff(edges)[1:]).clip(0) * trust
        bounds += [(-step, step) for step in room]
    design, slack = np.hstack(columns), np.ones((len(x), 1))
    solved = linprog(
        np.concatenate([np.zeros(design.shape[1]), [1]]),
        A_ub=np.vstack([np.hstack([design, -slack]), np.hstack([-design, -slack])]),
        b_ub=np.concatenate([y, -y]),
        bounds=[*bounds, (0, None)],
        method="highs",
    )
    if solved.x is None:
        return changes, 0.0, float("inf"), np.zeros(units)
    steps = solved.x[units + 1 : 2 * units + 1] if trust else np.zeros(units)
    return solved.x[:units], float(solved.x[units]), float(solved.x[-1]), steps
