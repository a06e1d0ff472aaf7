"""Define the words that all code shares: phases, statuses and verdicts; and the marks of figures."""

from collections.abc import Mapping
from typing import Literal

__all__ = ["PHASES", "STATUSES", "SYMBOLS", "Phase", "Status", "VerdictWord"]

Phase = Literal["fit", "tune", "evaluate", "throughput"]
Status = Literal["ok", "diverged", "oom", "failed", "pruned"]
VerdictWord = Literal["better", "worse", "equivalent", "inconclusive", "no verdict"]

PHASES: tuple[Phase, ...] = ("fit", "tune", "evaluate", "throughput")
STATUSES: tuple[Status, ...] = ("ok", "diverged", "oom", "failed", "pruned")

SYMBOLS: Mapping[str, str] = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "star": "*",
    "pentagon": "p",
    "x": "X",
    "triangle-left": "<",
    "triangle-right": ">",
    "hexagon": "h",
    "octagon": "8",
}
"""The marks that an arm can have in figures: plotly's name to matplotlib's. Each has an open form in plotly."""
