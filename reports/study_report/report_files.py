"""Name the files of a report, and tell whether they are up to date."""

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from trans4init.reports.records.schema import StudyCard
from trans4init.reports.records.store import Results

__all__ = ["BUDGET_DRAWING", "DRAWING", "HTML", "MARKDOWN", "digest", "is_current", "stated_verdict"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"
BUDGET_DRAWING = "error_budget.svg"
_DRAWN = re.compile(r"\]\(([a-z_0-9-]+\.svg)\)")
"""A drawing in the Markdown page."""
_LATER = ("error_budget", "target", "block", "together", "dropped")
"""Fields that cards of results from before don't have."""
_VERDICT = re.compile(r'<meta name="verdict" content="([^"]*)">')
_HEAD = 2**17
"""How many characters of the HTML page are searched for what its head says; the page has megabytes."""


def digest(results: Results) -> str:
    """Return the SHA-256 of what a report is made from, which it names: the card, the runs, what could not be read."""
    cards = [_content(card) for card in results.cards or (None,)]
    content = [
        cards[0] if len(cards) == 1 else cards,
        sorted((record.run_id, record.digest()) for record in results.records),
        [path.name for path in results.corrupt],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content(of: StudyCard | None) -> dict[str, Any] | None:
    """Return what a digest is made of from a card: without what there is none of, as when there were no such fields."""
    if of is None:
        return None
    card = of.as_fields()
    for arm in card["arms"]:
        if arm["role"] is None:  # written before arms had roles: the report has the digest that it had then
            del arm["role"], arm["cost_rank"]
    return {name: value for name, value in card.items() if name not in _LATER or value not in (None, "", ())}


def is_current(folder: Path, results: Results) -> bool:
    """Return whether the folder has a report, all of it, that was made from these results."""
    page, markdown = folder / HTML, folder / MARKDOWN
    if not (page.is_file() and markdown.is_file()):
        return False
    head = _head(folder)
    text = markdown.read_text(encoding="utf-8", errors="replace")
    whole = all((folder / name).is_file() for name in _DRAWN.findall(text))
    return whole and all(digest(results) in written for written in (head, text))


def stated_verdict(folder: Path) -> list[str] | None:
    """Return the lines of the verdict that the folder's report states; None for a report from before it stated them.

    They are those of its results if it is current: making them again takes as long as the report.
    """
    found = _VERDICT.search(_head(folder))
    return None if found is None else [str(line) for line in json.loads(html.unescape(found[1]))]


def _head(folder: Path) -> str:
    with (folder / HTML).open(encoding="utf-8", errors="replace") as page:
        return page.read(_HEAD)
