"""The Transformer, with a slot wherever a function can be replaced.

B batch, L length, W width, H heads, D = W / H head dimension, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.model_config import TransformerConfig
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import Slot
from trans4init.kernels.attention import attention

__all__ = ["Transformer", "TransformerConfig"]


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.queries_keys_values = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        batch, length, width = state.shape
        projected = self.queries_keys_values(state).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)  # each [B, H, L, D]
        mixed = attention(q, k, v, causal=True)  # [B, H, L, D]
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return result


class FeedForward(nn.Module):
    """Two matrices with an activation slot between them (section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.feed_forward or 4 * config.width
        self.up = nn.Linear(config.width, inner, bias=False)
        self.activation = Slot("activation", get_function(config.activation))
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        result: Tensor = self.out(self.activation(self.up(state)))
        return result


class Block(nn.Module):
    """Pre-norm residual block: attention, then feed-forward (Xiong et al. 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config)

    def forward(self, state: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        state = state + self.attention(self.attention_norm(state))
        result: Tensor = state + self.feed_forward(self.feed_forward_norm(state))
        return result


class Transformer(nn.Module):
    """A decoder-only language model: token ids [B, L] to logits [B, L, V].

    Token embeddings are scaled by √W and shared with the output layer (Vaswani et al. 2017, section 3.4), then the
    position slot's encoding is added (section 3.5). Every parameter's start is drawn from `seed` and its own name,
    so that two models with a parameter in common start it alike. Raises InputError for sizes that don't fit.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        positions = Domain(0, config.context - 1, integer=True)
        self.position = Slot("position", get_function(config.position), positions, seed=seed, width=config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self._initialise(seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L] int64 to [B, L, V]; row i is the prediction of token i + 1 from tokens 0..i."""
        length = tokens.shape[-1]
        positions = torch.arange(length, device=tokens.device)
        state = math.sqrt(self.config.width) * self.embedding(tokens)  # [B, L, W]
        state = state + self.position(positions, highest=length - 1)
        for block in self.blocks:
            state = block(state)
        return nn.functional.linear(self.norm(state), self.embedding.weight)

    def example_inputs(self) -> Tensor:
        """Tokens [2, context] to try the model on, the same every time."""
        shape = (2, self.config.context)
        tokens = torch.randint(self.config.vocabulary, shape, generator=keyed_generator(0, "example inputs"))
        return tokens.to(self.embedding.weight.device)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        """Normal with variance 1 / fan-in; what is added to the residual stream scaled by 1 / √(2 · layers) (GPT-2)."""
        in_slots = {id(value) for slot in self.modules() if isinstance(slot, Slot) for value in slot.parameters()}
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2 or id(parameter) in in_slots:  # norms start at the identity
                continue
            deviation = 1 / math.sqrt(parameter.shape[1])
            if name.endswith(".out.weight"):
                deviation /= math.sqrt(2 * self.config.layers)
            parameter.normal_(0, deviation, generator=keyed_generator(seed, name))
