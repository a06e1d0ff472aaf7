"""Draws a fit: the net on its function, and the errors of value and slope, inside and outside the fitted domain."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trans4init.ablations.fit.fitted import Fitted
from trans4init.ablations.functions import Domain
from trans4init.ablations.slots.contents import NetContent
from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.files import write_whole

__all__ = ["draw_fidelity"]

_POINTS = 1201
"""How many reals of a domain are drawn."""
_NET, _FUNCTION, _SLOPE, _OUTSIDE = "#D55E00", "#000000", "#0072B2", "#EEEEEE"

Floats = NDArray[np.float64]


def draw_fidelity(fitted: Fitted, path: Path) -> Path | None:
    """Write the figure as SVG and return its path; None for a function of vectors or rows, which isn't drawn.

    The figure reaches twice as far as the fitted domain; what lies outside of it is shaded. Of several outputs it
    shows the values of the one with the largest error in the domain, and the largest errors of all outputs.
    """
    if fitted.function.takes != "numbers":
        return None
    domain, function = fitted.net.domain, fitted.function
    near = [
        region
        for region in domain.beyond(function.support)
        if domain.low == region.high or region.low == _after(domain)
    ]
    points = torch.cat([function.points(region, _POINTS, **fitted.shape) for region in (domain, *near)])
    points = points.sort().values
    inside = ((points >= domain.low) & (points <= domain.high)).numpy()
    exact, value, error, slope_error = _errors(fitted, points, inside)
    with drawing_style(8):
        figure = Figure(figsize=(5.2, 5.4), layout="constrained")
        above, middle, below = figure.subplots(3, sharex=True, height_ratios=(3, 2, 2))
        x = points.numpy()
        above.plot(x, exact, color=_FUNCTION, linewidth=2.5, alpha=0.35, label=function.name)
        size = f"{fitted.net.parameter_count():,} values"
        above.plot(x, value, color=_NET, linewidth=1, label=f"{fitted.net.name}, {size}")
        above.set(title=f"{fitted.net.name} → {function.name}, fitted on {domain}", ylabel="value")
        above.legend(frameon=False, fontsize=7)
        if function.log_values:
            above.set_yscale("log")
        else:
            _scale(above, np.concatenate([exact[inside], value[inside]]), exact)
        middle.plot(x, error, color=_NET, linewidth=0.9)
        middle.set(yscale="log", ylabel="error")
        below.plot(x, slope_error, color=_SLOPE, linewidth=0.9)
        below.set(yscale="log", ylabel="error of the slope", xlabel="position" if domain.integer else "input")
        for axes in (above, middle, below):
            axes.grid(color="#eeeeee")
            axes.set_xlim(x[0], x[-1])
            if domain.log:
                axes.set_xscale("log")
            for low, high in ((x[0], domain.low), (domain.high, x[-1])):
                if low < high:
                    axes.axvspan(low, high, color=_OUTSIDE, zorder=0, linewidth=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_whole(path, as_svg(figure))


def _errors(fitted: Fitted, points: torch.Tensor, inside: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return function, net, and the errors of value and slope at points [N]; an error of 0 or infinity becomes NaN."""
    function, shape = fitted.function, fitted.shape
    content = NetContent(function, shape, fitted.net)
    of_net = torch.func.jvp(content.value, (points,), (torch.ones_like(points),))
    of_function = function.analytic(points, **shape), function.derivative(points, **shape)
    (value, slope), (exact, true_slope) = (
        [function.as_rows(part.detach()).numpy() for part in parts] for parts in (of_net, of_function)
    )
    errors = [np.abs(value - exact), np.abs(slope - true_slope)]  # [N, outputs]
    worst = int(np.nan_to_num(errors[0][inside]).max(axis=0).argmax())
    largest = [np.where(np.isfinite(error), error, 0).max(axis=1) for error in errors]
    error, slope_error = (np.where(errors > 0, errors, np.nan) for errors in largest)
    return exact[:, worst], value[:, worst], error, slope_error


def _after(domain: Domain) -> float:
    """Return where the region above a domain begins."""
    return domain.high + 1 if domain.integer else domain.high


def _scale(axes: Axes, inside: Floats, exact: Floats) -> None:
    """Show the whole function, and the net inside the domain; outside it a net may leave the picture."""
    shown = np.concatenate([inside, exact])
    shown = shown[np.isfinite(shown)]
    room = 0.08 * (np.ptp(shown) or 1.0)
    axes.set_ylim(shown.min() - room, shown.max() + room)
