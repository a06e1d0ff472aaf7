"""Commands of Python as benchmarks measure them: run to their end, and what they lack named."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trans4init.bench.suite import MissingError

__all__ = ["run_python"]

_ABSENT = re.compile(r"^ModuleNotFoundError: No module named '([^'.]+)", re.MULTILINE)


def run_python(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS` in a folder; raises MissingError where a package that it imports is not installed."""
    if not sys.executable:
        raise MissingError("needs to know where Python is")
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    absent = _ABSENT.search(done.stderr) if done.returncode else None
    if absent and importlib.util.find_spec(absent[1]) is None:
        raise MissingError(f"needs {absent[1]}")
    return done
