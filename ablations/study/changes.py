"""Say what a changed study file means for the runs that are there: which cells stay valid, and which must run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trans4init.ablations.errors import InputError, shown
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import FREE
from trans4init.reports.records.schema import CellKey, RunRecord, StudyCard

__all__ = ["counts_changed", "differences", "refuse_other_conditions", "what_changed"]

_NAMED = 6
"""How many cells `what_changed` names at most: more make a line that nobody reads."""


def refuse_other_conditions(studies: Sequence[ResolvedStudy], records: Sequence[RunRecord]) -> None:
    """Raise InputError if the folder holds runs that can't be compared with the study's.

    Runs of a block that a grid has no more are let be, as long as some of its blocks have runs there; a grid without
    such a block is another study.
    """
    folder, name = studies[0].folder, studies[0].spec.name
    others = {record.study for record in records} - {name}
    if others:
        raise InputError(
            f"{shown(folder)} holds runs of another study, {min(others)!r}; name another folder with --out."
        )
    blocks = {study.spec_hash: study for study in studies}
    some_stay = any(record.spec_hash in blocks for record in records)
    for record in records:
        if record.phase == "throughput" or (some_stay and record.spec_hash not in blocks):
            continue  # a session is measured again when the cells change
        study = blocks.get(record.spec_hash) or _nearest(studies, record)
        request = study.request_of(record)
        differs = request is not None and request.run_id != record.run_id
        if differs or (len(studies) > 1 and not some_stay):
            change = next(differences(record.spec, _content(study)), "other conditions")
            raise InputError(
                f"{shown(folder)} holds runs of another version of this study ({change}); "
                f"name another folder with --out, or give the study another name."
            )


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Say what differs between two JSON values, without counts of runs and wording."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            below = f"{path}.{key}" if path else key
            if below not in FREE:
                yield from differences(before.get(key, "not set"), now.get(key, "not set"), below)
    elif before != now:
        yield "the data changed" if path == "fingerprint" else f"{path}: {before} there, {now} here"


def what_changed(
    studies: Sequence[ResolvedStudy], before: Sequence[StudyCard], records: Sequence[RunRecord]
) -> str | None:
    """Say in one line which cells of a grid stay valid, which are new, and which finished runs count no more.

    before: the cards of the last command. None where no run is finished, where the cells are the same, and for a study
    that is no grid and was none.
    """
    if not records or not before or len(studies) == len(before) == 1:
        return None
    had = {(card.spec_hash, cell): card for card in before for cell in card.cells if not _is_chosen(card, cell)}
    now = {(study.spec_hash, cell): study for study in studies for cell in study.spec.cells()}
    if now.keys() == had.keys():
        return None
    ran = {(record.spec_hash, record.cell) for record in records if record.phase not in ("fit", "throughput")}
    valid = [key for key in now if key in ran]
    new = [key for key in now if key not in ran]
    gone = [key for key in had if key not in now]
    chosen = {(card.spec_hash, cell) for card in before for cell in card.cells if _is_chosen(card, cell)}
    blocks = {study.spec_hash for study in studies}
    counted = now.keys() | {(spec_hash, cell) for spec_hash, cell in chosen if spec_hash in blocks}
    idle = sum(
        record.phase not in ("fit", "throughput") and (record.spec_hash, record.cell) not in counted
        for record in records
    )
    parts = [f"{_counted(len(valid), 'cell')} stay{'s' * (len(valid) == 1)} valid"]
    if new:
        names = [_name(now[key].block, now[key].spec.function, key[1]) for key in new]
        parts.append(f"{_counted(len(new), 'cell')} must run ({_listed(names)})")
    if idle:
        names = [_name(had[key].block, had[key].reference.function, key[1]) for key in gone if key in ran]
        of = f" (of {_listed(names)})" if names else ""
        parts.append(f"{_counted(idle, 'finished run')} count{'s' * (idle == 1)} no more{of}")
    return f"The study's file changed: {'; '.join(parts)}."


def counts_changed(studies: Sequence[ResolvedStudy], records: Sequence[RunRecord]) -> str | None:
    """Say in one line which counts and limits differ from those that the newest runs were made with; None if none does.

    A file of before may not set them: another version of this package can have other defaults.
    """
    changed: dict[str, str] = {}
    for study in studies:
        made = [record for record in records if record.spec_hash == study.spec_hash and record.spec]
        if not made:
            continue
        before, now = max(made, key=lambda record: record.created_at).spec, _content(study)
        for key in FREE:
            section, _, name = key.rpartition(".")
            there, here = (values.get(section, {}) if section else {} for values in (before, now))
            if isinstance(there, Mapping) and name in there and name in here and there[name] != here[name]:
                changed[key] = f"{key} is {here[name]}, was {there[name]}"
    if not changed:
        return None
    return f"Other counts than at the last runs: {'; '.join(changed.values())}. Runs that are still asked for stay."


def _is_chosen(card: StudyCard, cell: CellKey) -> bool:
    """Return whether bisection gave an error budget this cell: no file names it."""
    return card.error_budget is not None and cell.net in card.error_budget.sharpened


def _nearest(studies: Sequence[ResolvedStudy], record: RunRecord) -> ResolvedStudy:
    """Return the block that differs least from the study that made a record."""
    return min(studies, key=lambda study: sum(1 for _ in differences(record.spec, _content(study))))


def _content(study: ResolvedStudy) -> dict[str, Any]:
    return study.spec.public() | {"fingerprint": study.fingerprint}


def _name(block: str, function: str, cell: CellKey) -> str:
    return " ".join(filter(None, [f"{block}:" if block else "", cell.label(function)]))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
