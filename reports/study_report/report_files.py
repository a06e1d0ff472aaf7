"""Name the files of a report, and tell whether they are up to date."""

from pathlib import Path

__all__ = ["DRAWING", "HTML", "MARKDOWN", "is_current"]

HTML, MARKDOWN, DRAWING = "report.html", "report.md", "report.svg"


def is_current(folder: Path) -> bool:
    """Return whether the folder has a report that is newer than every result."""
    pages = [folder / name for name in (HTML, MARKDOWN)]
    if not all(page.exists() for page in pages):
        return False
    written = min(page.stat().st_mtime_ns for page in pages)
    results = folder / "results"
    return all(path.stat().st_mtime_ns < written for path in (results, *results.iterdir()))
