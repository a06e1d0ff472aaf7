"""Tasks: data, loss and metrics. Each task is a class in a file of its own."""

from trans4init.ablations.registry import import_all
from trans4init.ablations.tasks.base import TASKS, Batch, Task, model_config

__all__ = ["TASKS", "Batch", "Task", "list_tasks", "model_config"]

import_all(__name__, __path__)


def list_tasks() -> list[str]:
    """Return the names of all tasks."""
    return TASKS.names()
