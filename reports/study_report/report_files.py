"""A report's files: what they are called, whether they are up to date, what they say. Imports nothing heavy."""

from pathlib import Path

__all__ = ["DRAWING", "HTML", "MARKDOWN", "MARKS", "is_current", "verdict_in"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"
MARKS = ("Verdict", "Controls", "Limits")
"""What the verdict's paragraphs begin with in the Markdown page, each in bold and with a full stop."""


def is_current(folder: Path) -> bool:
    """Whether the report is there and newer than every result."""
    pages = [folder / name for name in (HTML, MARKDOWN)]
    if not all(page.exists() for page in pages):
        return False
    written = min(page.stat().st_mtime_ns for page in pages)
    results = folder / "results"
    return all(path.stat().st_mtime_ns < written for path in (results, *results.iterdir()))


def verdict_in(folder: Path) -> str:
    """The verdict's paragraphs out of a report that is there, a line each; empty where it has none."""
    marked = {f"**{mark}.** ": "" if mark == MARKS[0] else f"{mark}: " for mark in MARKS}
    lines = (folder / MARKDOWN).read_text(encoding="utf-8").splitlines()
    return "\n".join(
        word + line.removeprefix(mark) for line in lines for mark, word in marked.items() if line.startswith(mark)
    )
