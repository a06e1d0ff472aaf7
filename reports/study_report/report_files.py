"""Name the files of a report, and tell whether they are up to date."""

import dataclasses
import hashlib
import json
from pathlib import Path

from trans4init.reports.records.store import Results

__all__ = ["DRAWING", "HTML", "MARKDOWN", "digest", "is_current"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"
_HEAD = 4096
"""How many characters of the HTML page are searched for its digest, which is in the head; the page has megabytes."""


def digest(results: Results) -> str:
    """Return the SHA-256 of what a report is made from, which it names: the card, the runs, what could not be read."""
    content = [
        dataclasses.asdict(results.card) if results.card else None,
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
    whole = DRAWING not in text or (folder / DRAWING).is_file()
    return whole and all(digest(results) in written for written in (head, text))
