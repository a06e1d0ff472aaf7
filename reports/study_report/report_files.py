"""Name the files of a report, and tell whether they are up to date."""

import dataclasses
import hashlib
import json
from pathlib import Path

from trans4init.reports.records.store import Results

__all__ = ["BUDGET_DRAWING", "DRAWING", "HTML", "MARKDOWN", "digest", "is_current"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"
BUDGET_DRAWING = "error_budget.svg"
_LATER = ("error_budget", "target")
"""Fields that cards of results from before don't have."""
_HEAD = 4096
"""How many characters of the HTML page are searched for its digest, which is in the head; the page has megabytes."""


def digest(results: Results) -> str:
    """Return the SHA-256 of what a report is made from, which it names: the card, the runs, what could not be read."""
    card = dataclasses.asdict(results.card) if results.card else None
    for arm in card["arms"] if card else ():
        if arm["role"] is None:  # written before arms had roles: the report has the digest that it had then
            del arm["role"], arm["cost_rank"]
    if card and not card["tuning"]["again"]:
        del card["tuning"]["again"]
    if card:  # without what there is none of, as in reports that were written before there were such things
        card = {name: value for name, value in card.items() if value is not None or name not in _LATER}
    content = [
        card,
        sorted((record.run_id, record.digest()) for record in results.records),
        [path.name for path in results.corrupt],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_current(folder: Path, results: Results) -> bool:
    """Return whether the folder has a report, all of it, that was made from these results."""
    html, markdown = folder / HTML, folder / MARKDOWN
    if not (html.is_file() and markdown.is_file()):
        return False
    with html.open(encoding="utf-8", errors="replace") as page:
        head = page.read(_HEAD)
    text = markdown.read_text(encoding="utf-8", errors="replace")
    whole = all(name not in text or (folder / name).is_file() for name in (DRAWING, BUDGET_DRAWING))
    return whole and all(digest(results) in written for written in (head, text))
