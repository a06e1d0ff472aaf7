"""Arms that differ from `analytic` in nothing that matters: the same values, their dimensions in another order.

Initial weights are drawn alike for all dimensions, so that a model with permuted positions is as good as one without,
and differs from it as one seed does from another. A study of such arms has no true difference.
"""

import torch

from trans4init.ablations.functions import Function
from trans4init.ablations.nets import Net
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.arms import ARMS, Arm
from trans4init.ablations.slots.contents import Content
from trans4init.ablations.slots.slot import Slot

__all__ = ["permuted_arm"]


class Permuted(Content):
    """Computes a closed form whose dimensions are in another order."""

    def __init__(self, slot: Slot, order: torch.Tensor) -> None:
        super().__init__(slot.function, slot.shape)
        self.base = slot.analytic()
        self.register_buffer("order", order)
        self.order: torch.Tensor

    def forward(self, inputs: torch.Tensor, highest: int | None = None) -> torch.Tensor:
        """Return the closed form's rows with their dimensions in the fixed order."""
        values: torch.Tensor = self.base(inputs, highest)
        return values[..., self.order]


def permuted_arm(number: int) -> type[Arm]:
    """Make and register the arm `permuted-NUMBER`; arms of different numbers draw different orders."""

    class PermutedArm(Arm):
        name = f"permuted-{number}"
        holds, moves = "the closed form with its dimensions in another order", "nothing"

        def applies_to(self, function: Function) -> bool:
            """Absolute positions alone: their dimensions meet weights that are drawn alike."""
            return function.name == "sinusoidal"

        def content(self, slot: Slot, net: Net | None, seed: int, path: str) -> Content:
            """Draw an order from the run's seed."""
            generator = keyed_generator(seed, path, self.name)
            return Permuted(slot, torch.randperm(slot.shape["width"], generator=generator))

    return ARMS.register(PermutedArm)


for _number in range(1, 9):
    permuted_arm(_number)
