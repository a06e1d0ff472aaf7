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
from trans4init.ablations.settings.numbers import Count

__all__ = ["BatchUnit", "TrainingConfig"]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
BatchUnit = Literal["examples", "tokens"]

_LATER = frozenset(
    "accumulate batch_unit beta1 checkpoint_every compile label_smoothing patience precision schedule workers".split()  # noqa: SIM905
)
"""Settings that are newer than the first published study. At their defaults they are left out of what is hashed, so
that the hashes of earlier studies stay; a new setting must be added here. Read by TrainingConfig."""


_OF_ONE_RUN = ("learning_rate", "weight_decay", "slot_learning_rate_ratio", "slot_weight_decay")
"""Settings in which runs that are trained together may differ."""


class TrainingConfig(BaseModel):
    """Settings of AdamW with a linear warm-up and a schedule. A study's trials change those in its search space."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Count
    """Number of training steps; each updates the weights once."""
    batch: Count
    """Examples (windows of a text) per step, or tokens with padding, as `batch_unit` says."""
    batch_unit: BatchUnit = "examples"
    """`tokens` puts as many examples of similar length into a batch as fit into `batch` tokens with their padding."""
    accumulate: Count = 1
    """Number of pieces that a batch is divided into, one after the other: the same step in less memory."""
    learning_rate: Positive = 1e-3
    """The highest learning rate, reached after the warm-up."""
    final_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The cosine's last learning rate, as a share of the highest; the other schedules don't use it."""
    schedule: Literal["cosine", "inverse-square-root", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; inverse square root as in Vaswani et al. 2017, section 5.3."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Number of steps in which the learning rate rises linearly from near 0 to the highest."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of the model's matrices; vectors, such as those of norms, don't decay."""
    beta1: Share = 0.9
    """Share of AdamW's running mean of gradients that a step keeps (Loshchilov and Hutter 2019)."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of AdamW's running mean of squared gradients that a step keeps."""
    clip: Positive = 1.0
    """The largest norm of the whole gradient: a longer one is scaled down."""
    label_smoothing: Share = 0.0
    """Share of the target's probability that is spread over all classes, in training only (Vaswani, section 5.4)."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of forward and backward passes, by autocast; weights and optimiser stay in float32."""
    compile: bool = False
    """Whether the model is trained through torch.compile."""
    slot_learning_rate_ratio: Positive = 1.0
    """Learning rate of what moves in the slot, as a multiple of the model's."""
    slot_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of what moves in the slot; 0 by default, since decay pulls a net away from its function."""
    evaluations: Count = 5
    """Number of evaluations, at equal distances; the last is at the end."""
    patience: Count | None = None
    """Number of evaluations without a new best after which training stops; None: it doesn't stop early."""
    checkpoint_every: Count | None = None
    """Steps between two checkpoints, besides those at evaluations; None: only those."""
    log_every: Count = 10
    """Steps between two rows of training loss, and between two checks that it is finite."""
    threads: Count = 1
    """CPU threads of a run: fixed, so that its numbers don't depend on how many cores a machine has."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Number of processes that prepare batches, which are the same for any number; 0: the training process does."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Dump the newer settings only if they differ from their defaults, so that hashes of earlier studies stay."""
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if name not in _LATER or value != fields[name].default}

    @model_validator(mode="after")
    def _inverse_square_root_has_a_warm_up(self) -> "TrainingConfig":
        if self.schedule == "inverse-square-root" and not self.warmup_steps:
            raise ValueError(
                "schedule 'inverse-square-root' falls from the end of a warm-up: warmup_steps must be at least 1"
            )
        return self

    def learning_rate_factor(self, step: int) -> float:
        """Return the share of the highest learning rate at a step, counted from 0."""
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
        """Return the steps after which the model is evaluated."""
        return frozenset(round(self.steps * (n + 1) / self.evaluations) for n in range(self.evaluations))

    def shared(self) -> dict[str, Any]:
        """Return the settings in which runs that are trained together must agree: all but rates and decays."""
        return self.model_dump(exclude=set(_OF_ONE_RUN))

    def why_alone(self) -> str:
        """Return why runs with these settings can't be trained together, as part of a sentence; empty if they can."""
        if self.compile:
            return "compiled models aren't stacked"
        if self.precision == "float16":
            return "float16 scales the loss of one run"
        if self.accumulate > 1:
            return "batches in pieces aren't stacked"
        if self.batch_unit == "tokens":
            return "batches of tokens differ in their number of examples"
        if self.workers:
            return "each would have processes of its own for its data"
        if self.patience is not None:
            return "patience ends each run at a step of its own"
        return ""

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.batch} {self.batch_unit}"
