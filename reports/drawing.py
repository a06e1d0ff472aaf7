"""Give the drawings of all pages one style, and the same bytes for the same figure."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterMathtext

__all__ = ["as_svg", "drawing_style"]


@contextmanager
def drawing_style(font_size: float) -> Iterator[None]:
    """Within this context, draw and save figures: fonts have `font_size` points, axes no upper and no right line."""
    with rc_context():
        rcdefaults()  # whatever the person's own matplotlibrc says
        rcParams.update(
            {
                "svg.hashsalt": "trans4init",
                "text.parse_math": False,  # a name may hold dollars
                "font.size": font_size,
                "axes.spines.top": False,
                "axes.spines.right": False,
            }
        )
        yield


def as_svg(figure: Figure) -> str:
    """Return the figure as SVG; within `drawing_style`, the same figure gives the same text."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(before := axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(_plain(before))
            if isinstance(before := axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(_plain(before))
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _plain(formatter: LogFormatterMathtext) -> LogFormatter:
    """Return one that writes 1e-05 and 100, where Matplotlib's own writes powers in the markup of mathematics."""
    base: float = formatter._base  # type: ignore[attr-defined]  # it has a setter alone
    return LogFormatter(base, formatter.labelOnlyBase, formatter.minor_thresholds)
