"""AdamW for many models trained side by side, each with its own learning rate and weight decay.

Nothing in the project calls it yet: it is for arrays of runs, which train a study's runs as one model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["AdamW"]


class AdamW:
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    learning_rate and weight_decay are numbers, or tensors [G] for parameters [G, ...]: G models of the same shape, of
    which model g moves by its own rate and decay. It equals torch.optim.AdamW but for rounding.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        learning_rate: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float | Tensor = 1e-2,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.betas, self.epsilon = betas, epsilon
        self.steps = [0 for _ in self.parameters]
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            sizes = {parameter.shape[:1] for parameter in self.parameters}
            if isinstance(value, Tensor) and value.dim() and sizes != {value.shape}:
                raise ValueError(
                    f"{name} has {len(value)} entries, the parameters begin with {sorted(map(list, sizes))}"
                )

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for index, (parameter, mean, square) in enumerate(zip(self.parameters, self.means, self.squares, strict=True)):
            if parameter.grad is None:
                continue
            self.steps[index] += 1
            correction1, correction2 = (1 - beta ** self.steps[index] for beta in self.betas)
            rate, decay = _along(self.learning_rate, parameter), _along(self.weight_decay, parameter)
            parameter.mul_(1 - rate * decay)
            mean.lerp_(parameter.grad, 1 - beta1)
            square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
            deviation = (square.sqrt() / correction2**0.5).add_(self.epsilon)
            parameter.sub_(mean / deviation * (rate / correction1))

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None


def _along(value: float | Tensor, parameter: Tensor) -> float | Tensor:
    """Return a number as it is, and [G] as [G, 1, ...] to be multiplied with a parameter [G, ...]."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    return value.to(parameter).view(-1, *[1] * (parameter.dim() - 1))
