"""What `pytest bench` needs: the hooks of `plugin.py`."""

from trans4init.bench.plugin import (  # noqa: F401  pytest finds them here
    measure,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
