"""The suites that there are, by name and file, without importing them."""

from pathlib import Path

__all__ = ["HOOKS", "suite_files"]

HOOKS = Path(__file__).parent
"""The folder whose conftest.py measures. pytest has to be told to look there (--confcutdir): where it is started away
from the sources, it takes the folder of the first file that it is given for the highest one."""
_FOLDER = HOOKS / "suites"
_PREFIX = "bench_"


def suite_files(folder: Path = _FOLDER) -> dict[str, Path]:
    """The suites' files in a folder by name, the machine's own rates first."""
    files = sorted(folder.glob(f"{_PREFIX}*.py"), key=lambda path: (path.stem != f"{_PREFIX}machine", path.stem))
    return {path.stem.removeprefix(_PREFIX).replace("_", "-"): path for path in files}
