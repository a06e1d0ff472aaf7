"""What a net in a function's place does outside the domain that it was fitted on: it goes on as the function's tail.

Beyond an end of the domain where the function approaches a line, the net's value at that end is continued by a
polyline through the function's own tail, which ends on the line. The net's error stays what it is at that end.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from trans4init.ablations.functions.base import Domain, Function, Line

__all__ = ["Tails", "tails_of"]

_SEGMENTS, _LOG_SEGMENTS = 8, 64
"""The pieces of one side's polyline between the end of the domain and the line, whose error is 0.5 and 0.01 % of the
function's distance from its line at the end of the domain."""

_LAST = 7.0
"""A piece that ends on the line where the function is this many times as near as at its start is the best for a
distance that shrinks exponentially: it is as far above as below."""

_NEGLIGIBLE = 1e-9
"""A tail that is this close to its line at the end of the domain is the line."""


@dataclass(frozen=True)
class Tails:
    """Continues a net: 0 inside the domain, and outside what is added to the net's value at its end.

    Over a logarithmic domain input and value are logarithms. kinks [K − 1], lines [2, K], float64, as of
    `kernels.polyline`; low and high: where the net ends, in its own inputs; infinite where it goes on by itself.
    """

    low: float
    high: float
    kinks: Tensor
    lines: Tensor


def tails_of(function: Function, domain: Domain, shape: Mapping[str, int], *, short: bool = False) -> Tails | None:
    """Return the tails of nets on `domain`; None for a function that approaches no line on either side.

    short: reach the line in one piece, with 14 % of the function's distance from it at the end of the domain as error:
    for a net that is a polyline itself, which is less exact than that and as slow as it has pieces.
    """
    if not function.elementwise or function.asymptotes == (None, None):
        return None
    segments = 1 if short else _LOG_SEGMENTS if domain.log else _SEGMENTS
    return _tails(type(function), domain, segments, tuple(sorted(shape.items())))


@cache
def _tails(function: type[Function], domain: Domain, segments: int, shape: tuple[tuple[str, int], ...]) -> Tails:
    made, arguments = function(), dict(shape)
    left, right = made.asymptotes
    ends = (math.log(domain.low), math.log(domain.high)) if domain.log else (domain.low, domain.high)

    def value(place: float) -> float:
        """Compute the function, in logarithms over a logarithmic domain."""
        point = torch.tensor([place], dtype=torch.float64, device="cpu")
        result = made.analytic(point.exp() if domain.log else point, **arguments).item()
        return math.log(result) if made.log_values else result

    before = [] if left is None else _tail(value, left, ends[0], -1.0, segments)
    after = [] if right is None else _tail(value, right, ends[1], 1.0, segments)
    corners = [*reversed(before), *after]
    kinks = torch.tensor([place for place, _ in corners], dtype=torch.float64, device="cpu")
    slopes, intercepts = [], []
    for (x0, y0), (x1, y1) in pairwise(corners):
        slopes.append((y1 - y0) / (x1 - x0))
        intercepts.append(y0 - slopes[-1] * x0)
    first = (0.0, 0.0) if left is None else (left[0], before[-1][1] - left[0] * before[-1][0])
    last = (0.0, 0.0) if right is None else (right[0], after[-1][1] - right[0] * after[-1][0])
    lines = [[first[0], *slopes, last[0]], [first[1], *intercepts, last[1]]]
    return Tails(
        low=domain.low if before else -math.inf,
        high=domain.high if after else math.inf,
        kinks=kinks,
        lines=torch.tensor(lines, dtype=torch.float64, device="cpu"),
    )


def _tail(
    value: Callable[[float], float], line: Line, end: float, side: float, segments: int
) -> list[tuple[float, float]]:
    """Return the corners of one side's polyline from the end of the domain outwards, which is at height 0.

    Where the function is (1 − k / segments)² as far from the line as at the end, there is a corner: for a distance
    that shrinks exponentially, this makes the polyline's error the same everywhere. The last corner is on the line.
    """

    def distance(reach: float) -> float:
        place = end + side * reach
        return value(place) - line[0] * place - line[1]

    corners = [(end, 0.0)]
    whole = abs(distance(0.0))
    if whole <= _NEGLIGIBLE:
        return corners
    near = 0.0
    shares = [(1 - k / segments) ** 2 for k in range(segments)]
    for share in [*shares[1:], shares[-1] / _LAST]:
        far = max(2 * near, 1.0)
        while abs(distance(far)) > share * whole:
            far *= 2
        for _ in range(60):
            middle = (near + far) / 2
            near, far = (middle, far) if abs(distance(middle)) > share * whole else (near, middle)
        corners.append((end + side * far, value(end + side * far) - value(end)))
        near = far
    place = corners[-1][0]
    corners[-1] = (place, line[0] * place + line[1] - value(end))
    return corners
