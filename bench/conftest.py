"""Load the plugin's hooks, which measure, for `pytest bench`."""

from trans4init.bench.plugin import (  # noqa: F401  pytest finds them here
    measure_once,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
