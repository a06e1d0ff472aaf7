"""Sum up every block of a study: a study of one function, task and model has one block, a grid several."""

from collections.abc import Sequence

from trans4init.reports.records.schema import RunRecord, StudyCard
from trans4init.reports.records.store import Results
from trans4init.reports.study_report.summary import Summary, summarise
from trans4init.reports.study_report.verdict_text import VerdictText, verdict_text

__all__ = ["idle_runs", "study_text", "summaries"]


def summaries(results: Results) -> tuple[Summary, ...]:
    """Return the summary of each block, in the order of the cards; of single fits, the one of all.

    Raises ValueError where there are no records. A block of a grid has its own runs alone, and is left out while it has
    none.
    """
    cards = results.cards
    if not _is_grid(cards):
        return (summarise(results.records, results.card),)
    by_block = [(card, [run for run in results.records if run.spec_hash == card.spec_hash]) for card in cards]
    return tuple(summarise(records, card) for card, records in by_block if records)


def idle_runs(results: Results) -> tuple[RunRecord, ...]:
    """Return the runs of blocks that the grid had once and has no more: no number is made of them."""
    cards = results.cards
    if not _is_grid(cards):
        return ()
    blocks = {card.spec_hash for card in cards}
    return tuple(record for record in results.records if record.spec_hash not in blocks)


def study_text(blocks: Sequence[Summary], cards: Sequence[StudyCard]) -> VerdictText:
    """Return the verdict of a study in sentences; that of a grid has a paragraph for each block.

    blocks: what `summaries` returns. cards: those of all blocks, even without runs.
    """
    if not cards or cards[0].together is None:
        return verdict_text(blocks[0]) if blocks else VerdictText("")
    labelled = tuple((s.card.block or s.card.name, verdict_text(s)) for s in blocks if s.card is not None)
    return VerdictText("", blocks=labelled, correction=_correction_sentence(cards))


def _is_grid(cards: Sequence[StudyCard]) -> bool:
    """Return whether a study has several blocks, or had before its file changed."""
    return len(cards) > 1 or any(card.dropped for card in cards)


def _correction_sentence(cards: Sequence[StudyCard]) -> str:
    """Say over what the words of a grid are corrected."""
    dropped = cards[0].dropped
    gone = f", {', '.join(block.label or 'one without a label' for block in dropped)} included, dropped since"
    return (
        f"Words are corrected over all {cards[0].together} comparisons of the grid's {len(cards) + len(dropped)} blocks"
        f"{gone if dropped else ''}: cells × metrics with a margin, in every block."
    )
