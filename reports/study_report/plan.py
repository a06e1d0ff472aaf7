"""Say where a study departs from what it stated before its first evaluation run."""

from trans4init.reports.records.schema import StudyCard

__all__ = ["changes"]


def changes(card: StudyCard, finished: int | None = None) -> tuple[str, ...]:
    """Return a sentence for each departure; none for a study whose card says nothing of what was stated.

    finished: how many seeds every cell has been run with; None if that is not known.
    """
    stated, now = card.stated, card.plan()
    early: tuple[str, ...] = ()
    if finished is not None and finished < card.seeds and finished not in card.looks:
        early = (
            f"Judged before its end: of {card.seeds} seeds only {finished} have been run in every cell. "
            "Words that come by looking until they do are wrong more often than 5 %; plan [evaluation] looks.",
        )
    if stated is None or stated == now:
        return early
    reference = card.reference.function
    sentences = []
    dropped = [cell.label(reference) for cell in stated.cells if cell not in now.cells]
    if dropped:
        sentences.append(
            f"Arms dropped after runs were made: {', '.join(dropped)}. The words are still corrected for them."
        )
    chosen = card.error_budget.sharpened if card.error_budget else ()
    added = [cell.label(reference) for cell in now.cells if cell not in stated.cells and cell.net not in chosen]
    if added:
        sentences.append(f"Arms added after runs were made: {', '.join(added)}.")
    if now.seeds > stated.seeds and now.seeds not in stated.looks:
        sentences.append(
            f"Extended after a look: {stated.seeds} seeds were stated before the first run, {now.seeds} are judged. "
            "Words that come by adding seeds until they do are wrong more often than 5 %; plan [evaluation] looks."
        )
    elif now.seeds < stated.seeds and now.seeds not in stated.looks:
        sentences.append(f"Judged before its end: {stated.seeds} seeds were stated, and {now.seeds} are judged.")
    if stated.margins != now.margins or stated.looks != now.looks:
        before, after = _terms(stated.margins, stated.looks), _terms(now.margins, now.looks)
        sentences.append(f"What gets a word was changed after runs were made: {before} before, {after} now.")
    if stated.trials not in (None, now.trials):
        sentences.append(f"Tuned anew after runs were made: with {now.trials} trials, and {stated.trials} were stated.")
    return (*early, *sentences)


def _terms(margins: tuple[tuple[str, float], ...], looks: tuple[int, ...]) -> str:
    terms = ", ".join(f"{metric} within ±{margin:g}" for metric, margin in margins)
    return f"{terms} at {' and '.join(map(str, looks))} seeds" if looks else terms
