"""How a model is trained: what a study file or a recipe may set. Imports no torch."""

import math
from typing import Annotated, Any, Literal

from trans4init.ablations.settings.base import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

__all__ = ["BatchUnit", "TrainingConfig"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
BatchUnit = Literal["examples", "tokens"]

_LATER = frozenset(
    "accumulate batch_unit beta1 checkpoint_every compile label_smoothing patience precision schedule workers".split()  # noqa: SIM905
)
"""Settings that came after the first published study: they are no part of its conditions until they are set."""


class TrainingConfig(BaseModel):
    """AdamW with linear warm-up and a schedule. Fields that a study's search space names are set per trial."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Count
    batch: Count
    """Examples (windows of a text) per step, or padded tokens where `batch_unit` says so."""
    batch_unit: BatchUnit = "examples"
    """`tokens`: as many examples of similar length as fit into `batch` tokens with their padding."""
    accumulate: Count = 1
    """Pieces that a batch is worked through in, one after the other: the same step in less memory."""
    learning_rate: Positive = 1e-3
    """The highest one."""
    final_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Where the cosine ends, as a share of the highest; the other schedules don't have it."""
    schedule: Literal["cosine", "inverse-square-root", "constant"] = "cosine"
    """What follows the warm-up; inverse square root as in Vaswani et al. 2017, section 5.3."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of the model's matrices; norms are not decayed."""
    beta1: Share = 0.9
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    clip: Positive = 1.0
    """Largest norm of the whole gradient."""
    label_smoothing: Share = 0.0
    """Share of the target's probability that is spread over all classes, in training only (section 5.4)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward and backward, by autocast where the device has it; weights and optimiser stay in float32."""
    compile: bool = False
    """Train through torch.compile."""
    slot_learning_rate_ratio: Positive = 1.0
    """Learning rate of what moves in the slot, as a multiple of the model's."""
    slot_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of what moves in the slot: 0, since decay pulls a net off its function."""
    evaluations: Count = 5
    """Times that the validation loss is measured, the last at the end."""
    patience: Count | None = None
    """Evaluations without a new best after which training stops early; never where it isn't given."""
    checkpoint_every: Count | None = None
    """Steps between two checkpoints, besides those at evaluations."""
    log_every: Count = 10
    """Steps between two rows of training loss, and between two checks that it is a number."""
    threads: Count = 1
    """CPU threads of one run: fixed, so that a run's numbers don't depend on where it runs."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches; 0 prepares them in the training process. The batches are the same."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The later settings only where they differ from their defaults: the hashes of earlier studies stay."""
        kept: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in kept.items() if name not in _LATER or value != fields[name].default}

    @model_validator(mode="after")
    def _inverse_square_root_has_a_warm_up(self) -> "TrainingConfig":
        if self.schedule == "inverse-square-root" and not self.warmup_steps:
            raise ValueError(
                "schedule 'inverse-square-root' needs a warm-up to fall from: warmup_steps must be at least 1"
            )
        return self

    def learning_rate_factor(self, step: int) -> float:
        """The share of the highest learning rate at a step, counted from 0: up in a line, then by the schedule."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "inverse-square-root":
            return math.sqrt((self.warmup_steps + 1) / (step + 1))
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_learning_rate_ratio + (1 - self.final_learning_rate_ratio) * cosine

    def evaluated_at(self) -> frozenset[int]:
        """The steps after which the model is measured."""
        return frozenset(round(self.steps * (n + 1) / self.evaluations) for n in range(self.evaluations))

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.batch} {self.batch_unit}"
