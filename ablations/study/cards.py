"""Keep the cards of a study beside its runs: what reports go by, and what was stated before the first evaluation."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.reports.files import write_whole
from trans4init.reports.records.schema import DroppedBlock, StudyCard
from trans4init.reports.records.store import Results, write_cards

__all__ = ["StoredCards", "card_before"]

_SPEC = "spec.json"


class StoredCards:
    """Holds the card of each block of a study, and writes them, with `spec.json` for a person, when they change."""

    def __init__(self, studies: Sequence[ResolvedStudy], results: Results) -> None:
        """results: what is in the folder, with the cards from before."""
        self._results = results
        self._studies = {study.spec_hash: study for study in studies}
        cards = [self._card(study) for study in studies]
        self._dropped = _dropped(cards, results)
        self._together: int | None = None
        if len(cards) > 1 or self._dropped:
            self._together = sum(card.own_words() for card in cards) + sum(block.words for block in self._dropped)
        self._cards = {card.spec_hash: self._corrected(card) for card in cards}

    @property
    def all(self) -> tuple[StudyCard, ...]:
        """The cards, in the order of the blocks."""
        return tuple(self._cards.values())

    def of(self, study: ResolvedStudy) -> StudyCard:
        """Return the card of a block."""
        return self._cards[study.spec_hash]

    def fill(self, studies: Sequence[ResolvedStudy]) -> tuple[StudyCard, ...]:
        """Write the cards of the blocks, as their results have grown them, unless they are there; return them.

        Controls that a block leaves out are looked up where they aren't known. Raises FaultError if the disk refuses.
        """
        for study in studies:
            card = self._corrected(self._card(study))
            if card.controls_left_out is None:
                card = dataclasses.replace(card, controls_left_out=_controls_left_out(card))
            self._studies[study.spec_hash], self._cards[study.spec_hash] = study, card
        if self.all != self._results.stored_cards or not self._spec_is_there():
            self._write()
        return self.all

    def grow(self, study: ResolvedStudy) -> None:
        """Write the card of a block whose error budget was given another net."""
        known = self.of(study)
        self._studies[study.spec_hash] = study
        card = dataclasses.replace(study.card(), stated=known.stated, controls_left_out=known.controls_left_out)
        self._cards[study.spec_hash] = self._corrected(card)
        self._write()

    def _card(self, study: ResolvedStudy) -> StudyCard:
        """Return a block's card. What it stated when its first evaluation run was made stays, whatever it says now."""
        card, before = study.card(), card_before(study, tuple(self._studies.values()), self._results)
        alone = len(self._studies) == 1 and len(self._results.stored_cards) < 2
        evaluated = any(
            record.phase == "evaluate" and (alone or record.spec_hash == study.spec_hash)
            for record in self._results.records
        )
        stated = (before.stated or before.plan()) if before is not None and evaluated else card.plan()
        known = before.controls_left_out if before is not None and before.cells == card.cells else None
        return dataclasses.replace(card, stated=stated, controls_left_out=known)

    def _corrected(self, card: StudyCard) -> StudyCard:
        return dataclasses.replace(card, together=self._together, dropped=self._dropped)

    def _spec_is_there(self) -> bool:
        """Return whether `spec.json` is what was written: nothing is read from it but by people."""
        try:
            return (self._folder / _SPEC).read_text(encoding="utf-8") == self._spec()
        except (OSError, UnicodeDecodeError):
            return False

    @property
    def _folder(self) -> Path:
        return next(iter(self._studies.values())).folder

    def _spec(self) -> str:
        """Return the content of `spec.json`."""
        contents = [
            study.spec.public()
            | {
                "fingerprint": study.fingerprint,
                "spec_hash": study.spec_hash,
                "command": self.of(study).command,
            }
            for study in self._studies.values()
        ]
        labelled = [{"block": study.block} | of for study, of in zip(self._studies.values(), contents, strict=True)]
        content = contents[0] if len(contents) == 1 else {"blocks": labelled}
        return json.dumps(content, indent=2) + "\n"

    def _write(self) -> None:
        try:
            write_whole(self._folder / _SPEC, self._spec())
            write_cards(self.all, next(iter(self._studies.values())).results)
        except OSError as error:
            raise FaultError(f"{shown(self._folder)} can't be written: {error.strerror}.") from error


def card_before(study: ResolvedStudy, studies: Sequence[ResolvedStudy], results: Results) -> StudyCard | None:
    """Return the card that a block had when the study was run before; None if it is new.

    The card of a study that never was a grid is that of its one block, even under other conditions.
    """
    stored = results.stored_cards
    if len(stored) == len(studies) == 1 and not stored[0].dropped:
        return stored[0]
    return next((card for card in stored if card.spec_hash == study.spec_hash), None)


def _dropped(cards: Sequence[StudyCard], results: Results) -> tuple[DroppedBlock, ...]:
    """Return the blocks that were evaluated, and that the grid doesn't have any more."""
    now, stored = {card.spec_hash for card in cards}, results.stored_cards
    if len(cards) == len(stored) == 1 and not stored[0].dropped:
        return ()
    evaluated = {record.spec_hash for record in results.records if record.phase == "evaluate"}
    before = [block for card in stored[:1] for block in card.dropped]
    gone = [DroppedBlock(card.spec_hash, card.block, card.own_words()) for card in stored]
    found = {block.spec_hash: block for block in (*before, *gone)}
    return tuple(block for block in found.values() if block.spec_hash in evaluated - now)


def _controls_left_out(card: StudyCard) -> tuple[str, ...]:
    """Return the controls that apply to the study's function and that are none of its arms."""
    from trans4init.ablations.functions import get_function
    from trans4init.ablations.slots.arms import arms_of, get_arm

    names = arms_of(get_function(card.reference.function))
    run = {cell.arm for cell in card.cells if cell.function == card.reference.function}
    return tuple(name for name in names if get_arm(name).role == "control" and name not in run)
