"""The Transformer, with a slot for each function that can be replaced.

B batch, L length, Ls source length, W width, V vocabulary, C classes.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.seeding import derived_seed, keyed_generator
from trans4init.ablations.settings.memory import check_memory
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.slots.contents import Content, TrainableTable
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer.attention import Attention
from trans4init.ablations.transformer.forward_pass import MemoryKeysValues
from trans4init.ablations.transformer.kv_cache import KeyValueCache
from trans4init.ablations.transformer.masks import Visibility, checked_lengths, checked_mask
from trans4init.ablations.transformer.output import ClassOutput, TokenOutput
from trans4init.ablations.transformer.patches import Patches
from trans4init.ablations.transformer.stack import Stack

__all__ = ["Transformer", "TransformerConfig"]


class Transformer(Stack):
    """Computes a Transformer of any kind: a stack of blocks with an embedding, an output and, for some, an encoder.

    `decoder`: tokens [B, L] to logits [B, L, V] of the tokens that follow. `encoder-decoder`: the same, given a source
    that `encoder` reads. `encoder`: to logits of classes [B, C], or per token [B, L, C] or [B, L, V]. `image`: images
    [B, channels, size, size] to [B, C].

    Token embeddings are scaled by √W and shared with the output layer unless the config says otherwise. Every parameter
    is initialised from `seed` and its own name, so that a parameter that two models share starts with the same value in
    both. Raises InputError for sizes that don't fit together.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0) -> None:
        check_memory(config)
        cross = config.kind == "encoder-decoder"
        super().__init__(
            config,
            layers=config.layers,
            causal=cross or config.kind == "decoder",
            cross=cross,
            embedding=Patches(config) if config.kind == "image" else nn.Embedding(config.vocabulary, config.width),
            seed=seed,
        )
        self.segments = nn.Embedding(config.segments, config.width) if config.segments else None
        self.encoder: Stack | None = None
        if cross:
            self.encoder = Stack(
                config,
                layers=config.encoder_layers or config.layers,
                causal=False,
                embedding=nn.Embedding(config.source_vocabulary, config.width) if config.source_vocabulary else None,
                seed=derived_seed(seed, "encoder"),
            )
        self.output = TokenOutput(config) if config.classes is None else ClassOutput(config)
        self._initialise(seed)
        self.register_load_state_dict_post_hook(Transformer._adopt_loaded)  # type: ignore[no-untyped-call]

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
        cache: KeyValueCache | None = None,
        last_only: bool = False,
        once_per_token: bool = False,
    ) -> Tensor:
        """Map tokens [B, L] int64 (or images) to logits, whose shape depends on the kind of model.

        A causal model's logits at position i predict token i + 1.

        source [B, Ls], or its `memory` from `encode`: what an encoder-decoder reads. lengths, source_lengths [B]: the
        number of real tokens; the rest is padding at the end. mask: [L, L], [B, L, L] or [B, heads, L, L], bool (true
        where row sees column) or floats that are added to scores; source_mask the same for the encoder. segments
        [B, L]. cache: from `new_cache`; the tokens follow those in it. last_only: return the logits of the last real
        token alone, [B, 1, V]. once_per_token: compute the first layer's queries, keys and values once for each token
        of the vocabulary at each position and look them up. The results are the same, and a batch that holds most of
        these pairs many times takes less work.

        Raises InputError for options that the kind of model doesn't take, and for tokens and lengths out of range if
        they are on a CPU: on a GPU the check would wait for the device.
        """
        if self.config.kind != "image":
            tokens = _checked_tokens(tokens, self.config.vocabulary)
        self._check_source(source, memory, source_lengths, source_mask)
        self._check(tokens, segments, cache, mask)
        self._check_shortcuts(tokens, last_only=last_only, once_per_token=once_per_token, cached=cache is not None)
        batch, length = tokens.shape[0], self.config.positions if self.config.kind == "image" else tokens.shape[1]
        lengths = checked_lengths(lengths, batch, length, "lengths", least=1 if last_only else 0)
        mask = checked_mask(mask, batch, self.config.heads, length, length)
        if self.encoder is not None and memory is None and source is not None:
            memory = self.encode(source, source_lengths, mask=source_mask)
        by_lookup = once_per_token and self.position.watch is None  # an observer is shown the inputs of the batch
        distinct_tokens = torch.arange(self.config.vocabulary, device=tokens.device)[:, None] if by_lookup else tokens
        state = self._embed(distinct_tokens, self.embedding)
        if self.segments is not None:
            state = state + self.segments(torch.zeros_like(tokens) if segments is None else segments)
        keys_values = None
        if self.encoder is not None:
            keys_values = self._memory_keys_values(batch, memory, source_lengths, cache)
        state = self.run(
            state,
            lengths=lengths,
            mask=mask,
            memory=keys_values,
            cache=cache,
            last_only=last_only,
            tokens=tokens if by_lookup else None,
        )
        classes = isinstance(self.output, ClassOutput)
        logits: Tensor = self.output(state, lengths) if classes else self.output(state, self.embedding.weight)
        return logits

    def encode(self, source: Tensor, source_lengths: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """Return the memory, the encoder's output: source tokens [B, Ls] to [B, Ls, W].

        Raises InputError in a model without an encoder.
        """
        if self.encoder is None:
            raise InputError(f"a model of kind {self.config.kind} has no encoder: it takes no source.")
        source = _checked_tokens(source, self.config.source_vocabulary or self.config.vocabulary)
        batch, length = source.shape
        source_lengths = checked_lengths(source_lengths, batch, length, "source_lengths")
        mask = checked_mask(mask, batch, self.config.heads, length, length)
        embedding = self.embedding if self.config.source_vocabulary is None else self.encoder.embedding
        state = self._embed(source, embedding)
        return self.encoder.run(state, lengths=source_lengths, mask=mask)

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor, **options: Any) -> dict[str, Tensor]:
        """Return the attention weights of every attention layer in evaluation, by the layer's path.

        `blocks.0.attention` [B, heads, L, L], `blocks.0.cross_attention` [B, heads, L, Ls],
        `encoder.blocks.0.attention` [B, heads, Ls, Ls] and so on. Takes the options of `forward`.
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
    ) -> KeyValueCache:
        """Return an empty cache for `batch` sequences of up to `room` tokens (default: the context).

        An encoder-decoder needs the source [batch, Ls] or its memory, whose keys and values the cache holds.
        Raises InputError for a model that isn't causal, and for sources that don't fit.
        """
        if not self.causal:
            raise InputError(f"a model of kind {self.config.kind} reads everything at once: it has no cache.")
        self._check_source(source, memory, source_lengths)
        attention = self.layers[0].attention
        example_key = attention.out.weight.new_zeros(batch, attention.key_value_heads, 1, attention.head_dim)
        cache = KeyValueCache(len(self.blocks), room or self.config.context, example_key)
        if self.encoder is not None:
            if memory is None and source is not None:
                memory = self.encode(source, source_lengths)
            read = self._memory_keys_values(batch, memory, source_lengths)
            cache.cross, cache.source_lengths = read.by_layer, read.visibility.lengths
        return cache

    def example_inputs(self) -> Tensor | dict[str, Tensor]:
        """Return inputs to try the model on, always the same: tokens [2, context], images, or tokens and a source."""
        generator, like = keyed_generator(0, "example inputs"), next(self.parameters())
        if self.config.kind == "image":
            sides = (self.config.image_size or 0,) * 2
            images = torch.randn(2, self.config.channels, *sides, dtype=torch.float32, generator=generator)
            return images.to(like)
        device, shape = like.device, (2, self.config.context)
        tokens = torch.randint(self.config.vocabulary, shape, generator=generator).to(device)
        if self.encoder is None:
            return tokens
        vocabulary = self.config.source_vocabulary or self.config.vocabulary
        return {"tokens": tokens, "source": torch.randint(vocabulary, shape, generator=generator).to(device)}

    def _adopt_loaded(self, *_: object) -> None:
        """Bring contents to the dtype and device of parameters that were exchanged in loading (`assign=True`)."""
        like = next(self.parameters())
        for content in self.modules():
            if isinstance(content, Content):
                held = content.dtype_like
                if (held.dtype, held.device) != (like.dtype, like.device):
                    content.adopt(like)

    def _memory_keys_values(
        self, batch: int, memory: Tensor | None, source_lengths: Tensor | None, cache: KeyValueCache | None = None
    ) -> MemoryKeysValues:
        """Return what cross-attention attends to, from the cache or computed from the memory [B, Ls, W]."""
        if cache is not None:
            if memory is not None or source_lengths is not None:
                raise InputError("the cache holds the source: give it to new_cache alone.")
            return MemoryKeysValues(cache.cross, Visibility(lengths=cache.source_lengths))
        if memory is None:
            raise InputError("an encoder-decoder needs a source, or its memory from encode().")
        if len(memory) != batch:
            raise InputError(f"there are {len(memory)} sources for {batch} sequences.")
        source_lengths = checked_lengths(source_lengths, batch, memory.shape[1], "source_lengths")
        return MemoryKeysValues(self.memory_keys_values(memory), Visibility(lengths=source_lengths))

    def _embed(self, tokens: Tensor, embedding: nn.Module) -> Tensor:
        """Embed tokens [B, L], or images: [B, L, W]."""
        state: Tensor = embedding(tokens)
        scaled = self.config.embedding_scale and self.config.kind != "image"
        return math.sqrt(self.config.width) * state if scaled else state

    def _check_source(self, source: Tensor | None, memory: Tensor | None, *about_source: Tensor | None) -> None:
        """Raise InputError for a source, or anything about one, that the model doesn't take."""
        if self.encoder is None and any(tensor is not None for tensor in (source, memory, *about_source)):
            raise InputError(f"a model of kind {self.config.kind} has no encoder: it takes no source.")
        if source is not None and memory is not None:
            raise InputError("give a source or its memory, not both.")

    def _check(self, tokens: Tensor, segments: Tensor | None, cache: KeyValueCache | None, mask: Tensor | None) -> None:
        """Raise InputError for segments, a cache or a mask that this model doesn't take."""
        if segments is not None and self.segments is None:
            raise InputError(
                "segments were given, but the model has no segment embeddings: set `segments` in its config."
            )
        if cache is None:
            return
        if not self.causal:
            raise InputError(f"a model of kind {self.config.kind} reads everything at once: it has no cache.")
        if mask is not None:
            raise InputError("with a cache each token sees all tokens before it: a mask can't be given as well.")
        if cache.batch != tokens.shape[0]:
            raise InputError(f"the cache is for {cache.batch} sequences, and {tokens.shape[0]} were given.")
        cache.check_room(tokens.shape[1])

    def _check_shortcuts(self, tokens: Tensor, *, last_only: bool, once_per_token: bool, cached: bool) -> None:
        """Raise InputError for shortcuts that can't be taken with this model or these options."""
        if last_only and not self.causal:
            raise InputError(f"last_only is for causal models, and this one is of kind {self.config.kind}.")
        if last_only and not tokens.shape[1]:
            raise InputError("last_only is for the last token, and the sequences have none.")
        if once_per_token and (self.config.kind == "image" or self.segments is not None or cached):
            raise InputError("once_per_token is for whole sequences of tokens, without images, segments or a cache.")
        if once_per_token and self.training and self.config.embedding_dropout:
            raise InputError(
                "once_per_token can't be combined with embedding_dropout in training: dropout differs per position."
            )

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        """Draw weights from a normal distribution of variance 1 / fan-in, biases 0 and norms the identity.

        The matrices whose outputs are added to the residual stream are divided by √(the number of them), as in GPT-2
        (Radford et al. 2019, section 2.3).
        """
        in_slots = {id(value) for slot in self.modules() if isinstance(slot, Slot) for value in slot.parameters()}
        additions = {"": (3 if self.encoder is not None else 2) * len(self.blocks)}
        if self.encoder is not None:
            additions["encoder."] = 2 * len(self.encoder.blocks)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2 or id(parameter) in in_slots:  # norms start at the identity
                continue
            deviation = 1 / math.sqrt(parameter.shape[1])
            if name.endswith(".out.weight"):
                deviation /= math.sqrt(additions["encoder." if name.startswith("encoder.") else ""])
            parameter.normal_(0, deviation, generator=keyed_generator(seed, name))
        if not self.config.embedding_scale:  # the table was drawn for scaled embeddings: it would drown unscaled ones
            for stack in (self, self.encoder):
                content = None if stack is None else stack.position.content
                if isinstance(content, TrainableTable) and content.function.role == "added":
                    content.table.div_(math.sqrt(self.config.width))


def _checked_tokens(tokens: Tensor, vocabulary: int) -> Tensor:
    """Return tokens as int32 or int64; raise InputError unless they are [B, L] integers below `vocabulary`.

    Their values are checked on a CPU only, and not inside torch.compile or torch.func.
    """
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise InputError(f"tokens are [batch, length] integers, and {list(tokens.shape)} {tokens.dtype} was given.")
    readable = not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    if tokens.device.type == "cpu" and readable and tokens.numel():
        low, high = (int(value) for value in torch.aminmax(tokens))
        if low < 0 or high >= vocabulary:
            raise InputError(f"token {low if low < 0 else high} is not in the vocabulary of {vocabulary}.")
    return tokens if tokens.dtype == torch.int32 else tokens.long()
