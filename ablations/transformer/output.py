"""Output layers, which map states to logits of tokens or classes, per token or per sequence.

B batch, L length, W width, V vocabulary, C classes.
"""

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import get_function
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer.normalization import Normalization

__all__ = ["ClassOutput", "TokenOutput"]


class TokenOutput(nn.Module):
    """Computes logits of every token of the vocabulary, with a matrix of its own or, if tied, the embedding's."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.output_transform:  # Devlin et al. 2019, BERT's masked language model
            self.transform = nn.Linear(config.width, config.width)
            self.activation = Slot("activation", get_function(config.activation))
            self.norm = Normalization(config)
            self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        if not config.tied_output:
            self.weight = nn.Parameter(torch.zeros(config.vocabulary, config.width))
        self.transforms, self.tied = config.output_transform, config.tied_output

    def forward(self, state: Tensor, embedding: Tensor) -> Tensor:
        """Map states [B, L, W] to [B, L, V]; embedding: the token embeddings [V, W]."""
        if self.transforms:
            state = self.norm(self.activation(self.transform(state)))
        weight = embedding if self.tied else self.weight
        return nn.functional.linear(state, weight, self.bias if self.transforms else None)


class ClassOutput(nn.Module):
    """Computes logits of classes: per token, or per sequence from its first state or the mean of its real states."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.classes is not None
        self.pooling = config.pooled
        self.transform = nn.Linear(config.width, config.width) if config.output_transform else None
        self.dropout = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        self.linear = nn.Linear(config.width, config.classes)

    def forward(self, state: Tensor, lengths: Tensor | None) -> Tensor:
        """Map states [B, L, W] to [B, C], or to [B, L, C] without pooling."""
        if self.pooling == "first":
            if not state.shape[1]:
                raise InputError("the model reads its classes from the first token, and the sequences have none.")
            state = state[:, 0]
        elif self.pooling == "mean":
            state = _mean(state, lengths)
        if self.transform is not None:
            state = self.transform(state).tanh()
        logits: Tensor = self.linear(nn.functional.dropout(state, self.dropout, self.training))
        return logits


def _mean(state: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean of the first `lengths` [B] rows of each [L, W], [B, W]; 0 for a length of 0."""
    if lengths is None:
        return state.mean(dim=1) if state.shape[1] else state.sum(dim=1)
    real = torch.arange(state.shape[1], device=state.device) < lengths[:, None]
    return state.masked_fill(~real[..., None], 0.0).sum(dim=1) / lengths.clamp_min(1)[:, None].to(state.dtype)
