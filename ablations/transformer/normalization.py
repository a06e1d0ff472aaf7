"""A normalisation layer with a slot for its function; fused if the slot holds the closed form of a statistic."""

import math

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import get_function
from trans4init.ablations.functions.normalization import NORM_EPSILON, Normalizer
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot

__all__ = ["Normalization"]


class Normalization(nn.LayerNorm):
    """Computes LayerNorm, RMSNorm or an elementwise function in their place, by the role of the slot's function.

    A function of a statistic (variance or mean square) gives a factor for the state. An elementwise function is
    applied to the state times a trained factor (plus a trained shift, for some). The result is multiplied by a trained
    gain and, except for RMSNorm, a trained bias is added.
    """

    def __init__(self, config: TransformerConfig) -> None:
        function = get_function(config.normalization)
        if not isinstance(function, Normalizer):
            raise InputError(
                f"{config.normalization} is not a normalisation function: a normalisation layer needs one."
            )
        epsilon = config.normalization_epsilon or NORM_EPSILON
        super().__init__(config.width, eps=epsilon, bias=function.role != "statistic")
        self.slot = Slot("normalization", function)
        self.role = function.role
        self.factor = None if function.gain is None else nn.Parameter(torch.tensor([function.gain]))
        self.shift = nn.Parameter(torch.zeros(1)) if function.shift else None

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., W] to [..., W]."""
        if self.slot.fused:
            if self.slot.watch is not None:
                exact = state.detach().to(torch.promote_types(state.dtype, torch.float32))
                self._by_slot(self._statistic(exact))
            if self.role == "centred-statistic":
                return super().forward(state)
            return nn.functional.rms_norm(state, self.normalized_shape, self.weight, self.eps)
        exact = state.to(torch.promote_types(state.dtype, torch.float32))
        if self.factor is None:
            centred = exact - exact.mean(dim=-1, keepdim=True) if self.role == "centred-statistic" else exact
            normalised = centred * self._by_slot(self._statistic(exact))
        else:
            scaled = self.factor * exact
            normalised = self.slot(scaled if self.shift is None else scaled + self.shift)
        result: Tensor = normalised * self.weight
        return (result if self.bias is None else result + self.bias).to(state.dtype)

    def _statistic(self, exact: Tensor) -> Tensor:
        """Return the variance over the width, or the mean square, [..., 1] of a state in float32 at least."""
        if self.role == "centred-statistic":
            return exact.var(dim=-1, keepdim=True, correction=0)
        return exact.square().mean(dim=-1, keepdim=True)

    def _by_slot(self, statistic: Tensor) -> Tensor:
        """Compute 1 / √(v + ε) by the slot's function, f(v) = 1 / √(v + e), where the layer's ε isn't f's e.

        A v in the function's domain is given to f as v + ε − e. A lesser one would be lost in that sum, and is given
        as v e / ε: it is 1 / √(v + ε) = √(e / ε) f(v e / ε).
        """
        if self.eps == NORM_EPSILON:
            factor: Tensor = self.slot(statistic)
            return factor
        ratio = NORM_EPSILON / self.eps
        small = statistic < self.slot.domain.low
        factor = self.slot(torch.where(small, statistic * ratio, statistic + (self.eps - NORM_EPSILON)))
        return torch.where(small, math.sqrt(ratio) * factor, factor)
