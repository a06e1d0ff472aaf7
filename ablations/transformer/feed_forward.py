"""The feed-forward layer: two matrices with an activation slot between them, and a third one if it is gated."""

from torch import Tensor, nn

from trans4init.ablations.functions import get_function
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot

__all__ = ["FeedForward"]


class FeedForward(nn.Module):
    """Computes f(x W) O (Vaswani et al. 2017, section 3.3), or (f(x W) ⊙ x V) O if gated (Shazeer 2020, equation 6)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.feed_forward or 4 * config.width
        self.up = nn.Linear(config.width, inner, bias=config.bias)
        self.gate = nn.Linear(config.width, inner, bias=config.bias) if config.gated else None
        self.activation = Slot("activation", get_function(config.activation))
        self.out = nn.Linear(inner, config.width, bias=config.bias)

    def forward(self, state: Tensor) -> Tensor:
        """Map [B, L, W] to [B, L, W]."""
        if self.gate is None:
            plain: Tensor = self.out(self.activation(self.up(state)))
            return plain
        gated: Tensor = self.out(self.activation(self.gate(state)) * self.up(state))
        return gated
