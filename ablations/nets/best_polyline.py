"""Computes the continuous polyline of K pieces with the smallest largest error, and a bound that none can beat."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.errors import InputError

__all__ = ["Polyline", "best_polyline", "exact_polyline", "limit"]

Floats = NDArray[np.float64]

_STARTS = 96
"""How many places along the last piece are tried as the start of the next: more cost time and gain little."""
_FIRST_LOOK = 128
"""How many points ahead of a piece's start are looked at first; four times as many while that is not far enough."""
_BISECTIONS = 40
"""How often the interval of the smallest error is halved."""
_ROUNDING = 1e-9
"""Slope changes below this fraction of the steepest slope are rounding noise and count as none."""


@dataclass(frozen=True)
class Polyline:
    """Is a continuous piecewise-linear function through (x, y), both [K + 1]; x ascending."""

    x: Floats
    y: Floats
    error: float
    """Largest distance from the function, at the points that the polyline was computed from."""


def best_polyline(x: Floats, y: Floats, pieces: int, *, flat: int | None = None) -> Polyline:
    """Compute the continuous polyline of at most `pieces` pieces with the smallest largest error at the points (x, y).

    x [N] ascending, y [N]. flat: the number, from 0, of a piece that has to be horizontal. The error is bisected;
    inside a corridor of that half-width, each piece starts at the place on the piece before, and takes the direction,
    that let it reach farthest (Imai and Iri 1986, An Optimal Algorithm for Approximating a Piecewise Linear Function).
    With a horizontal piece the result is a good polyline, not always the best. Raises InputError where no polyline has
    a horizontal piece there.
    """
    _check(x, y, pieces)
    exact = exact_polyline(x, y, pieces) if flat is None else None
    if exact is not None:
        return exact
    low, high, corners = 0.0, float(np.ptp(y)) + 1e-300, None
    for _ in range(_BISECTIONS):
        error = high if corners is None else (low + high) / 2
        inside = _within(x, y, error, pieces, flat)
        if inside is None:
            low, high = error, max(high, 2 * error if corners is None else high)
        else:
            corners, high = inside, error
    if corners is None:
        raise InputError(f"no polyline of {pieces} pieces has a horizontal piece {flat} here.")
    distance = np.abs(np.interp(x, *corners) - y).max()
    return Polyline(*corners, float(distance))


def exact_polyline(x: Floats, y: Floats, pieces: int) -> Polyline | None:
    """Return the polyline of at most `pieces` pieces through all points (x, y) [N], with corners at points, or None."""
    slopes = np.diff(y) / np.diff(x)
    corners = 1 + np.flatnonzero(np.abs(np.diff(slopes)) > _ROUNDING * np.abs(slopes).max())
    if len(corners) >= pieces or len(x) < 3 * pieces:
        return None
    ends = np.concatenate([[0], corners, [len(x) - 1]])
    return Polyline(x[ends], y[ends], 0.0)


def limit(x: Floats, y: Floats, pieces: int) -> float:
    """Compute the smallest largest error of `pieces` lines that need not meet: no net of so many pieces is better.

    The best line of a piece has half the vertical thickness of its points' convex hull as its error (Chebyshev).
    """
    _check(x, y, pieces)
    low, high = 0.0, best_polyline(x, y, pieces).error
    for _ in range(12):
        error = (low + high) / 2
        start = 0
        for _ in range(pieces):
            start = _farthest(x, y, start, error) + 1
            if start >= len(x):
                break
        low, high = (low, error) if start >= len(x) else (error, high)
    return high


def _check(x: Floats, y: Floats, pieces: int) -> None:
    if pieces < 1 or len(x) != len(y) or len(x) < 2 or not (np.diff(x) > 0).all():
        raise InputError("a polyline needs at least one piece, and at least two points with ascending x.")


def _within(x: Floats, y: Floats, error: float, pieces: int, flat: int | None) -> tuple[Floats, Floats] | None:
    """Return the corners of a polyline within the corridor; None where `pieces` pieces don't reach its end."""
    low, high = y - error, y + error
    start_x, start_y = np.full(_STARTS, x[0]), np.linspace(low[0], high[0], _STARTS)
    corners: list[tuple[float, float]] = []
    for piece in range(pieces):
        if piece == flat:
            inside = (low <= start_y[:, None]) & (start_y[:, None] <= high) | (x < start_x[:, None])
            steps = np.logical_and.accumulate(inside, axis=1).sum(axis=1)
            best = int(steps.argmax())
            reached, slope = int(steps[best]) - 1, 0.0
        else:
            best, reached, slope = _reach(x, low, high, start_x, start_y)
        corners.append((start_x[best], start_y[best]))
        if reached == len(x) - 1:
            corners.append((x[-1], start_y[best] + slope * (x[-1] - start_x[best])))
            return np.array([c[0] for c in corners]), np.array([c[1] for c in corners])
        if x[reached] <= start_x[best]:
            return None
        begin = corners[-1]
        start_x = np.linspace(x[reached], begin[0], _STARTS, endpoint=False)
        start_y = begin[1] + slope * (start_x - begin[0])
    return None


def _reach(x: Floats, low: Floats, high: Floats, start_x: Floats, start_y: Floats) -> tuple[int, int, float]:
    """Return the start that gets farthest inside the corridor, the last point it reaches, and the slope."""
    first = int(np.searchsorted(x, start_x.min(), side="right"))
    ahead = _FIRST_LOOK
    while True:  # most pieces end long before the corridor does
        end = first + ahead
        least, most = _directions(x[first:end], low[first:end], high[first:end], start_x, start_y)
        if end >= len(x) or bool((least[:, -1] > most[:, -1]).all()):
            break
        ahead *= 4
    steps_inside = (least <= most).sum(axis=1)
    best = int(steps_inside.argmax())
    last = int(steps_inside[best]) - 1
    if last < 0:
        return best, first - 1, 0.0
    slopes = least[best, last], most[best, last]
    if first + last == len(x) - 1:
        return best, len(x) - 1, float(sum(slopes) / 2)
    # the slope towards the first point out of reach
    return best, first + last, float(slopes[1] if least[best, last + 1] > slopes[1] else slopes[0])


def _directions(x: Floats, low: Floats, high: Floats, start_x: Floats, start_y: Floats) -> tuple[Floats, Floats]:
    """Return the least and the greatest slope that keeps a line from each start inside up to each point [starts, N]."""
    steps = x - start_x[:, None]
    ahead = steps > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(ahead, (low - start_y[:, None]) / steps, -np.inf)
        most = np.where(ahead, (high - start_y[:, None]) / steps, np.inf)
    return np.maximum.accumulate(least, axis=1), np.minimum.accumulate(most, axis=1)


def _farthest(x: Floats, y: Floats, start: int, error: float) -> int:
    """Return the last point up to which a single line from `start` on has at most that error."""
    low, high = start, len(x) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _thickness(x[start : middle + 1], y[start : middle + 1]) <= 2 * error:
            low = middle
        else:
            high = middle - 1
    return low


def _thickness(x: Floats, y: Floats) -> float:
    if len(x) <= 2:
        return 0.0
    upper, lower = _hull(x, y, 1), _hull(x, y, -1)
    return float((np.interp(x, x[upper], y[upper]) - np.interp(x, x[lower], y[lower])).max())


def _hull(x: Floats, y: Floats, side: int) -> list[int]:
    """Return the points on the upper (side 1) or lower (side −1) convex hull (Andrew 1979)."""
    chain: list[int] = []
    xs, ys = x.tolist(), (side * y).tolist()
    for point in range(len(xs)):
        while len(chain) >= 2:
            a, b = chain[-2], chain[-1]
            if (xs[b] - xs[a]) * (ys[point] - ys[a]) < (ys[b] - ys[a]) * (xs[point] - xs[a]):
                break
            chain.pop()
        chain.append(point)
    return chain
