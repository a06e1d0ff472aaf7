"""Saves a fit: its checkpoint, and its record as one immutable Parquet file."""

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

__all__ = ["fit_request", "record_of", "run_id_of", "save_fit"]


def fit_request(function: Function, shape: dict[str, int], net: Net, how: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a fit, JSON-ready: the same request and seed make the same fit. how: other arguments of `fit`."""
    return {**net.description(), "function": function.located, "shape": shape, **how}


def run_id_of(request: dict[str, Any], seed: int) -> str:
    """Return the run id of a request with a seed."""
    return f"fit-{hashlib.sha256(f'{_digest(request)}{seed}'.encode()).hexdigest()[:16]}"


def save_fit(fitted: Fitted, how: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write checkpoint and record; return the checkpoint's folder and the record's file."""
    request = fit_request(fitted.function, fitted.shape, fitted.net, how)
    notes = {"fitted_on": str(fitted.net.domain)}
    if fitted.fidelity.folded_by:
        notes["folded_by"] = fitted.fidelity.folded_by
    record = record_of(request, fitted.seed, fitted.fidelity.measurements(), notes)
    return fitted.save(folder / "checkpoints" / record.run_id), write_run(record, folder / "results")


def record_of(
    request: dict[str, Any],
    seed: int,
    measurements: tuple[Measurement, ...],
    notes: dict[str, str],
    *,
    status: Status = "ok",
    error: str = "",
) -> RunRecord:
    """Make the record of a fit, or of something measured as one; `request` has its function and its net."""
    environment = _environment()
    return RunRecord(
        run_id=run_id_of(request, seed),
        study="fit",
        spec_hash=_digest(request)[:12],
        cell=CellKey(request["function"], "", request["net"]),
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
        spec=request,
        error=error,
    )


@cache
def _environment() -> Environment:
    return capture(accelerator_name())


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
