"""The record of an arm in a model, and the guard that checks, bit for bit, that training moves nothing frozen."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trans4init.ablations.slots.slot import slots_named

__all__ = ["ArmRecord", "FrozenGuard", "FrozenMovedError"]


@dataclass(frozen=True)
class ArmRecord:
    """Says what an arm did to a model."""

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
    """The number of values in the slot (of arm `matched`: in the feed-forward layers) that the analytic arm doesn't
    have, frozen ones included."""
    output_difference_max: float
    """Largest change of the model's output by putting the arm in; NaN where the function has no closed form."""
    output_difference_rms: float
    """RMS change of the model's output by putting the arm in; NaN likewise."""


class FrozenMovedError(Exception):
    """A frozen value of a slot changed in training, or got a gradient, so that the arm is not frozen as it claims."""


class FrozenGuard:
    """Remembers every value in a model's slots that may not move, and checks it bit for bit."""

    def __init__(self, model: nn.Module, record: ArmRecord) -> None:
        self._model = model
        self._frozen = {
            name: value.detach().clone()
            for name, value in _slot_state(model, record.slot).items()
            if name not in record.moves
        }

    def check(self) -> None:
        """Raise FrozenMovedError where a frozen value has a gradient or differs by one bit."""
        model = self._model  # a tensor may have several names
        now = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
        pulled = [name for name in self._frozen if now[name].requires_grad or now[name].grad is not None]
        if pulled:
            raise FrozenMovedError(f"{', '.join(pulled)} is frozen and takes part in the gradient")
        moved = [name for name, before in self._frozen.items() if not _same_bits(now[name].detach(), before)]
        if moved:
            raise FrozenMovedError(f"{', '.join(moved)} is frozen and moved in training")


def _slot_state(model: nn.Module, slot: str) -> dict[str, Tensor]:
    """Return every parameter and buffer in the slots of that name, by its name in the model."""
    return {
        f"{path}.content.{name}": value
        for path, place in slots_named(model, slot).items()
        for name, value in (*place.content.named_parameters(), *place.content.named_buffers())
    }


def _same_bits(a: Tensor, b: Tensor) -> bool:
    same_kind = a.dtype == b.dtype and a.shape == b.shape
    return same_kind and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
