"""A stack of Transformer blocks with the position slot that serves them all.

B batch, L length, Ls source length, W width, V vocabulary.
"""

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
from trans4init.ablations.transformer.forward_pass import ForwardPass, MemoryKeysValues
from trans4init.ablations.transformer.kv_cache import KeysValues, KeyValueCache
from trans4init.ablations.transformer.masks import Visibility
from trans4init.ablations.transformer.normalization import Normalization
from trans4init.ablations.transformer.positions import (
    PositionValues,
    randomised_positions,
    sequence_values,
    step_values,
)

__all__ = ["Block", "Stack"]


class Block(nn.Module):
    """Applies attention, then cross-attention if there is a memory, then feed-forward, each added to its input.

    Norms come before each (Xiong et al. 2020), after each addition (Vaswani et al. 2017, section 3.1), or nowhere.
    """

    def __init__(self, config: TransformerConfig, *, layer: int, cross: bool) -> None:
        super().__init__()
        self.layer, self.cross = layer, cross
        norm = nn.Identity if config.norm_placement == "none" else partial(Normalization, config)
        self.attention_norm = norm()
        self.attention = Attention(config, layer=layer)
        if cross:
            self.cross_attention_norm = norm()
            self.cross_attention = Attention(config, layer=layer, cross=True)
        self.feed_forward_norm = norm()
        self.feed_forward = FeedForward(config)
        self.pre, self.dropout = config.norm_placement == "pre", config.dropout

    def forward(self, state: Tensor, forward_pass: ForwardPass) -> Tensor:
        """Map [B, L, W] to [B, L, W], or to the last row alone; with the pass's index, layer 0 is given [N, W]."""
        attended = self.attention(self._before(state, self.attention_norm), forward_pass)
        state = self._add(forward_pass.rows(self.layer, state), attended, self.attention_norm)
        if self.cross:
            attended = self.cross_attention(self._before(state, self.cross_attention_norm), forward_pass)
            state = self._add(state, attended, self.cross_attention_norm)
        return self._add(state, self.feed_forward(self._before(state, self.feed_forward_norm)), self.feed_forward_norm)

    def _before(self, state: Tensor, norm: nn.Module) -> Tensor:
        """Return the input of a sublayer."""
        normed: Tensor = norm(state) if self.pre else state
        return normed

    def _add(self, state: Tensor, output: Tensor, norm: nn.Module) -> Tensor:
        """Add a sublayer's output to the residual stream."""
        if self.dropout and self.training:
            output = nn.functional.dropout(output, self.dropout)
        result: Tensor = state + output
        return result if self.pre else norm(result)


class Stack(nn.Module):
    """Applies a position slot and blocks, with the norms before and after them.

    The slot's values are added to the embeddings (Vaswani et al. 2017, section 3.5), rotate queries and keys, or bias
    scores, by the role of the slot's function. `embedding` becomes part of the stack unless it is None.
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
        function, shape = get_function(config.position), config.shapes()
        if function.slot != "position":
            raise InputError(f"{function.name} belongs in slot {function.slot!r}, not in 'position'.")
        if function.role != "rotary" and (config.rotary_base or config.rotary_pairing != "halves"):
            raise InputError(f"rotary_base and rotary_pairing are for rotary positions, not for {function.name}.")
        if not causal:
            function = two_sided(function)
        positions = Domain(0, (config.randomised_positions or config.positions) - 1, integer=True)
        self.position = Slot(
            "position",
            function,
            positions if function.domain.integer else None,
            seed=seed,
            **function.shape_in(shape),
        )
        self.embedding_norm = Normalization(config) if config.embedding_norm else None
        self.blocks = nn.ModuleList(Block(config, layer=layer, cross=cross) for layer in range(layers))
        self.norm = Normalization(config) if config.norm_placement == "pre" else nn.Identity()
        self._draw = keyed_generator(seed, "randomised positions")
        if config.randomised_positions:  # saved in checkpoints, so that resumed training draws the next positions
            self.register_buffer("draw_state", self._draw.get_state())
            self.draw_state: Tensor
            self.register_state_dict_pre_hook(Stack._save_draw_state)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(Stack._load_draw_state)  # type: ignore[no-untyped-call]

    def _save_draw_state(self, *_: object) -> None:
        self.draw_state.copy_(self._draw.get_state())

    def _load_draw_state(self, *_: object) -> None:
        self._draw.set_state(self.draw_state.cpu())

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.blocks))

    def memory_keys_values(self, memory: Tensor) -> list[KeysValues]:
        """Return the keys and values of the memory [B, Ls, W] for each layer, in a stack with cross-attention."""
        return [block.cross_attention.memory_keys_values(memory) for block in self.layers]

    def run(
        self,
        state: Tensor,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        memory: MemoryKeysValues | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Map embedded tokens [B, L, W] to [B, L, W], or with last_only to the last real row alone, [B, 1, W].

        In causal order, `lengths` hide nothing: padding comes last, and no real token sees it. With `tokens` [B, L],
        the state is the vocabulary's, [V, 1, W], and layer 0's queries, keys and values are computed once per token.
        """
        batch, count = state.shape[:2] if tokens is None else tokens.shape
        positions = self._positions(count, state.device, cache)
        state, index = self._start(state, positions, tokens)
        visibility = Visibility(self.causal, None if self.causal else lengths, mask)
        if cache is not None and cache.filled:
            visibility = _visibility_after(cache, count)
        last_only_in = len(self.blocks) - 1 if last_only and lengths is None else None
        forward_pass = ForwardPass(positions, visibility, memory, cache, last_only_in, index)
        for block in self.blocks:
            state = block(state, forward_pass)
        if last_only and lengths is not None:
            state = state[torch.arange(batch, device=state.device), lengths - 1, None]
        if cache is not None:
            cache.advance(count, lengths)
        normed: Tensor = self.norm(state)
        return normed

    def _start(self, state: Tensor, positions: PositionValues, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what layer 0 is given: a state and, with tokens, the row of it for each token, [B, L].

        A state then has a row for each token of the vocabulary, or for each token at each position where positions are
        added to embeddings.
        """
        if positions.added is not None:
            if tokens is not None:
                state = state.expand(-1, tokens.shape[1], -1)
            state = positions.added(state)
        if self.embedding_norm is not None:
            state = self.embedding_norm(state)
        if self.config.embedding_dropout and self.training:
            state = nn.functional.dropout(state, self.config.embedding_dropout)
        if tokens is None:
            return state, None
        places = state.shape[1]  # 1 or L
        index = tokens * places + torch.arange(tokens.shape[1], device=tokens.device) % places
        return state.flatten(0, 1), index

    def _positions(self, length: int, device: torch.device, cache: KeyValueCache | None) -> PositionValues:
        """Return what the position slot gives for that many tokens, which follow those in the cache."""
        if cache is not None and cache.filled:
            return step_values(self.position, cache.positions(length), cache.filled + length)
        range_end = self.config.randomised_positions if self.training else None
        positions = torch.arange(length, device=device)
        if range_end:
            positions = randomised_positions(length, range_end, self._draw).to(device)
        highest = range_end - 1 if range_end else length - 1
        return sequence_values(self.position, positions, highest, causal=self.causal, regular=not range_end)


def _visibility_after(cache: KeyValueCache, count: int) -> Visibility:
    """Return what `count` new tokens see: each all tokens before it, up to its batch entry's own length."""
    if cache.uniform:
        return Visibility(causal=count > 1)
    if count == 1:
        return Visibility(lengths=cache.lengths + 1)
    seen = torch.arange(cache.filled + count, device=cache.lengths.device) <= cache.positions(count)[..., None]
    return Visibility(mask=seen[:, None])
