"""The Transformer, with a slot wherever a function can be replaced.

B batch, L length, Ls source length, W width, V vocabulary, C classes.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import derived_seed, keyed_generator
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.slots.contents import TrainableTable
from trans4init.ablations.transformer.attention import Attention
from trans4init.ablations.transformer.kv_cache import DecodingCache
from trans4init.ablations.transformer.masks import Visibility, checked_lengths, checked_mask
from trans4init.ablations.transformer.output import ClassOutput, TokenOutput
from trans4init.ablations.transformer.patches import Patches
from trans4init.ablations.transformer.stack import Memory, Stack

__all__ = ["Transformer", "TransformerConfig"]


class Transformer(Stack):
    """A Transformer of any kind: it is the stack that gives the output, with what comes before and after it.

    `decoder`: tokens [B, L] to logits [B, L, V] of the tokens that follow. `encoder-decoder`: the same, given a source
    that `encoder` reads. `encoder`: to logits of classes [B, C], or per token [B, L, C] or [B, L, V]. `image`: images
    [B, channels, size, size] to [B, C].

    Token embeddings are scaled by √W and shared with the output layer unless the config says otherwise. Every
    parameter's start is drawn from `seed` and its own name, so that two models with a parameter in common start it
    alike. Raises InputError for sizes that don't fit.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        translates = config.kind == "encoder-decoder"
        super().__init__(
            config,
            layers=config.layers,
            causal=translates or config.kind == "decoder",
            cross=translates,
            embedding=Patches(config) if config.kind == "image" else nn.Embedding(config.vocabulary, config.width),
            seed=seed,
        )
        self.segments = nn.Embedding(config.segments, config.width) if config.segments else None
        self.encoder: Stack | None = None
        if translates:
            self.encoder = Stack(
                config,
                layers=config.encoder_layers or config.layers,
                causal=False,
                embedding=nn.Embedding(config.source_vocabulary, config.width) if config.source_vocabulary else None,
                seed=derived_seed(seed, "encoder"),
            )
        self.output = TokenOutput(config) if config.classes is None else ClassOutput(config)
        self._initialise(seed)

    def forward(
        self,
        tokens: Tensor,
        *,
        source: Tensor | None = None,
        memory: Tensor | None = None,
        lengths: Tensor | None = None,
        source_lengths: Tensor | None = None,
        mask: Tensor | None = None,
        source_mask: Tensor | None = None,
        segments: Tensor | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
        once_per_token: bool = False,
    ) -> Tensor:
        """Tokens [B, L] int64 (or images) to logits, as the kind of the model is; those of causal row i foretell i + 1.

        source [B, Ls], or its `memory` from `encode`: what an encoder-decoder reads. lengths, source_lengths [B]: how
        many tokens are real, the rest is padding at the end. mask: [L, L], [B, L, L] or [B, heads, L, L], bool (true
        where row sees column) or floats that are added to scores; source_mask the same for the encoder. segments
        [B, L]. cache: from `new_cache`; the tokens follow those that it holds. last_only: the logits of the last real
        token alone, [B, 1, V]. once_per_token: compute what the first layer projects once per token of the vocabulary
        and position, which is the same and less work where a batch holds most of these pairs many times.

        Raises InputError for what the kind doesn't take, and for tokens and lengths out of range where they lie on a
        CPU: on a GPU that would wait for it.
        """
        if self.config.kind != "image":
            _check_tokens(tokens, self.config.vocabulary)
        self._check_source(source, memory, source_lengths, source_mask)
        self._check(tokens, segments, cache, mask)
        self._check_shortcuts(last_only=last_only, once_per_token=once_per_token, cached=cache is not None)
        batch, length = tokens.shape[0], self.config.positions if self.config.kind == "image" else tokens.shape[1]
        lengths = checked_lengths(lengths, batch, length, "lengths")
        mask = checked_mask(mask, batch, self.config.heads, length, length)
        if self.encoder is not None and memory is None and source is not None:
            memory = self.encode(source, source_lengths, mask=source_mask)
        every = torch.arange(self.config.vocabulary, device=tokens.device) if once_per_token else tokens
        state = self._embedded(every, self.embedding)
        if self.segments is not None:
            state = state + self.segments(torch.zeros_like(tokens) if segments is None else segments)
        across = None if self.encoder is None else self._across(batch, memory, source_lengths, cache)
        state = self.run(
            state,
            lengths=lengths,
            mask=mask,
            memory=across,
            cache=cache,
            last_only=last_only,
            tokens=tokens if once_per_token else None,
        )
        classes = isinstance(self.output, ClassOutput)
        logits: Tensor = self.output(state, lengths) if classes else self.output(state, self.embedding.weight)
        return logits

    def encode(self, source: Tensor, source_lengths: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """The memory of a source: tokens [B, Ls] to [B, Ls, W]. Raises InputError in a model without an encoder."""
        if self.encoder is None:
            raise InputError(f"a model of kind {self.config.kind} has no encoder: it takes no source.")
        _check_tokens(source, self.config.source_vocabulary or self.config.vocabulary)
        batch, length = source.shape
        source_lengths = checked_lengths(source_lengths, batch, length, "source_lengths")
        mask = checked_mask(mask, batch, self.config.heads, length, length)
        own = self.config.source_vocabulary is not None
        state = self._embedded(source, self.encoder.embedding if own else self.embedding)
        return self.encoder.run(state, lengths=source_lengths, mask=mask)

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
        """The attention weights that the outputs are made with, in evaluation, by the layer's path.

        `blocks.0.attention` [B, heads, L, L], `blocks.0.cross_attention` [B, heads, L, Ls],
        `encoder.blocks.0.attention` [B, heads, Ls, Ls] and so on, as there are. Options as `forward` takes them.
        """
        maps: dict[str, Tensor] = {}
        layers = {path: module for path, module in self.named_modules() if isinstance(module, Attention)}
        was_training = self.training
        self.eval()
        for path, layer in layers.items():
            layer.watch_map = partial(maps.__setitem__, path)
        try:
            self(tokens, **options)
        finally:
            self.train(was_training)
            for layer in layers.values():
                layer.watch_map = None
        return maps

    def new_cache(
        self,
        batch: int,
        room: int | None = None,
        *,
        source: Tensor | None = None,
        memory: Tensor | None = None,
        source_lengths: Tensor | None = None,
    ) -> DecodingCache:
        """An empty cache for `batch` sequences of up to `room` tokens, the context unless given.

        An encoder-decoder needs the source [batch, Ls], or its memory, and keeps its keys and values.
        """
        if not self.causal:
            raise InputError(f"a model of kind {self.config.kind} reads everything at once: it has no cache.")
        self._check_source(source, memory, source_lengths)
        attention = self.layers[0].attention
        start = attention.out.weight.new_zeros(batch, attention.key_value_heads, 1, attention.head_dim)
        cache = DecodingCache(len(self.blocks), room or self.config.context, start)
        if self.encoder is not None:
            if memory is None:
                if source is None:
                    raise InputError("an encoder-decoder needs a source, or its memory from encode().")
                memory = self.encode(source, source_lengths)
            if len(memory) != batch:
                raise InputError(f"there are {len(memory)} sources for {batch} sequences.")
            cache.cross = self.remembered(memory)
            cache.source_lengths = checked_lengths(source_lengths, batch, memory.shape[1], "source_lengths")
        return cache

    def example_inputs(self) -> Tensor | dict[str, Tensor]:
        """What to try the model on, the same every time: tokens [2, context], images, or tokens and a source."""
        generator, device = keyed_generator(0, "example inputs"), next(self.parameters()).device
        if self.config.kind == "image":
            size = self.config.image_size or 0
            return torch.randn(2, self.config.channels, size, size, generator=generator).to(device)
        shape = (2, self.config.context)
        tokens = torch.randint(self.config.vocabulary, shape, generator=generator).to(device)
        if self.encoder is None:
            return tokens
        vocabulary = self.config.source_vocabulary or self.config.vocabulary
        return {"tokens": tokens, "source": torch.randint(vocabulary, shape, generator=generator).to(device)}

    def _across(
        self, batch: int, memory: Tensor | None, source_lengths: Tensor | None, cache: DecodingCache | None
    ) -> Memory:
        if cache is not None:
            if memory is not None or source_lengths is not None:
                raise InputError("the cache holds the source: give it to new_cache alone.")
            return Memory(cache.cross, Visibility(lengths=cache.source_lengths))
        if memory is None:
            raise InputError("an encoder-decoder needs a source, or its memory from encode().")
        if len(memory) != batch:
            raise InputError(f"there are {len(memory)} sources for {batch} sequences.")
        source_lengths = checked_lengths(source_lengths, batch, memory.shape[1], "source_lengths")
        return Memory(self.remembered(memory), Visibility(lengths=source_lengths))

    def _embedded(self, tokens: Tensor, embedding: nn.Module) -> Tensor:
        """Tokens [B, L], or images, to [B, L, W]."""
        state: Tensor = embedding(tokens)
        scaled = self.config.embedding_scale and self.config.kind != "image"
        return math.sqrt(self.config.width) * state if scaled else state

    def _check_source(self, source: Tensor | None, memory: Tensor | None, *others: Tensor | None) -> None:
        if self.encoder is None and any(given is not None for given in (source, memory, *others)):
            raise InputError(f"a model of kind {self.config.kind} has no encoder: it takes no source.")
        if source is not None and memory is not None:
            raise InputError("give a source or its memory, not both.")

    def _check(self, tokens: Tensor, segments: Tensor | None, cache: DecodingCache | None, mask: Tensor | None) -> None:
        """Raise InputError for what this kind of model doesn't take."""
        if segments is not None and self.segments is None:
            raise InputError("the model has no embeddings of segments: its config says no number of them.")
        if cache is None:
            return
        if not self.causal:
            raise InputError(f"a model of kind {self.config.kind} reads everything at once: it has no cache.")
        if mask is not None:
            raise InputError("with a cache each token sees all before it: a mask can't be given as well.")
        if cache.batch != tokens.shape[0]:
            raise InputError(f"the cache is for {cache.batch} sequences, and {tokens.shape[0]} were given.")
        cache.check_room(tokens.shape[1])

    def _check_shortcuts(self, *, last_only: bool, once_per_token: bool, cached: bool) -> None:
        if last_only and not self.causal:
            raise InputError(f"last_only is for causal models, and this one is of kind {self.config.kind}.")
        if once_per_token and (self.config.kind == "image" or self.segments is not None or cached):
            raise InputError("once_per_token is for whole inputs that are tokens at positions, and nothing else.")
        if once_per_token and self.training and self.config.embedding_dropout:
            raise InputError("once_per_token can't be with embedding_dropout, which differs wherever a token is.")

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        """Normal with variance 1 / fan-in; what is added to the residual stream scaled by 1 / √(its number) (GPT-2)."""
        in_slots = {id(value) for slot in self.modules() if isinstance(slot, Slot) for value in slot.parameters()}
        added = {"": (3 if self.encoder is not None else 2) * len(self.blocks)}
        if self.encoder is not None:
            added["encoder."] = 2 * len(self.encoder.blocks)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2 or id(parameter) in in_slots:  # norms start at the identity
                continue
            deviation = 1 / math.sqrt(parameter.shape[1])
            if name.endswith(".out.weight"):
                deviation /= math.sqrt(added["encoder." if name.startswith("encoder.") else ""])
            parameter.normal_(0, deviation, generator=keyed_generator(seed, name))
        if not self.config.embedding_scale:  # a table drawn for scaled embeddings would drown the others
            for stack in (self, self.encoder):
                content = None if stack is None else stack.position.content
                if isinstance(content, TrainableTable) and content.function.role == "added":
                    content.table.div_(math.sqrt(self.config.width))


def _check_tokens(tokens: Tensor, vocabulary: int) -> None:
    """Raise InputError for what is no [B, L] of tokens; values are looked at on a CPU, outside torch.func."""
    if tokens.dim() != 2 or tokens.is_floating_point():
        raise InputError(f"tokens are [batch, length] integers, and {list(tokens.shape)} {tokens.dtype} was given.")
    watched = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    if tokens.device.type == "cpu" and watched and tokens.numel():
        low, high = (int(value) for value in torch.aminmax(tokens))
        if low < 0 or high >= vocabulary:
            raise InputError(f"token {low if low < 0 else high} is not in the vocabulary of {vocabulary}.")
