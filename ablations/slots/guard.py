"""The guard that checks, bit for bit, that what an arm freezes doesn't move in training."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trans4init.ablations.slots.slot import slots_named

__all__ = ["ArmRecord", "FrozenGuard", "FrozenMovedError"]


@dataclass(frozen=True)
class ArmRecord:
    """What an arm did to a model."""

    arm: str
    slot: str
    function: str
    net: str
    """The net's name; empty for an arm without one."""
    moves: tuple[str, ...]
    """The slot's parameters that training may change, by their name in the model."""
    frozen: tuple[str, ...]
    """The slot's parameters that training may not change."""
    parameters_added: int
    """Values in the slot that the analytic arm doesn't have, frozen ones too."""
    output_difference_max: float
    """Largest change of the model's output by putting the arm in; nan where the function has no closed form."""
    output_difference_rms: float


class FrozenMovedError(Exception):
    """A frozen value of a slot changed in training, or got a gradient: the arm is not what it is called."""


class FrozenGuard:
    """Remembers every value in a model's slots that may not move, and checks it bit for bit."""

    def __init__(self, model: nn.Module, record: ArmRecord) -> None:
        self._model = model
        self._kept = {
            name: value.detach().clone()
            for name, value in _slot_state(model, record.slot).items()
            if name not in record.moves
        }

    def check(self) -> None:
        """Raise FrozenMovedError where a frozen value has a gradient or differs by one bit."""
        now = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        pulled = [name for name in self._kept if now[name].requires_grad or now[name].grad is not None]
        if pulled:
            raise FrozenMovedError(f"{', '.join(pulled)} is frozen and takes part in the gradient")
        moved = [name for name, kept in self._kept.items() if not _same_bits(now[name].detach(), kept)]
        if moved:
            raise FrozenMovedError(f"{', '.join(moved)} is frozen and moved in training")


def _slot_state(model: nn.Module, slot: str) -> dict[str, Tensor]:
    """Every parameter and buffer in the slots of that name, by its name in the model."""
    return {
        f"{path}.content.{name}": value
        for path, place in slots_named(model, slot).items()
        for name, value in (*place.content.named_parameters(), *place.content.named_buffers())
    }


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and bool(torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)))
    )
