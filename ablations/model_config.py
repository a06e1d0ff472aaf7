"""The sizes of a Transformer: what a study file or a caller may set. Imports no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trans4init.ablations.errors import unknown_name

__all__ = ["ModelSize", "TransformerConfig"]

Count = Annotated[int, Field(ge=1)]


class ModelSize(BaseModel):
    """A Transformer but for its vocabulary. `feed_forward` is 4 · width unless it is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["decoder"] = "decoder"
    layers: Count
    width: Count
    heads: Count
    context: Count = 256
    """Positions seen in training; a longer input is possible where the positional encoding can do it."""
    position: str = "sinusoidal"
    activation: str = "gelu"
    softmax: str = "softmax-exp"
    softmax_reciprocal: str = "reciprocal"
    normalization: str = "layernorm-rsqrt"
    scale: str = "attention-scale"
    head_mixing: str = "head-mixing"
    randomised_positions: Count | None = None
    """Train on sorted random positions below this number (Ruoss et al. 2023) in place of 0, 1, 2, …"""
    feed_forward: Count | None = None

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "ModelSize":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} can't be shared by {self.heads} heads evenly")
        return self

    @model_validator(mode="after")
    def _positions_suffice(self) -> "ModelSize":
        if self.randomised_positions is not None and self.randomised_positions < self.context:
            raise ValueError(
                f"randomised_positions must be at least the context, {self.context}, not {self.randomised_positions}"
            )
        return self

    def shapes(self) -> dict[str, int]:
        """The sizes that functions are shaped by, by the name of their shape argument."""
        return {"width": self.width, "heads": self.heads, "head_dim": self.width // self.heads}

    def __str__(self) -> str:
        return f"{self.kind} {self.layers}×{self.width}, {self.heads} heads, context {self.context}"


_PRESETS = {
    "toy": {"layers": 1, "width": 128, "heads": 4},
    "nano": {"layers": 4, "width": 128, "heads": 4, "context": 64},  # nanoGPT's recipe for a CPU
}


class TransformerConfig(ModelSize):
    """One Transformer, with the number of different tokens."""

    vocabulary: Count = 256
    """One token per byte unless another number is given."""

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "TransformerConfig":
        """The sizes called `name` (`toy` or `nano`), with some of them changed; raises InputError for another name."""
        if name not in _PRESETS:
            raise unknown_name("preset", name, _PRESETS)
        return cls(**_PRESETS[name] | changes)
