"""A stack of Transformer blocks with the position slot that serves them all.

B batch, L length, W width.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_two_sided import two_sided
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer.attention import Attention
from trans4init.ablations.transformer.feed_forward import FeedForward
from trans4init.ablations.transformer.kv_cache import DecodingCache, KeysValues
from trans4init.ablations.transformer.masks import Visibility
from trans4init.ablations.transformer.normalization import Normalization
from trans4init.ablations.transformer.positions import (
    PositionValues,
    randomised_positions,
    sequence_values,
    step_values,
)

__all__ = ["Block", "Memory", "Stack"]


@dataclass(frozen=True)
class Memory:
    """What a decoder attends to besides itself."""

    keys_values: list[KeysValues]
    """By layer."""
    visibility: Visibility


class Block(nn.Module):
    """Attention, then attention to a memory where there is one, then feed-forward; each added to what it was given.

    Norms come before each (Xiong et al. 2020), after each addition (Vaswani et al. 2017, section 3.1), or nowhere.
    """

    def __init__(self, config: TransformerConfig, *, cross: bool) -> None:
        super().__init__()
        norm = nn.Identity if config.norm_placement == "none" else partial(Normalization, config)
        self.attention_norm = norm()
        self.attention = Attention(config)
        if cross:
            self.cross_attention_norm = norm()
            self.cross_attention = Attention(config, cross=True)
        self.feed_forward_norm = norm()
        self.feed_forward = FeedForward(config)
        self.pre, self.dropout = config.norm_placement == "pre", config.dropout

    def forward(
        self,
        state: Tensor,
        positions: PositionValues,
        visibility: Visibility,
        memory: tuple[KeysValues, Visibility] | None = None,
        *,
        cache: DecodingCache | None = None,
        layer: int = 0,
        last_only: bool = False,
        index: Tensor | None = None,
    ) -> Tensor:
        """[B, L, W] to [B, L, W], or with last_only to [B, 1, W]: the last row alone.

        With an index [B, L] the state is [N, W], and the sequences are its rows.
        """
        given = self.attention_norm(state) if self.pre else state
        found = self.attention(given, positions, visibility, cache=cache, layer=layer, last_only=last_only, index=index)
        if index is not None:
            state = nn.functional.embedding(index[:, -1:] if last_only else index, state)
        elif last_only:
            state = state[:, -1:]
        state = self._added(state, found, self.attention_norm)
        if memory is not None:
            given = self.cross_attention_norm(state) if self.pre else state
            state = self._added(state, self.cross_attention.across(given, *memory), self.cross_attention_norm)
        given = self.feed_forward_norm(state) if self.pre else state
        return self._added(state, self.feed_forward(given), self.feed_forward_norm)

    def _added(self, state: Tensor, found: Tensor, norm: nn.Module) -> Tensor:
        if self.dropout and self.training:
            found = nn.functional.dropout(found, self.dropout)
        result: Tensor = state + found
        return result if self.pre else norm(result)


class Stack(nn.Module):
    """Blocks, the position slot that serves them all, and the norms before and after.

    The slot's values are added to the embeddings (Vaswani et al. 2017, section 3.5), turn queries and keys, or bias
    scores, as the function's role is. `embedding` becomes part of the stack where one is given.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        layers: int,
        causal: bool,
        cross: bool = False,
        embedding: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        if embedding is not None:
            self.embedding = embedding
        function, sizes = get_function(config.position), config.shapes()
        if function.slot != "position":
            raise InputError(f"{function.name} belongs in slot {function.slot!r}, not in 'position'.")
        if not causal:
            function = two_sided(function)
        positions = Domain(0, (config.randomised_positions or config.positions) - 1, integer=True)
        self.position = Slot(
            "position",
            function,
            positions if function.domain.integer else None,
            seed=seed,
            **{name: sizes[name] for name in function.default_shape},
        )
        self.embedding_norm = Normalization(config) if config.embedding_norm else None
        self.blocks = nn.ModuleList(Block(config, cross=cross) for _ in range(layers))
        self.norm = Normalization(config) if config.norm_placement == "pre" else nn.Identity()
        self._draw = keyed_generator(seed, "randomised positions")
        if config.randomised_positions:  # a checkpoint says how far the draws are: training goes on with the next
            self.register_buffer("draw_state", self._draw.get_state())
            self.draw_state: Tensor
            self.register_state_dict_pre_hook(Stack._keep_draws)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(Stack._take_draws)  # type: ignore[no-untyped-call]

    def _keep_draws(self, *_: object) -> None:
        self.draw_state.copy_(self._draw.get_state())

    def _take_draws(self, *_: object) -> None:
        self._draw.set_state(self.draw_state.cpu())

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.blocks))

    def remembered(self, memory: Tensor) -> list[KeysValues]:
        """The keys and values of a memory [B, Ls, W] for each layer that attends to it."""
        return [block.cross_attention.memory_keys_values(memory) for block in self.layers]

    def run(
        self,
        state: Tensor,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        memory: Memory | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Embedded tokens [B, L, W] to [B, L, W], or with last_only to [B, 1, W]: the last real row alone.

        In causal order padding at the end hides itself: no real token sees it. With `tokens` [B, L] the state is the
        vocabulary's, [V, W], and what the first layer makes of a token at a position is computed once.
        """
        batch, count = state.shape[:2] if tokens is None else tokens.shape
        values = self._positions(count, state.device, cache)
        state, index = self._started(state, values, tokens)
        visibility = Visibility(self.causal, None if self.causal else lengths, mask)
        if cache is not None and cache.filled:
            visibility = _after_cached(cache, count)
        for layer, block in enumerate(self.layers):
            state = block(
                state,
                values,
                visibility,
                None if memory is None else (memory.keys_values[layer], memory.visibility),
                cache=cache,
                layer=layer,
                last_only=last_only and lengths is None and layer == len(self.blocks) - 1,
                index=index if layer == 0 else None,
            )
        if last_only and lengths is not None:
            state = state[torch.arange(batch, device=state.device), lengths - 1, None]
        if cache is not None:
            cache.advance(count, lengths)
        normed: Tensor = self.norm(state)
        return normed

    def _started(self, state: Tensor, values: PositionValues, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the first block is given: the state with its positions; with tokens, the rows that the sequences are."""
        index = tokens
        if values.added is not None and tokens is not None:
            length = tokens.shape[1]
            index = tokens * length + torch.arange(length, device=tokens.device)
            state = values.added(state[:, None].expand(-1, length, -1)).flatten(0, 1)
        elif values.added is not None:
            state = values.added(state)
        if index is not None and self.position.watch is not None:  # slots are watched: show them only what there is
            used, index = index.unique(return_inverse=True)  # type: ignore[no-untyped-call]
            state = state[used]
        if self.embedding_norm is not None:
            state = self.embedding_norm(state)
        if self.config.embedding_dropout and self.training:
            state = nn.functional.dropout(state, self.config.embedding_dropout)
        return state, index

    def _positions(self, length: int, device: torch.device, cache: DecodingCache | None) -> PositionValues:
        """What the position slot gives for that many tokens, which may follow others."""
        random = self.config.randomised_positions if self.training else None
        if cache is not None and cache.filled:
            return step_values(self.position, cache.positions(length), cache.filled + length)
        positions = torch.arange(length, device=device)
        if random:
            positions = randomised_positions(length, random, self._draw).to(device)
        highest = random - 1 if random else length - 1
        return sequence_values(self.position, positions, highest, causal=self.causal, regular=not random)


def _after_cached(cache: DecodingCache, count: int) -> Visibility:
    """Whom `count` new tokens see: all before them, which ends at each batch entry's own length."""
    if cache.uniform:
        return Visibility(causal=count > 1)
    if count == 1:
        return Visibility(lengths=cache.lengths + 1)
    seen = torch.arange(cache.filled + count, device=cache.lengths.device) <= cache.positions(count)[..., None]
    return Visibility(mask=seen[:, None])
