"""A report's files: what they are called, whether they are up to date, what they say. Imports nothing heavy."""

from pathlib import Path

__all__ = ["DRAWING", "HTML", "MARKDOWN", "VERDICT_MARK", "is_current", "verdict_in"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"
VERDICT_MARK = "**Verdict.** "
"""What the verdict's line begins with in the Markdown page."""


def is_current(folder: Path) -> bool:
    """Whether the report is there and newer than every result."""
    pages = [folder / name for name in (HTML, MARKDOWN)]
    if not all(page.exists() for page in pages):
        return False
    written = min(page.stat().st_mtime_ns for page in pages)
    results = folder / "results"
    return all(path.stat().st_mtime_ns < written for path in (results, *results.iterdir()))


def verdict_in(folder: Path) -> str:
    """The verdict's sentence out of a report that is there; empty where it has none."""
    lines = (folder / MARKDOWN).read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix(VERDICT_MARK) for line in lines if line.startswith(VERDICT_MARK)), "")
