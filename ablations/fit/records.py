"""What is kept of a fit: its checkpoint, and its record as one immutable Parquet file."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from trans4init.ablations.device import accelerator_name
from trans4init.ablations.fit.fitted import Fitted
from trans4init.ablations.functions import Function
from trans4init.ablations.nets import Net
from trans4init.reports.machine import Environment, capture
from trans4init.reports.records.schema import CellKey, Measurement, RunRecord
from trans4init.reports.records.store import write_run
from trans4init.reports.records.vocabulary import Status

__all__ = ["asked", "keep", "record_of", "run_id_of"]


def asked(function: Function, shape: dict[str, int], net: Net, how: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, JSON-ready: the same words make the same fit. how: what else `fit` was told, as the steps."""
    return {**net.card(), "function": function.located, "shape": shape, **how}


def run_id_of(words: dict[str, Any], seed: int) -> str:
    """The name of the fit with these words and this seed."""
    return f"fit-{hashlib.sha256(f'{_digest(words)}{seed}'.encode()).hexdigest()[:16]}"


def keep(fitted: Fitted, how: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write the checkpoint and the record; where they are."""
    words = asked(fitted.function, fitted.shape, fitted.net, how)
    notes = {"fitted_on": str(fitted.net.domain)}
    if fitted.fidelity.folded_by:
        notes["folded_by"] = fitted.fidelity.folded_by
    record = record_of(words, fitted.seed, fitted.fidelity.measurements(), notes)
    return fitted.save(folder / "checkpoints" / record.run_id), write_run(record, folder / "results")


def record_of(
    words: dict[str, Any],
    seed: int,
    measurements: tuple[Measurement, ...],
    notes: dict[str, str],
    *,
    status: Status = "ok",
    error: str = "",
) -> RunRecord:
    """The record of a fit, or of something measured as one; `words` name its function and its net."""
    environment = _environment()
    return RunRecord(
        run_id=run_id_of(words, seed),
        study="fit",
        spec_hash=_digest(words)[:12],
        cell=CellKey(words["function"], "", words["net"]),
        task="fit",
        model="",
        trial=None,
        seed=seed,
        phase="fit",
        status=status,
        device=environment.processor,  # fits run on the CPU
        created_at=datetime.now(UTC),
        measurements=measurements,
        environment=environment,
        notes=notes,
        spec=words,
        error=error,
    )


@cache
def _environment() -> Environment:
    return capture(accelerator_name())


def _digest(words: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
