"""The Transformer, with a slot wherever a function can be replaced.

B batch, L length, W width, H heads, D = W / H head dimension, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from trans4init.ablations.attention_layer import Attention, PositionValues
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_randomised import randomised_positions
from trans4init.ablations.functions.position_relative import FireQuery
from trans4init.ablations.model_config import TransformerConfig
from trans4init.ablations.normalization_layer import Normalization
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots import Slot
from trans4init.kernels.attention import RelativeBias

__all__ = ["Transformer", "TransformerConfig"]


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
        self.attention_norm = Normalization(config)
        self.attention = Attention(config)
        self.feed_forward_norm = Normalization(config)
        self.feed_forward = FeedForward(config)

    def forward(self, state: Tensor, positions: PositionValues) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        state = state + self.attention(self.attention_norm(state), positions)
        result: Tensor = state + self.feed_forward(self.feed_forward_norm(state))
        return result


class Transformer(nn.Module):
    """A decoder-only language model: token ids [B, L] to logits [B, L, V].

    Token embeddings are scaled by √W and shared with the output layer (Vaswani et al. 2017, section 3.4). The position
    slot's values are added to them (section 3.5), turn queries and keys, or bias scores, as the function's role is;
    one slot serves all layers. Every parameter's start is drawn from `seed` and its own name, so that two models with
    a parameter in common start it alike. Raises InputError for sizes that don't fit.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        function, sizes = get_function(config.position), config.shapes()
        positions = Domain(0, (config.randomised_positions or config.context) - 1, integer=True)
        self.position = Slot(
            "position",
            function,
            positions if function.domain.integer else None,
            seed=seed,
            **{name: sizes[name] for name in function.default_shape},
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = Normalization(config)
        self._draw = keyed_generator(seed, "randomised positions")
        self._initialise(seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L] int64 to [B, L, V]; row i is the prediction of token i + 1 from tokens 0..i."""
        state = math.sqrt(self.config.width) * self.embedding(tokens)  # [B, L, W]
        values = self._positions(tokens.shape[-1], tokens.device)
        if values.added is not None:
            state = state + values.added
        for block in self.blocks:
            state = block(state, values)
        return nn.functional.linear(self.norm(state), self.embedding.weight)

    def _positions(self, length: int, device: torch.device) -> PositionValues:
        """What the position slot gives for a sequence of this length, in the way that its function is used."""
        function, random = self.position.function, self.training and self.config.randomised_positions
        positions, highest = torch.arange(length, device=device), length - 1
        if random:
            positions = randomised_positions(length, random, self._draw).to(device)
            highest = random - 1
        if function.role == "added":
            return PositionValues(added=self.position(positions, highest=highest))
        if function.role == "rotary":
            return PositionValues(rotation=self.position(positions, highest=highest))
        if isinstance(function, FireQuery):
            return PositionValues(bias=self.position(function.pair_inputs(positions)))
        if random:
            distances = (positions[:, None] - positions).clamp_min(0)
            return PositionValues(bias=self.position(distances, highest=highest))  # [H, L, L]
        behind = self.position(positions, highest=highest)  # [H, L]: distances 0, 1, …; those ahead are never seen
        return PositionValues(bias=RelativeBias(torch.cat([torch.zeros_like(behind[:, 1:]), behind], dim=1)))

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
