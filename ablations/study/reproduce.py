"""Make one run of a study again, from its record alone, and compare what it measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trans4init.ablations.code_policy import named_by_data
from trans4init.ablations.errors import FaultError, InputError, shown
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.machine import Environment, capture
from trans4init.reports.records.schema import Measurement, RunRecord
from trans4init.reports.records.store import load_results, path_of, read_runs

__all__ = ["ROUNDING", "Reproduction", "find_run", "made_again"]

_TIMES = ("s", "µs", "tokens/s")
"""Units of what clocks measure, which no run measures twice alike."""
ROUNDING = 1e-3
"""Relative difference up to which numbers are called the same within rounding: float32 sums taken in another order
differ by 1e-7, and training makes more of it."""


@dataclass(frozen=True)
class Reproduction:
    """Holds a run and the same run made again."""

    before: RunRecord
    again: RunRecord

    def differences(self) -> list[tuple[Measurement, float | None, float]]:
        """Return each number that the run measured, what it is now, and their relative difference, which may be 0.

        It is infinite where there is no such number now. Times are left out. A run that was stopped early is compared
        up to its end.
        """
        now = {(m.metric.name, m.step): m.value for m in self.again.measurements}
        found = []
        for measured in self.before.measurements:
            if measured.metric.unit in _TIMES or (measured.value is None and self.before.status == "pruned"):
                continue
            value = now.get((measured.metric.name, measured.step), math.nan)
            found.append((measured, value, _difference(measured.value, value)))
        return found

    def largest(self) -> float:
        """Return the largest relative difference."""
        return max((difference for _, _, difference in self.differences()), default=0.0)

    def unlike(self) -> list[str]:
        """Return in what this machine and its software differ from those that made the run."""
        return _unlike(self.before.environment, self.again.environment)


def _difference(before: float | None, now: float | None) -> float:
    if before is None or now is None:
        return 0.0 if before is now else math.inf
    if before == now:
        return 0.0
    return abs(now - before) / max(abs(now), abs(before)) if math.isfinite(now) else math.inf


def _unlike(before: Environment, now: Environment) -> list[str]:
    found = [
        f"{what} {then or 'none'}, now {today or 'none'}"
        for what, then, today in (
            ("processor", before.processor, now.processor),
            ("GPU", before.accelerator, now.accelerator),
            ("Python", before.python, now.python),
            ("commit", before.git_commit[:12], now.git_commit[:12]),
        )
        if then != today
    ]
    packages = {name: (before.versions.get(name), now.versions.get(name)) for name in ("torch", "numpy")}
    return found + [f"{name} {then}, now {today}" for name, (then, today) in packages.items() if then != today]


def find_run(run_id: str, folders: Sequence[Path]) -> RunRecord:
    """Return the record of a run in one of the studies' folders; raises InputError if none has it."""
    for folder in folders:
        path = path_of(folder / "results", run_id)
        if path.is_file():
            return next(record for record in read_runs(path) if record.run_id == run_id)
    for folder in folders:
        for record in load_results(folder / "results").records:
            if record.run_id == run_id:
                return record
    if not folders:
        raise InputError("there is no study here; name the folder of one with --study.")
    raise InputError(f"no run is called {run_id!r} in {', '.join(shown(folder) for folder in folders)}.")


def made_again(record: RunRecord, room: Path, source: Path | None = None) -> Reproduction:
    """Make the run again in the folder `room`, the fit that it needs before it.

    A run that a pruner stopped, which knew of runs beside it, may go on to its end.

    source: the user's file that the study was run on, of which a record has the name alone. Raises InputError for runs
    that can't be made again from their record, and FaultError where the fit goes wrong.
    """
    from trans4init.ablations.study.trained_runs import run_request
    from trans4init.ablations.study.work import run_fits

    if record.phase == "throughput":
        raise InputError("a speed is measured, beside those it is compared with: run the study again to measure it.")
    study = _study(record, room, source)
    request = study.request_of(record)
    if request is None or request.run_id != record.run_id:
        raise InputError(
            f"{record.run_id} was made by another version of trans4init ({record.environment.git_commit[:12]}), which "
            "asked for other runs."
        )
    fit = request if record.phase == "fit" else study.fit_of(request)
    if fit is not None:
        [fitted] = run_fits(study, [fit], lambda *_: None)
        if record.phase == "fit":
            return Reproduction(record, fitted)
        if fitted.status != "ok":
            raise FaultError(f"the fit that the run needs ends as {fitted.status}: {fitted.error}")
    return Reproduction(record, run_request(study, request, lambda *_: None))


def _study(record: RunRecord, room: Path, source: Path | None) -> ResolvedStudy:
    """Return the study, or the block of a grid, that a record's spec describes, with the data at hand."""
    content: dict[str, Any] = dict(record.spec)
    if not content:
        raise InputError(f"{record.run_id} belongs to no study.")
    fingerprint = content.pop("fingerprint", None)
    if source is not None:
        content["task"] = content["task"] | {"source": str(source)}
    try:
        with named_by_data(f"the record of {record.run_id}"):
            spec = StudySpec.model_validate(content)
    except ValidationError as error:
        raise InputError(sentence(error, StudySpec, f"the record of {record.run_id}")) from None
    task = spec.task
    found = task.fingerprint()
    if found != fingerprint:
        raise InputError(
            f"the data of {task} aren't those that {record.run_id} was made with; name the file with --data."
        )
    return ResolvedStudy(spec, found, capture(), room, "")
