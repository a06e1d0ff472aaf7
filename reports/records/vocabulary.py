"""The words that every floor shares: arms, phases, statuses, verdicts, with one colour and one mark per arm."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["ARMS", "PHASES", "REFERENCE_ARM", "STATUSES", "Arm", "Phase", "Status", "VerdictWord", "arm_named"]

Phase = Literal["fit", "tune", "evaluate", "throughput"]
Status = Literal["ok", "diverged", "oom", "failed", "pruned"]
VerdictWord = Literal["better", "worse", "equivalent", "inconclusive", "no verdict"]

PHASES: tuple[Phase, ...] = ("fit", "tune", "evaluate", "throughput")
STATUSES: tuple[Status, ...] = ("ok", "diverged", "oom", "failed", "pruned")


@dataclass(frozen=True)
class Arm:
    """What is in a slot, and what of it may move in training."""

    name: str
    holds: str
    moves: str
    trains: bool
    """Whether training may change what the slot holds."""
    uses_net: bool
    """Whether the slot holds a net, so that the arm exists once per net of a study."""
    needs_fit: bool
    """Whether that net was fitted to the function before the model is trained."""
    colour: str
    """The arm's colour in every figure (Okabe and Ito 2008: distinguishable by colour-blind readers)."""
    symbol: str
    """The arm's mark in every figure, so that figures can be read in grey; a plotly symbol name."""


REFERENCE_ARM = "analytic"

ARMS: tuple[Arm, ...] = (
    Arm("analytic", "the closed form", "nothing", False, False, False, "#000000", "circle"),
    Arm("learned-frozen", "a net fitted to the function", "nothing of the net", False, True, True, "#0072B2", "square"),
    Arm("learned-fine-tuned", "the same fitted net", "the net with the model", True, True, True, "#D55E00", "diamond"),
    Arm(
        "learned-from-scratch",
        "the same net, random start",
        "the net with the model",
        True,
        True,
        False,
        "#009E73",
        "triangle-up",
    ),
    Arm(
        "random-frozen",
        "the same net, random start",
        "nothing of the net",
        False,
        True,
        False,
        "#CC79A7",
        "triangle-down",
    ),
    Arm(
        "free-table",
        "the function's values as a trainable table",
        "the table",
        True,
        False,
        False,
        "#E69F00",
        "cross",
    ),
    Arm(
        "corrected",
        "the closed form plus a zero-initialised net",
        "the correction",
        True,
        True,
        False,
        "#56B4E9",
        "star",
    ),
    Arm(
        "frozen-exact-gradient",
        "the fitted net's value, the closed form's derivative",
        "nothing of the net",
        False,
        True,
        True,
        "#F0E442",
        "pentagon",
    ),
    Arm("none", "the function left out", "nothing", False, False, False, "#7F7F7F", "x"),
)

_BY_NAME = {arm.name: arm for arm in ARMS}


def arm_named(name: str) -> Arm:
    """The arm called `name`; raises KeyError for a word that is no arm's."""
    return _BY_NAME[name]
