"""The suites that there are, by name and file, without importing them."""

from pathlib import Path

__all__ = ["suite_files"]

_FOLDER = Path(__file__).parent / "suites"
_PREFIX = "bench_"


def suite_files(folder: Path = _FOLDER) -> dict[str, Path]:
    """The suites' files in a folder by name, the machine's own rates first."""
    files = sorted(folder.glob(f"{_PREFIX}*.py"), key=lambda path: (path.stem != f"{_PREFIX}machine", path.stem))
    return {path.stem.removeprefix(_PREFIX).replace("_", "-"): path for path in files}
