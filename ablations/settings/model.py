"""The sizes of a Transformer: what a study file or a caller may set. Imports no torch."""

from functools import cache
from typing import Annotated, Any, Literal

from trans4init.ablations.errors import unknown_name
from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from trans4init.ablations.settings.numbers import Count

__all__ = ["Kind", "ModelSize", "TransformerConfig"]

Share = Annotated[float, Field(ge=0, lt=1)]
Kind = Literal["decoder", "encoder-decoder", "encoder", "image"]

_KINDS_OF: dict[str, tuple[Kind, ...]] = {
    "encoder_layers": ("encoder-decoder",),
    "source_vocabulary": ("encoder-decoder",),
    "tied_output": ("decoder", "encoder-decoder", "encoder"),
    "embedding_scale": ("decoder", "encoder-decoder", "encoder"),
    "segments": ("encoder",),
    "classes": ("encoder", "image"),
    "classifier_dropout": ("encoder", "image"),
    "pooling": ("encoder", "image"),
    "output_transform": ("encoder",),
    "image_size": ("image",),
    "patch": ("image",),
    "channels": ("image",),
}
"""The kinds of model that may set a size; sizes that aren't listed are for all kinds. Read by ModelSize."""


class ModelSize(BaseModel):
    """Sets the sizes of a Transformer without its vocabulary, which the task decides."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind = "decoder"
    """Which positions see which: a decoder's see those before them, an encoder's and an image's patches see all."""
    layers: Count
    """Blocks of the stack that gives the output: of the decoder, if there are two stacks."""
    width: Count
    """Dimensions of the residual stream, shared evenly by the heads."""
    heads: Count
    """Number of attention heads of each layer."""
    context: Count = 256
    """Positions seen in training; longer inputs are possible with positional encodings that allow them."""
    position: str = "sinusoidal"
    """The function that tells the model where a token stands; `none` doesn't."""
    activation: str = "gelu"
    """The function of each number inside the feed-forward layers."""
    softmax: str = "softmax-exp"
    """The function that makes attention weights of scores, before they are divided by their sum."""
    softmax_reciprocal: str = "reciprocal"
    """The function of that sum which the weights are multiplied with: the softmax's division."""
    normalization: str = "layernorm-rsqrt"
    """The function of a state's statistic that the norms multiply the state by."""
    scale: str = "attention-scale"
    """The function that scales attention scores."""
    head_mixing: str = "head-mixing"
    """The function that mixes the outputs of the heads."""
    randomised_positions: Count | None = None
    """Sorted random positions below this number are trained on (Ruoss et al. 2023); None: 0, 1, 2, …"""
    feed_forward: Count | None = None
    """Width inside the feed-forward layers; None: 4 · width."""

    encoder_layers: Count | None = None
    """Blocks of the encoder; None: as many as the decoder has."""
    source_vocabulary: Count | None = None
    """Rows of the source tokens' own embedding; None: they share the target's."""
    norm_placement: Literal["pre", "post", "none"] = "pre"
    """Where norms are: before each sublayer and once at the end (Xiong et al. 2020), after each addition (Vaswani et
    al. 2017), or nowhere."""
    normalization_epsilon: Annotated[float, Field(gt=0)] | None = None
    """Added to a norm's statistic; None: the functions' own, 1e-5."""
    embedding_norm: bool = False
    """Whether the sum of the embeddings is normalised (BERT)."""
    embedding_scale: bool = True
    """Whether token embeddings are multiplied by √width (Vaswani et al. 2017, section 3.4)."""
    tied_output: bool = True
    """Whether the output layer uses the (target's) embedding (Press and Wolf 2017), or a matrix of its own."""
    bias: bool = False
    """Whether linear layers inside the blocks have biases."""
    key_value_heads: Count | None = None
    """Key/value heads, each shared by a group of query heads (Ainslie et al. 2023); None: one for each head."""
    rotary_base: Count | None = None
    """Rotary pairs turn by down to 1 / base radians per position; None: the function's own base, mostly 10000."""
    rotary_pairing: Literal["halves", "interleaved"] = "halves"
    """Dimensions that turn together: i and i + P (GPT-NeoX, Llama) or 2i and 2i + 1 (RoFormer, GPT-J)."""
    gated: bool = False
    """Whether feed-forward layers multiply their activations with a second projection (Shazeer 2020, GLU Variants)."""
    dropout: Share = 0.0
    """Share of values that are dropped from what each sublayer adds to the residual stream."""
    attention_dropout: Share = 0.0
    """Share of attention weights that are dropped."""
    embedding_dropout: Share = 0.0
    """Share of values that are dropped from the sum of token embedding and positional encoding."""
    classifier_dropout: Share | None = None
    """Share of values that are dropped from the state that classes are computed from; None: as `dropout`."""
    segments: Count | None = None
    """Number of segment kinds, each with an embedding that is added to its tokens (BERT's token types)."""
    classes: Count | None = None
    """Classes that an encoder tells apart; None: it predicts a token of the vocabulary for each of its inputs."""
    pooling: Literal["mean", "first", "none"] | None = None
    """How a sequence becomes one prediction; "none": one prediction per token. None: "mean" if there are classes."""
    output_transform: bool = False
    """Whether BERT's layer is before the output: linear, activation, norm per token; linear, tanh on a pooled state."""
    image_size: Count | None = None
    """Pixels on each side of an image."""
    patch: Count | None = None
    """Pixels on each side of a patch; each patch is one input of the stack."""
    channels: Count = 1
    """Colours of each pixel: 1 for grey, 3 for red, green and blue."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ModelSize":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} can't be shared by {self.heads} heads evenly")
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(f"{self.heads} heads can't share {self.key_value_heads} key_value_heads evenly")
        return self

    @model_validator(mode="after")
    def _positions_suffice(self) -> "ModelSize":
        if self.randomised_positions is not None and self.randomised_positions < self.positions:
            raise ValueError(
                f"randomised_positions must be at least the context, {self.positions}, not {self.randomised_positions}"
            )
        return self

    @model_validator(mode="after")
    def _sizes_are_for_the_kind(self) -> "ModelSize":
        for name, kinds in _KINDS_OF.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for kind {' or '.join(kinds)}, not for {self.kind}")
        if self.kind == "image":
            missing = [name for name in ("image_size", "patch", "classes") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"kind image needs {' and '.join(missing)}")
            assert self.image_size
            assert self.patch
            if self.image_size % self.patch:
                raise ValueError(f"image_size {self.image_size} can't be cut into patches of {self.patch} evenly")
            if self.pooling == "none":
                raise ValueError("kind image classifies the whole image: pooling must be mean or first, not none")
        elif self.classes is None and self.pooling in ("mean", "first"):
            raise ValueError(f"pooling {self.pooling} gives one prediction per sequence and needs classes")
        elif self.classes is None and self.classifier_dropout is not None:
            raise ValueError("classifier_dropout is for logits of classes and needs classes")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later sizes that have their defaults, so that the hashes of older studies stay the same."""
        sizes: dict[str, Any] = handler(self)
        later = _later_sizes()
        return {name: value for name, value in sizes.items() if name not in later or value != later[name]}

    @property
    def pooled(self) -> Literal["mean", "first", "none"]:
        """How a sequence becomes one prediction, "none" for one per token; `pooling` with its default filled in."""
        return self.pooling or ("none" if self.classes is None else "mean")

    @property
    def positions(self) -> int:
        """The number of positions in training: the context, or the number of an image's patches (and class token)."""
        if self.kind != "image" or self.image_size is None or self.patch is None:
            return self.context
        return (self.image_size // self.patch) ** 2 + (self.pooled == "first")

    def shapes(self) -> dict[str, int]:
        """Return the sizes that functions take as shape arguments, by the argument's name."""
        sizes = {"width": self.width, "heads": self.heads, "head_dim": self.width // self.heads}
        if self.rotary_base is not None:
            sizes["base"] = self.rotary_base
        if self.image_size is not None and self.patch is not None:
            sizes |= {"columns": self.image_size // self.patch, "class_tokens": int(self.pooled == "first")}
        return sizes

    def __str__(self) -> str:
        chosen = [f"{name} {value}" for name, value in self.model_dump().items() if name in _later_sizes()]
        return ", ".join(
            [f"{self.kind} {self.layers}×{self.width}, {self.heads} heads, context {self.positions}", *chosen]
        )


@cache
def _later_sizes() -> dict[str, Any]:
    """Return the defaults of the sizes added after the first studies, which are declared after `feed_forward`."""
    fields = ModelSize.model_fields
    names = list(fields)
    return {name: fields[name].default for name in names[names.index("feed_forward") + 1 :]}


_GPT2_SMALL = {
    "layers": 12,
    "width": 768,
    "heads": 12,
    "context": 1024,
    "vocabulary": 50257,
    "position": "learned-table",
    "activation": "gelu-tanh",
    "bias": True,
    "embedding_scale": False,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
}  # Radford et al. 2019
_BASE = {
    "kind": "encoder-decoder",
    "layers": 6,
    "width": 512,
    "heads": 8,
    "feed_forward": 2048,
    "context": 512,
    "vocabulary": 37000,
    "activation": "relu",
    "norm_placement": "post",
    "bias": True,
    "dropout": 0.1,
    "embedding_dropout": 0.1,
}  # Vaswani et al. 2017, table 3 and section 5.4
_VIT_TINY = {
    "kind": "image",
    "layers": 12,
    "width": 192,
    "heads": 3,
    "position": "learned-table",
    "bias": True,
    "normalization_epsilon": 1e-6,
    "image_size": 224,
    "patch": 16,
    "channels": 3,
    "classes": 1000,
    "pooling": "first",
}  # Touvron et al. 2021, table 1 (DeiT-Ti)
_PRESETS: dict[str, dict[str, Any]] = {
    "toy": {"layers": 1, "width": 128, "heads": 4},
    "nano": {"layers": 4, "width": 128, "heads": 4, "context": 64},  # nanoGPT's recipe for a CPU
    "base": _BASE,
    "gpt2-small": _GPT2_SMALL,
    "vit-tiny": _VIT_TINY,
}


class TransformerConfig(ModelSize):
    """Sets the sizes of a Transformer with its vocabulary."""

    vocabulary: Count = 256
    """Number of different tokens; the default has one per byte."""

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "TransformerConfig":
        """Return the named sizes, with some of them changed; raise InputError for an unknown name.

        `toy`, `nano`, `base` (Vaswani et al. 2017), `gpt2-small` (Radford et al. 2019), `vit-tiny` (Touvron et al.
        2021).
        """
        if name not in _PRESETS:
            raise unknown_name("preset", name, _PRESETS)
        return cls(**_PRESETS[name] | changes)
