"""Give the drawings of all pages one style, and the same bytes for the same figure."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.figure import Figure

__all__ = ["as_svg", "drawing_style"]


@contextmanager
def drawing_style(font_size: float) -> Iterator[None]:
    """Within this context, draw and save figures: fonts have `font_size` points, axes no upper and no right line."""
    with rc_context(
        {
            "svg.hashsalt": "trans4init",
            "text.parse_math": False,  # a name may hold dollars
            "font.size": font_size,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        yield


def as_svg(figure: Figure) -> str:
    """Return the figure as SVG; within `drawing_style`, the same figure gives the same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
