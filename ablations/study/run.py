"""Run a study from its spec to its report, or go on with one that was interrupted."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from trans4init.ablations.errors import FaultError, InputError, shown
from trans4init.ablations.lock import held
from trans4init.ablations.net_files import is_whole
from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.bundles import Bundles
from trans4init.ablations.study.cards import StoredCards, card_before
from trans4init.ablations.study.changes import counts_changed, refuse_other_conditions, what_changed
from trans4init.ablations.study.disk import check_disk
from trans4init.ablations.study.grid import Grid
from trans4init.ablations.study.grid_agenda import GridAgenda
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.resolving import resolve
from trans4init.ablations.study.spec import StudySpec
from trans4init.reports.files import is_whole_database, remove_leftovers
from trans4init.reports.records.kept_slots import SLOTS
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import Results, load_results, set_failures_aside
from trans4init.reports.records.tables import UnreadableSchemaError
from trans4init.reports.study_report.blocks import study_text, summaries
from trans4init.reports.study_report.report_files import HTML, is_current, stated_verdict
from trans4init.reports.study_report.verdict_text import VerdictText

if TYPE_CHECKING:
    from trans4init.ablations.study.optuna_database import OptunaDatabase
    from trans4init.ablations.study.server import Server
    from trans4init.reports.mirror.runs import BackgroundMirror

__all__ = ["INTERRUPTED", "Options", "run_study"]

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
    fail_fast: bool = False
    array_size: int | None = None
    """How many runs that are alike are trained together at most; None: as many as suit the machine."""
    address: str | None = None
    """Of the Ray cluster; None for the one that RAY_ADDRESS names, or a new one on this machine."""
    gpus_per_run: float | None = None
    """The share of a GPU that a unit of work takes on the cluster; None: one, where it has any."""


def run_study(study: StudySpec | Grid, options: Options, console: Console) -> int:
    """Run what is left of the study and write its report; return the exit code.

    It is 0 when all is done, 1 if a run failed, 130 if Ctrl-C let the runs under way finish. Raises InputError, before
    any run, for a study that can't be run, and FaultError if the machine refuses, such as a full disk.
    """
    grid = study if isinstance(study, Grid) else Grid.of(study)
    folder = options.folder.absolute()
    _refuse_name(folder)
    with _storage_held(grid) as server, ExitStack() as locks:
        new = not folder.exists()
        if not new:
            locks.enter_context(held(folder))  # before the data are read: a second command stops at once
        studies = resolve(grid, folder, options.command)
        if new:
            _check(studies, options.file)  # before the folder is made: a study that can't be run leaves nothing behind
            locks.enter_context(held(folder))
        return _run_held(studies, options, console, server, checked=new)


def _storage_held(grid: Grid) -> AbstractContextManager["Server | None"]:
    """Return a context with the server that the study names, where nobody else runs it meanwhile; None for a file."""
    storage = grid.blocks[0].spec.storage
    if storage is None:
        return nullcontext()
    from trans4init.ablations.study.server import reached

    return reached(storage.address(), grid.name)


def _run_held(
    studies: Sequence[ResolvedStudy], options: Options, console: Console, server: "Server | None", *, checked: bool
) -> int:
    """Run what is left of a study, as `run_study` does, while its folder and its server are locked.

    checked: whether the study has been built once already.
    """
    folder, name = studies[0].folder, studies[0].spec.name
    for of in (studies[0].results, folder / SLOTS, folder / "checkpoints", *(folder / "checkpoints").glob("*")):
        remove_leftovers(of)
    results = _results(studies, options, console)
    cards = StoredCards(studies, results)
    agenda = _agenda(studies, cards, results)
    if agenda.complete():
        _say(console, f"Nothing left to run: all {agenda.total()} runs of {name} are finished.")
        # What a server lacks since it was gone is added, and a file that is lost or damaged is made anew.
        if studies[0].spec.storage is not None or not is_whole_database(folder / "optuna.db"):
            _catch_up(agenda, server, options, console)
        with contextlib.suppress(OSError):  # such as a write-protected folder, which may stay as it is
            Bundles(studies[0].results, results.records).finish()
        return _conclude(agenda, dataclasses.replace(results, stored_cards=cards.fill(agenda.studies)), console)
    check_disk(agenda, folder)
    bundles = Bundles(studies[0].results, results.records)
    complete, mirror = _run(agenda, cards, bundles, options, console, server, checked=checked)
    code = _conclude(agenda, None, console, mirror)
    if complete:
        for left in (folder / "checkpoints").glob("array-*"):  # of arrays that were killed, whose runs came otherwise
            left.unlink()
    else:
        _say(console, f"Stopped after {agenda.done()} of {agenda.total()} runs; to continue: {options.command}")
        return code if options.fail_fast and code else INTERRUPTED
    return code


def _databases(
    studies: Sequence[ResolvedStudy], server: "Server | None", console: Console
) -> dict[str, "OptunaDatabase"]:
    """Return Optuna's database as each block sees it, by the hash of the block's conditions."""
    from trans4init.ablations.study.optuna_database import OptunaDatabase

    def say(line: str) -> None:
        _say(console, line)

    return {study.spec_hash: OptunaDatabase(study.spec, study.folder, server, study.block, say) for study in studies}


def _catch_up(agenda: GridAgenda, server: "Server | None", options: Options, console: Console) -> None:
    from trans4init.ablations.study.optuna_database import keep_trials

    databases = _databases(agenda.studies, server, console)
    for block in agenda.blocks:
        keep_trials(databases[block.study.spec_hash], block, block.study.spec.cells())
    _say_behind(databases.values(), options, console)


def _results(studies: Sequence[ResolvedStudy], options: Options, console: Console) -> Results:
    """Return what is in the study's folder, and say what was damaged, and what a changed file means for it.

    Raises InputError for results that this version can't read, or that aren't the study's.
    """
    if options.retry_failed:
        set_failures_aside(studies[0].results)
    try:
        results = load_results(studies[0].results)
    except UnreadableSchemaError as error:
        raise InputError(f"{error}; name another folder with --out.") from None
    for path in results.corrupt:
        _say(console, f"{path.name} was damaged and is set aside; what it held is made again.")
    refuse_other_conditions(studies, results.records)
    changes = what_changed(studies, results.stored_cards, results.records), counts_changed(studies, results.records)
    for line in filter(None, changes):
        _say(console, line)
    return results


def _agenda(studies: Sequence[ResolvedStudy], cards: StoredCards, results: Results) -> GridAgenda:
    """Return the agenda of all blocks, going by what is finished."""
    blocks = []
    for study in studies:
        of_grid = dataclasses.replace(study, together=cards.of(study).together)
        before = card_before(study, studies, results)
        records = [record for record in results.records if len(studies) == 1 or record.spec_hash == study.spec_hash]
        blocks.append(Agenda(of_grid, records, _fits_at_hand(study, records), before.stated if before else None))
    return GridAgenda(blocks)


def _run(
    agenda: GridAgenda,
    cards: StoredCards,
    bundles: Bundles,
    options: Options,
    console: Console,
    server: "Server | None",
    *,
    checked: bool,
) -> tuple[bool, "BackgroundMirror"]:
    """Run the agenda; return whether it is complete, and the mirror, which says how it fared.

    server: where Optuna's database is; None for a file. checked: whether the study has been built once already.
    """
    from trans4init.ablations.device import parallel_runs, places
    from trans4init.ablations.study.coordinator import MIRROR_PATIENCE, Coordinator
    from trans4init.ablations.study.display import make_display
    from trans4init.ablations.study.executors.arrays import ArrayExecutor
    from trans4init.ablations.study.executors.choose import make_executor
    from trans4init.ablations.study.executors.local import start_server
    from trans4init.ablations.study.together import Alike, automatic_size, begun_arrays
    from trans4init.ablations.study.worker import PRELOAD, StudyWorker
    from trans4init.reports.mirror.runs import BackgroundMirror

    studies = agenda.studies
    if options.executor == "process":
        start_server("__main__", PRELOAD)
    if not checked:
        _check(studies, options.file)
    worker = StudyWorker(studies, elsewhere=options.executor == "ray", gpus=options.gpus_per_run)
    at_once = min(parallel_runs(study.spec.training.threads) for study in studies)
    executor = make_executor(options.executor, worker, at_once, PRELOAD, address=options.address, places=places())
    cards.fill(studies)
    folder, name = studies[0].folder, studies[0].spec.name
    databases = _databases(studies, server, console)
    mirror = BackgroundMirror(folder, name)
    with make_display(agenda, console) as display:
        size = options.array_size or automatic_size()
        if size > 1:
            begun = begun_arrays(folder / "checkpoints", display.say)
            executor = ArrayExecutor(executor, Alike(studies, display.say).key, size, display.say, begun)
        complete = Coordinator(
            *(agenda, executor, databases, mirror, display, cards.grow), fail_fast=options.fail_fast, bundles=bundles
        ).run()
    mirror.drain(MIRROR_PATIENCE)
    _say_behind(databases.values(), options, console)
    return complete, mirror


def _say_behind(databases: Iterable["OptunaDatabase"], options: Options, console: Console) -> None:
    """Say that a server had gone, if it lacks trials; the results have them."""
    behind = next((database.behind for database in databases if database.behind), "")
    if behind:
        _say(console, f"Optuna's database lacks trials ({behind}); to add them later: {options.command}")


def _refuse_name(folder: Path) -> None:
    """Raise InputError for a folder below the current one that Optuna can't be given, since its name is not UTF-8."""
    try:
        os.path.relpath(folder).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name of {shown(folder)} is not UTF-8; name another folder with --out.") from None


def _check(studies: Sequence[ResolvedStudy], file: str) -> None:
    from trans4init.ablations.study.work import check_study

    for study in studies:
        check_study(study, f"{file}: {study.block}" if study.block else file)


def _conclude(
    agenda: GridAgenda, results: Results | None, console: Console, mirror: "BackgroundMirror | None" = None
) -> int:
    """Write and mirror the report unless it is up to date, print the verdict and the paths; return the exit code.

    results: what is in the folder; None if there is more by now, which is read. mirror: of the runs, if there were any.
    """
    folder = agenda.blocks[0].study.folder
    mirror_error, mended = (mirror.error, mirror.mended) if mirror else ("", [])
    if not agenda.finished:
        return 0
    if results is not None and is_current(folder, results):
        lines = stated_verdict(folder)
        if lines is None:
            lines = study_text(summaries(results), results.cards).lines()
    else:
        from trans4init.reports.study_report.report import write_report

        try:
            report = write_report(folder, results)
        except OSError as error:
            raise FaultError(
                f"the report can't be written to {shown(folder)}: {error.strerror}; the results are whole."
            ) from error
        verdict = report.text
        lines = verdict.lines()
        if not mirror_error:
            mirror_error, more = _mirror(folder, report.results, verdict)
            mended = [*mended, *more]
    _say(console, "\n".join(["", *lines, ""]))
    _say(console, f"report   {shown(folder / HTML)}")
    _say(console, f"results  {shown(agenda.blocks[0].study.results)}")
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


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True)
