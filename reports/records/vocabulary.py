"""Define the words that all code shares: phases, statuses and verdicts; and the marks of figures."""

from collections.abc import Mapping
from typing import Literal

__all__ = [
    "ANEW_NOTE",
    "PHASES",
    "REFERENCE_COPY",
    "STATUSES",
    "SYMBOLS",
    "ArmRole",
    "Phase",
    "Status",
    "VerdictWord",
]

Phase = Literal["fit", "tune", "evaluate", "throughput"]
Status = Literal["ok", "diverged", "oom", "failed", "pruned"]
ArmRole = Literal["reference", "question", "control"]
VerdictWord = Literal["better", "worse", "equivalent", "inconclusive", "no verdict"]

PHASES: tuple[Phase, ...] = ("fit", "tune", "evaluate", "throughput")
STATUSES: tuple[Status, ...] = ("ok", "diverged", "oom", "failed", "pruned")

ANEW_NOTE = "anew"
"""The note of a run that says why it was begun anew, a sentence for each time."""
REFERENCE_COPY = 1
"""The seed of the throughput run that times a second copy of the reference, built like the first; of all other
throughput runs it is 0."""

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
    "diamond-tall": "d",
}
"""The marks that an arm can have in figures: plotly's name to matplotlib's. Each has an open form in plotly."""
