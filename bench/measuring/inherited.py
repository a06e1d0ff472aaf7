"""The environment of a process that measures: what a test runner around it sets is none of its business."""

import os

__all__ = ["without_test_runner"]


def without_test_runner() -> dict[str, str]:
    """Return this process's environment without what pytest-xdist tells its workers, under which nothing is timed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
