"""How a model is trained: what a study file may set. Imports no torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TrainingConfig"]

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class TrainingConfig(BaseModel):
    """AdamW with linear warm-up and cosine decay. Fields that a study's search space names are set per trial."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Count
    batch: Count
    """Windows per step."""
    learning_rate: Positive = 1e-3
    final_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of the model's matrices; norms are not decayed."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    clip: Positive = 1.0
    """Largest norm of the whole gradient."""
    slot_learning_rate_ratio: Positive = 1.0
    """Learning rate of what moves in the slot, as a multiple of the model's."""
    slot_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of what moves in the slot: 0, since decay pulls a net off its function."""
    evaluations: Count = 5
    """Times that the validation loss is measured, the last at the end."""
    log_every: Count = 10
    """Steps between two rows of training loss, and between two checks that it is a number."""
    threads: Count = 1
    """CPU threads of one run: fixed, so that a run's numbers don't depend on where it runs."""

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.batch} windows"
