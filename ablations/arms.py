"""The one call that puts an arm into a model's slots, for every function, slot and model."""

import math

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import Fitted
from trans4init.ablations.nets import Net
from trans4init.ablations.slots.arms import Arm, get_arm
from trans4init.ablations.slots.guard import ArmRecord
from trans4init.ablations.slots.slot import Slot, slots_named

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
    """Put the arm into every slot of that name, and set what may move in training.

    arm: a name, or `FILE.py:NAME` for an arm in a file.
    net: a fitted net for `learned-frozen`, `learned-fine-tuned`, `frozen-exact-gradient` and `shuffled`; any net, whose
    values are drawn again from `seed`, for the other arms that use one. It is copied: one net can serve many models.
    inputs: what the model is called with (a dict: by name) to measure how its output changes;
    `model.example_inputs()` where None.

    Raises InputError for an unknown slot or arm, an arm that makes no sense for the slot's function or is made with the
    model (`matched`), a net that is missing or doesn't fit, and contents of slots that don't go together; the model is
    then as it was.
    """
    chosen = get_arm(arm)
    if chosen.widens:
        raise InputError(
            f"arm {arm!r} has wider feed-forward layers, which a model has from its start: a study makes such a model."
        )
    slots = slots_named(model, slot)
    function = next(iter(slots.values())).function
    chosen.check_applies_to(function)
    _check_net(chosen, net)
    bare = net.net if isinstance(net, Fitted) else net
    contents_before = {path: place.content for path, place in slots.items()}
    try:
        difference = _put(model, slots, chosen, bare, seed, inputs)
    except BaseException:  # KeyboardInterrupt too: no model is left with half an arm
        for path, place in slots.items():
            place.content = contents_before[path]
        raise
    names = tuple(
        f"{path}.content.{name}" for path, place in slots.items() for name, _ in place.content.named_parameters()
    )
    return ArmRecord(
        arm=arm,
        slot=slot,
        function=function.name,
        net=bare.name if chosen.uses_net and bare is not None else "",
        moves=names if chosen.trains else (),
        frozen=() if chosen.trains else names,
        parameters_added=sum(model.get_parameter(name).numel() for name in names),
        output_difference_max=difference.abs().max().item(),
        output_difference_rms=difference.double().square().mean().sqrt().item(),
    )


def _put(
    model: nn.Module,
    slots: dict[str, Slot],
    arm: Arm,
    net: Net | None,
    seed: int,
    inputs: Tensor | dict[str, Tensor] | None,
) -> Tensor:
    """Fill the slots; return how the model's output differs from the closed forms', NaN without closed forms."""
    closed = all(place.function.closed_form for place in slots.values())
    before = torch.tensor(math.nan)
    if closed:
        for place in slots.values():
            place.content = place.analytic().to(place.content.dtype_like)
        before = _output(model, inputs)
    for path, place in slots.items():
        place.content = arm.content(place, net, seed, path).to(place.content.dtype_like)
        place.content.requires_grad_(arm.trains)
    return _output(model, inputs) - before if closed else before


def _check_net(arm: Arm, net: Fitted | Net | None) -> None:
    if arm.needs_fit and not isinstance(net, Fitted):
        raise InputError(f"arm {arm.located!r} needs a fitted net: fit(function, net) makes one.")
    if arm.uses_net and net is None:
        raise InputError(f"arm {arm.located!r} needs a net: build_net(name, domain, outputs) makes one.")


@torch.no_grad()
def _output(model: nn.Module, inputs: Tensor | dict[str, Tensor] | None) -> Tensor:
    """Return the model's output in evaluation."""
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
