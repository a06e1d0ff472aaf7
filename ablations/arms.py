"""Arms: put something into a slot and say what may move. One call for every function, slot and model."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError, unknown_name
from trans4init.ablations.fit import Fitted
from trans4init.ablations.nets import Net
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import Slot, slots_named
from trans4init.ablations.slots.contents import Content, Corrected, ExactGradient, LeftOut, NetContent, TrainableTable
from trans4init.ablations.slots.guard import ArmRecord
from trans4init.reports.records.vocabulary import ARMS, Arm, arm_named

__all__ = ["ArmRecord", "apply_arm"]


def apply_arm(
    model: nn.Module,
    slot: str,
    arm: str,
    net: Fitted | Net | None = None,
    *,
    seed: int = 0,
    inputs: Tensor | dict[str, Tensor] | None = None,
) -> ArmRecord:
    """Put the arm into every slot of that name, and say what may move in training.

    net: for `learned-frozen` and `learned-fine-tuned` a fitted net; for the other arms with a net, which one (its
    values are drawn again from `seed`). It is copied: one net can serve many models.
    inputs: what the model is called with (a dict: by name) to measure how its output changes;
    `model.example_inputs()` where None.

    Raises InputError for an unknown slot or arm, an arm that makes no sense for the slot's function, a net that is
    missing or doesn't fit, and contents of slots that don't go together; the model is then as it was.
    """
    card = _checked_arm(arm)
    slots = slots_named(model, slot)
    function = next(iter(slots.values())).function
    if arm not in function.arms:
        raise InputError(f"arm {arm!r} makes no sense for {function.name}; its arms are: {', '.join(function.arms)}.")
    _check_net(card, net)
    bare = net.net if isinstance(net, Fitted) else net
    held = {path: place.content for path, place in slots.items()}
    try:
        difference = _put(model, slots, card, bare, seed, inputs)
    except BaseException:  # whatever it was: half an arm is no arm
        for path, place in slots.items():
            place.content = held[path]
        raise
    names = tuple(
        f"{path}.content.{name}" for path, place in slots.items() for name, _ in place.content.named_parameters()
    )
    return ArmRecord(
        arm=arm,
        slot=slot,
        function=function.name,
        net=bare.name if card.uses_net and bare is not None else "",
        moves=names if card.trains else (),
        frozen=() if card.trains else names,
        parameters_added=sum(model.get_parameter(name).numel() for name in names),
        output_difference_max=difference.abs().max().item(),
        output_difference_rms=difference.double().square().mean().sqrt().item(),
    )


def _put(
    model: nn.Module,
    slots: dict[str, Slot],
    card: Arm,
    net: Net | None,
    seed: int,
    inputs: Tensor | dict[str, Tensor] | None,
) -> Tensor:
    """Fill the slots; how the model's output changes from what the closed forms give, nan where there are none."""
    closed = all("analytic" in place.function.arms for place in slots.values())
    before = torch.tensor(math.nan)
    if closed:
        for place in slots.values():
            place.content = place.analytic().to(place.content.dtype_like)
        before = _output(model, inputs)
    for path, place in slots.items():
        place.content = _CONTENTS[card.name](place, net, seed, path).to(place.content.dtype_like)
        place.content.requires_grad_(card.trains)
    return _output(model, inputs) - before if closed else before


def _checked_arm(name: str) -> Arm:
    try:
        return arm_named(name)
    except KeyError:
        raise unknown_name("arm", name, (arm.name for arm in ARMS)) from None


def _check_net(card: Arm, net: Fitted | Net | None) -> None:
    if card.needs_fit and not isinstance(net, Fitted):
        raise InputError(f"arm {card.name!r} needs a fitted net: fit(function, net) makes one.")
    if card.uses_net and net is None:
        raise InputError(f"arm {card.name!r} needs a net: build_net(name, domain, outputs) makes one.")


@torch.no_grad()
def _output(model: nn.Module, inputs: Tensor | dict[str, Tensor] | None) -> Tensor:
    if inputs is None:
        example = getattr(model, "example_inputs", None)
        if example is None:
            raise InputError(
                f"{type(model).__name__} has no example_inputs(); give apply_arm the inputs to compare on."
            )
        inputs = example()
    was_training = model.training
    model.eval()
    try:
        output: Tensor = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    finally:
        model.train(was_training)
    return output


Make = Callable[[Slot, "Net | None", int, str], Content]


def _net_copy(net: Net | None) -> Net:
    assert net is not None  # _check_net has seen to it
    return copy.deepcopy(net)


def _fitted(slot: Slot, net: Net | None, seed: int, path: str) -> Content:
    return NetContent(slot.function, slot.shape, _net_copy(net))


def _random(slot: Slot, net: Net | None, seed: int, path: str) -> Content:
    drawn = _net_copy(net)
    drawn.initialise(keyed_generator(seed, path, "net"))
    return NetContent(slot.function, slot.shape, drawn)


def _corrected(slot: Slot, net: Net | None, seed: int, path: str) -> Content:
    drawn = _net_copy(net)
    drawn.initialise(keyed_generator(seed, path, "net"))
    drawn.zero_output()
    with torch.no_grad():
        if drawn(slot.function.points(slot.domain, **slot.shape)).count_nonzero():
            raise InputError(
                f"{drawn.name} is not 0 after zero_output(): arm 'corrected' would not start as 'analytic'."
            )
    correction = NetContent(slot.function, slot.shape, drawn, bare=True)
    return Corrected(slot.function, slot.shape, slot.analytic(), correction)


def _table(slot: Slot, net: Net | None, seed: int, path: str) -> Content:
    """A new table; where the function is nothing but a table, the one that the model was made or loaded with."""
    if "analytic" not in slot.function.arms and isinstance(slot.content, TrainableTable):
        return slot.content
    return slot.table(keyed_generator(seed, path, "table"))


_CONTENTS: dict[str, Make] = {
    "analytic": lambda slot, net, seed, path: slot.analytic(),
    "learned-frozen": lambda slot, net, seed, path: slot.fold(_fitted(slot, net, seed, path)),
    "learned-fine-tuned": _fitted,
    "learned-from-scratch": _random,
    "random-frozen": lambda slot, net, seed, path: slot.fold(_random(slot, net, seed, path)),
    "free-table": _table,
    "corrected": _corrected,
    "frozen-exact-gradient": lambda slot, net, seed, path: ExactGradient(slot.fold(_fitted(slot, net, seed, path))),
    "none": lambda slot, net, seed, path: slot.fold(LeftOut(slot.function, slot.shape)),
}
