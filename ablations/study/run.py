"""Run a study from its spec to its report, or go on with one that was interrupted."""

import dataclasses
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trans4init.ablations.errors import FaultError, InputError, shown
from trans4init.ablations.lock import held
from trans4init.ablations.net_files import is_whole
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.files import remove_leftovers, write_whole
from trans4init.reports.machine import capture
from trans4init.reports.records.kept_slots import SLOTS
from trans4init.reports.records.schema import RunRecord, StudyCard
from trans4init.reports.records.store import Results, load_results, write_card
from trans4init.reports.records.tables import UnreadableSchemaError
from trans4init.reports.study_report.report_files import HTML, is_current
from trans4init.reports.study_report.summary import summarise
from trans4init.reports.study_report.verdict_text import VerdictText, verdict_text

if TYPE_CHECKING:
    from trans4init.reports.mirror.runs import BackgroundMirror

__all__ = ["INTERRUPTED", "Options", "run_study"]

_FREE = (
    *("name", "question", "arms", "baselines", "throughput", "error_budget"),
    *("tuning.trials", "tuning.seeds_per_trial", "tuning.times"),
    *("evaluation.seeds", "evaluation.target", "evaluation.margins", "evaluation.looks"),
)
"""What may change between two commands that run the same study."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 + SIGINT, as in shells."""


@dataclass(frozen=True)
class Options:
    """Says how to run a study, as opposed to what it is."""

    file: str
    """The study's file or name, as it was given."""
    command: str
    """The command line to continue the study with."""
    folder: Path
    executor: str = "process"
    retry_failed: bool = False


def run_study(spec: StudySpec, options: Options, console: Console) -> int:
    """Run what is left of the study and write its report; return the exit code.

    It is 0 when all is done, 1 if a run failed, 130 if Ctrl-C let the runs under way finish. Raises InputError, before
    any run, for a study that can't be run, and FaultError if the machine refuses, such as a full disk.
    """
    study = ResolvedStudy(spec, spec.task.fingerprint(), capture(), options.folder.absolute(), options.command)
    _refuse_name(study.folder)
    new = not study.folder.exists()
    if new:
        _check(study, options.file)  # before the folder is made: a study that can't be run leaves nothing behind
    with held(study.folder):
        for folder in (study.results, study.folder / SLOTS, *(study.folder / "checkpoints").glob("*")):
            remove_leftovers(folder)
        if options.retry_failed:
            _set_failures_aside(study.results)
        try:
            results = load_results(study.results)
        except UnreadableSchemaError as error:
            raise InputError(f"{error}; name another folder with --out.") from None
        for path in results.corrupt:
            _say(console, f"{path.name} was damaged and is set aside; what it held is made again.")
        _refuse_other_conditions(study, results.records)
        stated = results.stored_card.stated if results.stored_card else None
        agenda = Agenda(study, results.records, _fits_at_hand(study, results.records), stated)
        if agenda.complete():
            _say(console, f"Nothing left to run: all {agenda.total()} runs of {spec.name} are finished.")
            card = _keep_card(agenda.study, results)
            return _conclude(agenda, dataclasses.replace(results, stored_card=card), console)
        complete, mirror = _run(agenda, results, options, console, checked=new)
        code = _conclude(agenda, None, console, mirror)
        if not complete:
            _say(console, f"Stopped after {agenda.done()} of {agenda.total()} runs; to continue: {options.command}")
            return INTERRUPTED
        return code


def _run(
    agenda: Agenda, results: Results, options: Options, console: Console, *, checked: bool
) -> tuple[bool, "BackgroundMirror"]:
    """Run the agenda; return whether it is complete, and the mirror, which says how it fared.

    results: what is in the folder. checked: whether the study has been built once already.
    """
    from trans4init.ablations.device import parallel_runs
    from trans4init.ablations.study.coordinator import MIRROR_PATIENCE, Coordinator
    from trans4init.ablations.study.display import make_display
    from trans4init.ablations.study.executors.choose import make_executor
    from trans4init.ablations.study.executors.local import start_server
    from trans4init.ablations.study.optuna_database import OptunaDatabase
    from trans4init.ablations.study.worker import PRELOAD, StudyWorker
    from trans4init.reports.mirror.runs import BackgroundMirror

    study = agenda.study
    if options.executor == "process":
        start_server("__main__", PRELOAD)
    if not checked:
        _check(study, options.file)
    worker = StudyWorker(study, elsewhere=options.executor == "ray")
    executor = make_executor(options.executor, worker, parallel_runs(study.spec.training.threads), PRELOAD)
    card = _keep_card(study, results)

    def keep_grown(grown: ResolvedStudy) -> None:
        known = dataclasses.replace(grown.card(), stated=card.stated, controls_left_out=card.controls_left_out)
        _write_card(grown, known)

    database, mirror = OptunaDatabase(study.spec, study.folder), BackgroundMirror(study.folder, study.spec.name)
    with make_display(agenda, console) as display:
        complete = Coordinator(agenda, executor, database, mirror, display, keep_grown).run()
    mirror.drain(MIRROR_PATIENCE)
    return complete, mirror


def _refuse_name(folder: Path) -> None:
    """Raise InputError for a folder below the current one that Optuna can't be given, since its name is not UTF-8."""
    try:
        os.path.relpath(folder).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name of {shown(folder)} is not UTF-8; name another folder with --out.") from None


def _check(study: ResolvedStudy, file: str) -> None:
    from trans4init.ablations.study.work import check_study

    check_study(study, file)


def _conclude(
    agenda: Agenda, results: Results | None, console: Console, mirror: "BackgroundMirror | None" = None
) -> int:
    """Write and mirror the report unless it is up to date, print the verdict and the paths; return the exit code.

    results: what is in the folder; None if there is more by now, which is read. mirror: of the runs, if there were any.
    """
    folder = agenda.study.folder
    mirror_error, mended = (mirror.error, mirror.mended) if mirror else ("", [])
    if not agenda.finished:
        return 0
    if results is not None and is_current(folder, results):
        verdict = verdict_text(summarise(results.records, results.card))
    else:
        from trans4init.reports.study_report.report import write_report

        report = write_report(folder, results)
        verdict = report.text
        if not mirror_error:
            mirror_error, more = _mirror(folder, report.results, verdict)
            mended = [*mended, *more]
    _say(console, "\n".join(["", *verdict.lines(), ""]))
    _say(console, f"report   {shown(folder / HTML)}")
    _say(console, f"results  {shown(agenda.study.results)}")
    for sentence in mended:
        _say(console, f"In MLflow, {sentence}.")
    if mirror_error:
        again = shlex.join(["trans4init", "sync", shown(folder)])
        _say(console, f"MLflow was not brought up to date ({mirror_error}); later: {again}")
    failed = [record for record in agenda.finished.values() if record.status in ("failed", "oom")]
    if failed:
        runs = f"{len(failed)} run{'s' if len(failed) > 1 else ''}"
        _say(console, f"{runs} failed; the report says why, and --retry-failed runs what failed again.")
    return 1 if failed else 0


def _mirror(folder: Path, results: Results, verdict: VerdictText) -> tuple[str, list[str]]:
    """Bring MLflow up to date; return its error, empty if there was none, and what was put right in it."""
    from trans4init.reports.mirror.runs import sync
    from trans4init.reports.mirror.store import MirrorError

    try:
        return "", sync(folder, results, verdict)
    except MirrorError as error:
        return str(error), []


def _fits_at_hand(study: ResolvedStudy, records: Sequence[RunRecord]) -> list[str]:
    fits = [record.run_id for record in records if record.phase == "fit"]
    return [run_id for run_id in fits if is_whole(study.checkpoint_of(run_id))]


def _keep_card(study: ResolvedStudy, results: Results) -> StudyCard:
    """Write the card that reports go by, and `spec.json` for a person, unless `results` has it; return the card.

    What the study stated when its first evaluation run was made stays in the card, whatever it says now.
    """
    card, before = study.card(), results.stored_card
    evaluated = any(record.phase == "evaluate" for record in results.records)
    stated = (before.stated or before.plan()) if before is not None and evaluated else card.plan()
    known = before.controls_left_out if before is not None and before.cells == card.cells else None
    left_out = _controls_left_out(card) if known is None else known
    card = dataclasses.replace(card, stated=stated, controls_left_out=left_out)
    if card != before:
        _write_card(study, card)
    return card


def _write_card(study: ResolvedStudy, card: StudyCard) -> None:
    content = study.spec.public() | {
        "fingerprint": study.fingerprint,
        "spec_hash": study.spec_hash,
        "command": card.command,
    }
    try:
        write_whole(study.folder / "spec.json", json.dumps(content, indent=2) + "\n")
        write_card(card, study.results)
    except OSError as error:
        raise FaultError(f"{shown(study.folder)} can't be written: {error.strerror}.") from error


def _controls_left_out(card: StudyCard) -> tuple[str, ...]:
    """Return the controls that apply to the study's function and that are none of its arms."""
    from trans4init.ablations.functions import get_function
    from trans4init.ablations.slots.arms import arms_of, get_arm

    names = arms_of(get_function(card.reference.function))
    run = {cell.arm for cell in card.cells if cell.function == card.reference.function}
    return tuple(name for name in names if get_arm(name).role == "control" and name not in run)


def _refuse_other_conditions(study: ResolvedStudy, records: Sequence[RunRecord]) -> None:
    """Raise InputError if the folder holds runs that can't be compared with the study's."""
    now = study.spec.public() | {"fingerprint": study.fingerprint}
    others = {record.study for record in records} - {study.spec.name}
    if others:
        raise InputError(
            f"{shown(study.folder)} holds runs of another study, {min(others)!r}; name another folder with --out."
        )
    for record in records:
        request = study.request_of(record)
        if record.phase == "throughput":
            continue  # a session is measured again when the cells change
        if request is not None and request.run_id != record.run_id:
            change = next(_differences(record.spec, now), "other conditions")
            raise InputError(
                f"{shown(study.folder)} holds runs of another version of this study ({change}); "
                f"name another folder with --out, or give the study another name."
            )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Say what differs between two JSON values, without counts of runs and wording."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            below = f"{path}.{key}" if path else key
            if below not in _FREE:
                yield from _differences(before.get(key, "not set"), now.get(key, "not set"), below)
    elif before != now:
        yield "the data changed" if path == "fingerprint" else f"{path}: {before} there, {now} here"


def _set_failures_aside(results: Path) -> None:
    """Rename the results of runs that failed or ran out of memory, so that these are run again."""
    for record in load_results(results).records:
        if record.status in ("failed", "oom"):
            path = results / f"{record.run_id}.parquet"
            path.replace(path.with_name(path.name + ".retried"))


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
