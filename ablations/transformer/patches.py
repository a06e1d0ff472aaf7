"""Images as sequences: square patches, each projected to a state (Dosovitskiy et al. 2021, ViT, section 3.1)."""

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.model import TransformerConfig

__all__ = ["Patches"]


class Patches(nn.Module):
    """Maps images [B, C, S, S] to a sequence of patches [B, L, W], row by row.

    If the first state is pooled, the sequence starts with a trained class token.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.patch
        assert config.image_size
        self.patch, self.shape = config.patch, (config.channels, config.image_size, config.image_size)
        self.projection = nn.Linear(config.channels * config.patch**2, config.width)
        self.class_token = nn.Parameter(torch.zeros(1, config.width)) if config.pooled == "first" else None

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, C, S, S] to [B, L, W]; raise InputError for images of another size."""
        if images.dim() != 4 or images.shape[1:] != self.shape or not images.is_floating_point():
            raise InputError(
                f"images are [batch, {', '.join(map(str, self.shape))}] floats, "
                f"and {list(images.shape)} {images.dtype} was given."
            )
        patches = images.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)  # [B, C, S/p, S/p, p, p]
        state: Tensor = self.projection(patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        if self.class_token is None:
            return state
        return torch.cat([self.class_token.expand(len(state), 1, -1), state], dim=1)
