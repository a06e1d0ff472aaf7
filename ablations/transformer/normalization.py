"""A normalisation layer with a slot for its function; fused if the slot holds the closed form of a statistic."""

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
        self._extra_epsilon = epsilon - NORM_EPSILON
        self.slot = Slot("normalization", function)
        self.role = function.role
        self.factor = None if function.gain is None else nn.Parameter(torch.tensor([function.gain]))
        self.shift = nn.Parameter(torch.zeros(1)) if function.shift else None

    def forward(self, state: Tensor) -> Tensor:
        """Map [..., W] to [..., W]."""
        if self.slot.fused:
            if self.slot.watch is not None:
                self.slot(self._statistic(state.detach()))
            if self.role == "centred-statistic":
                return super().forward(state)
            return nn.functional.rms_norm(state, self.normalized_shape, self.weight, self.eps)
        if self.factor is None:
            centred = state - state.mean(dim=-1, keepdim=True) if self.role == "centred-statistic" else state
            normalised = centred * self.slot(self._statistic(state))
        else:
            scaled = self.factor * state
            normalised = self.slot(scaled if self.shift is None else scaled + self.shift)
        result: Tensor = normalised * self.weight
        return result if self.bias is None else result + self.bias

    def _statistic(self, state: Tensor) -> Tensor:
        """Return the variance over the width, or the mean square, [..., 1].

        The slot's function adds NORM_EPSILON to it; the rest of the layer's own epsilon is added here.
        """
        centred = self.role == "centred-statistic"
        statistic = state.var(dim=-1, keepdim=True, correction=0) if centred else state.square().mean(-1, keepdim=True)
        return statistic + self._extra_epsilon if self._extra_epsilon else statistic
