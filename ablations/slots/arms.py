"""The arms: each says what a slot holds, what of it may move in training, and which functions it applies to.

A new arm is one class here, or in a file of the user's. Study files are checked against the arms where there is no
torch, so that what needs it is imported inside the methods.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from trans4init.ablations.errors import InputError
from trans4init.ablations.registry import Registry
from trans4init.ablations.seeding import keyed_generator
from trans4init.reports.records.schema import ArmDescription
from trans4init.reports.records.vocabulary import SYMBOLS, ArmRole

if TYPE_CHECKING:
    from trans4init.ablations.functions import Function
    from trans4init.ablations.nets import Net
    from trans4init.ablations.slots.contents import Content
    from trans4init.ablations.slots.slot import Slot

__all__ = ["ARMS", "REFERENCE_ARM", "Arm", "arms_of", "get_arm", "list_arms"]


class Arm(ABC):
    """Says what is in a slot, and what of it may move in training. Subclasses register themselves in `ARMS`."""

    name: ClassVar[str]
    located: str = ""
    """What `get_arm` was asked for: the name, preceded by the file where it is in one of the user's."""
    holds: ClassVar[str]
    """What the slot holds, in the words of reports."""
    moves: ClassVar[str]
    """What training moves, in the words of reports."""
    trains: ClassVar[bool] = False
    """Whether training may change what the slot holds."""
    uses_net: ClassVar[bool] = False
    """Whether the slot holds a net, so that a study has the arm once for each of its nets."""
    needs_fit: ClassVar[bool] = False
    """Whether that net is fitted to the function before the model is trained."""
    widens: ClassVar[bool] = False
    """Whether the feed-forward layers are wider by as many values as the net has, and the slot has the closed form: a
    study makes such a model, and `apply_arm` refuses the arm."""
    role: ClassVar[ArmRole] = "control"
    """Whether it is what the others are compared with, what a study asks about, or another explanation of a result."""
    cost_rank: ClassVar[int] = ArmDescription.cost_rank
    """The place of a control among the controls, cheapest first: of two that explain a gain, the lower rank is named.
    Read by `reports.records.roles.controls`."""
    colour: ClassVar[str] = ArmDescription.colour
    """The arm's colour in every figure, #RRGGBB (Okabe and Ito 2008: distinguishable by colour-blind readers)."""
    symbol: ClassVar[str] = ArmDescription.symbol
    """The arm's mark in every figure, one of `SYMBOLS`, so that figures can be read in grey."""

    @abstractmethod
    def applies_to(self, function: "Function") -> bool:
        """Return whether the arm makes sense for a function that some slot of a model can hold."""

    @abstractmethod
    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Make what the slot will hold.

        net: the net that was asked for, never None where `uses_net`; copy it (`Slot.net_content` does), since it may
        serve other slots. Draw random values from `keyed_generator(seed, path, ...)`; path: the slot's, in the model.
        """

    def check_applies_to(self, function: "Function") -> None:
        """Raise InputError where the arm makes no sense for the function."""
        if not _applies(self, function):
            raise InputError(
                f"arm {self.located!r} makes no sense for {function.located or function.name}; "
                f"its arms are: {', '.join(function.arms)}."
            )

    def description(self) -> ArmDescription:
        """Describe the arm for reports; raises InputError where it has a colour or a symbol that can't be drawn."""
        digits = self.colour.removeprefix("#")
        if len(digits) != 6 or len(self.colour) != 7 or set(digits.lower()) - set("0123456789abcdef"):
            raise InputError(f"arm {self.located!r} has colour {self.colour!r}; write #RRGGBB, such as #0072B2.")
        if self.symbol not in SYMBOLS:
            raise InputError(f"arm {self.located!r} has symbol {self.symbol!r}; there are: {', '.join(SYMBOLS)}.")
        return ArmDescription(
            name=self.located,
            holds=self.holds,
            moves=self.moves,
            uses_net=self.uses_net,
            needs_fit=self.needs_fit,
            colour=self.colour,
            symbol=self.symbol,
            role=self.role,
            cost_rank=self.cost_rank,
        )


ARMS: Registry[Arm] = Registry("arm")


def get_arm(name: str) -> Arm:
    """Return the arm called `name`, or `my/file.py:name` out of a file; raises InputError with the nearest name."""
    arm = ARMS.get(name)()
    arm.located = name
    return arm


def list_arms() -> list[str]:
    """Return the names of all arms, in the order in which reports and tables show them."""
    return [arm.name for arm in ARMS.classes()]


def arms_of(function: "Function") -> tuple[str, ...]:
    """Return the names of the arms that apply to a function, in the order of `list_arms`."""
    return tuple(name for name in list_arms() if _applies(get_arm(name), function))


def _applies(arm: Arm, function: "Function") -> bool:
    return not function.fidelity_only and arm.applies_to(function)


@ARMS.register
class Analytic(Arm):
    """The reference that the other arms are compared with."""

    name = "analytic"
    holds, moves = "the closed form", "nothing"
    role = "reference"
    colour, symbol = "#000000", "circle"

    def applies_to(self, function: "Function") -> bool:
        """Every function with a closed form."""
        return function.closed_form

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Hold the closed form, as a table where the slot's domain is finite."""
        return slot.analytic()


REFERENCE_ARM = Analytic.name
"""The arm that every study has, and that the others are compared with."""


class NetArm(Arm):
    """Puts a net in the function's place."""

    uses_net = True

    def applies_to(self, function: "Function") -> bool:
        """Every function that a net can be fitted to."""
        return function.fittable()


@ARMS.register
class LearnedFrozen(NetArm):
    """The question: what happens if the function is replaced by a net that has learned it?"""

    name = "learned-frozen"
    holds, moves = "a net fitted to the function", "nothing of the net"
    needs_fit, role = True, "question"
    colour, symbol = "#0072B2", "square"

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Fold the net."""
        return slot.fold(slot.net_content(net))


@ARMS.register
class LearnedFineTuned(NetArm):
    """The question: and if the net goes on learning with the model?"""

    name = "learned-fine-tuned"
    holds, moves = "the same fitted net", "the net with the model"
    trains = needs_fit = True
    role = "question"
    colour, symbol = "#D55E00", "diamond"

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Hold the net."""
        return slot.net_content(net)


@ARMS.register
class LearnedFromScratch(NetArm):
    """Control: did the fit help?"""

    name = "learned-from-scratch"
    holds, moves = "the same net, random start", "the net with the model"
    trains = True
    cost_rank = 9
    colour, symbol = "#009E73", "triangle-up"

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Hold the net with values drawn anew."""
        return slot.net_content(net, keyed_generator(seed, path, "net"))


@ARMS.register
class RandomFrozen(NetArm):
    """Control: is any feature map enough?"""

    name = "random-frozen"
    holds, moves = "the same net, random start", "nothing of the net"
    cost_rank = 8
    colour, symbol = "#CC79A7", "triangle-down"

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Fold the net with values drawn anew."""
        return slot.fold(slot.net_content(net, keyed_generator(seed, path, "net")))


@ARMS.register
class FreeTable(Arm):
    """Control: does a trainable table do as well, so that capacity explains the result?"""

    name = "free-table"
    holds, moves = "the function's values as a trainable table", "the table"
    trains = True
    cost_rank = 5
    colour, symbol = "#E69F00", "cross"

    def applies_to(self, function: "Function") -> bool:
        """Every function of integers that changes with them, and every one without a closed form."""
        return not function.closed_form or (function.domain.integer and function.fittable())

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Make a new table; a function without a closed form keeps the table that its model was made or loaded with."""
        from trans4init.ablations.slots.contents import TrainableTable

        if not slot.function.closed_form and isinstance(slot.content, TrainableTable):
            return slot.content
        return slot.table(keyed_generator(seed, path, "table"))


@ARMS.register
class Corrected(NetArm):
    """Control: does a learned change of the closed form help?"""

    name = "corrected"
    holds, moves = "the closed form plus a zero-initialised net", "the correction"
    trains = True
    cost_rank = 6
    colour, symbol = "#56B4E9", "star"

    def applies_to(self, function: "Function") -> bool:
        """Every function that a net's values may be added to."""
        return function.correctable()

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Add the net, drawn anew and then set to 0, to the closed form."""
        from trans4init.ablations.slots.contents import Corrected

        correction = slot.net_content(net, keyed_generator(seed, path, "net"), bare=True)
        correction.net.zero_output()
        if correction.net(slot.function.points(slot.domain, **slot.shape)).count_nonzero():
            raise InputError(
                f"{correction.net.name} is not 0 after zero_output(): arm {self.name!r} would not start as "
                f"{REFERENCE_ARM!r}."
            )
        return Corrected(slot.function, slot.shape, slot.analytic(), correction)


@ARMS.register
class FrozenExactGradient(NetArm):
    """Control: is it the net's value or its slope that hurts?"""

    name = "frozen-exact-gradient"
    holds, moves = "the fitted net's value, the closed form's derivative", "nothing of the net"
    needs_fit = True
    cost_rank = 10
    colour, symbol = "#F0E442", "pentagon"

    def applies_to(self, function: "Function") -> bool:
        """Every function that a gradient flows through: none does through positions and counts."""
        return function.fittable() and function.slot != "position" and not function.domain.integer

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Fold the net, and put the closed form's derivative behind its values."""
        from trans4init.ablations.slots.contents import ExactGradient

        return ExactGradient(slot.fold(slot.net_content(net)))


@ARMS.register
class LeftOut(Arm):
    """Control: is the function needed at all?"""

    name = "none"
    holds, moves = "the function left out", "nothing"
    cost_rank = 11
    colour, symbol = "#7F7F7F", "x"

    def applies_to(self, function: "Function") -> bool:
        """Every function that says what a model computes without it."""
        return function.closed_form and function.omissible()

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Hold what is left without the function."""
        from trans4init.ablations.slots.contents import LeftOut

        return slot.fold(LeftOut(slot.function, slot.shape))


class ChangedForm(Arm):
    """Changes the closed form by a few numbers, which leave it as it is at the start."""

    trains = True
    form: ClassVar[str]
    """The class in `controls.py` that the slot holds."""

    def applies_to(self, function: "Function") -> bool:
        """Every function whose values may be changed and that has several for an input: dimensions or heads."""
        return function.correctable() and function.outputs(**function.default_shape) > 1

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Put numbers that change nothing yet on the closed form."""
        from trans4init.ablations.slots import controls

        content: Content = getattr(controls, self.form)(slot.function, slot.shape, slot.analytic())
        return content


@ARMS.register
class Scaled(ChangedForm):
    """Control: is it the size of the values?"""

    name = "scaled"
    form = "Scaled"
    holds, moves = "the closed form with one amplitude and one offset", "those two numbers"
    cost_rank = 1
    colour, symbol = "#882255", "triangle-left"  # this and the colours below: Paul Tol's scheme "muted"

    def applies_to(self, function: "Function") -> bool:
        """Every function that values may be added to."""
        return function.correctable()


@ARMS.register
class Gained(ChangedForm):
    """Control: is it how much each dimension, or each head, weighs?"""

    name = "gained"
    form = "Gained"
    holds, moves = "the closed form with a gain for each dimension, rotary pair or head", "the gains"
    cost_rank = 2
    colour, symbol = "#44AA99", "triangle-right"


@ARMS.register
class Linear(ChangedForm):
    """Control: would other mixtures of the closed form's own values do as well?"""

    name = "linear"
    form = "Mapped"
    holds, moves = "the closed form, followed by a linear map that starts as the identity", "the map"
    cost_rank = 3
    colour, symbol = "#999933", "hexagon"


@ARMS.register
class Matched(Arm):
    """Control: do as many more parameters elsewhere in the model do as well?"""

    name = "matched"
    holds = "the closed form; the feed-forward layers are wider by as many values as the net has"
    moves = "the wider layers, with the model"
    uses_net = widens = True
    cost_rank = 4
    colour, symbol = "#332288", "octagon"

    def applies_to(self, function: "Function") -> bool:
        """Every function that some arm puts a net in the place of, or adds one to."""
        return function.fittable() or function.correctable()

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Hold the closed form: what differs is outside of the slot."""
        return slot.analytic()


@ARMS.register
class Shuffled(Arm):
    """Control: does it have to be the function, or will any set of such values do?"""

    name = "shuffled"
    holds, moves = "the fitted net's rows, in a random, fixed order of positions", "nothing of the net"
    uses_net = needs_fit = True
    cost_rank = 7
    colour, symbol = "#AA4499", "diamond-tall"

    def applies_to(self, function: "Function") -> bool:
        """Every function of integer positions or distances that a net can be fitted to."""
        return function.slot == "position" and function.domain.integer and function.fittable()

    def content(self, slot: "Slot", net: "Net | None", seed: int, path: str) -> "Content":
        """Draw an order of the slot's positions, and fold the net's rows in that order."""
        from trans4init.ablations.slots.controls import Shuffled

        return slot.fold(Shuffled(slot.net_content(net), slot.domain, keyed_generator(seed, path, "order")))
