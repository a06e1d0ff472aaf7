"""Run Python commands to be measured, and name the packages that they lack."""

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
    """Run `python WORDS` in a folder; raise MissingError if a package that it imports isn't installed."""
    if not sys.executable:
        raise MissingError("needs the path of Python, which sys.executable lacks")
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
