"""Folders that train through the command line or to convergence are slow: `make check` leaves them out."""

import pytest

SLOW_FOLDERS = (
    "tests/scripts/",
    "tests/llm_align/online/",
    "tests/embodied_rl/online/",
    "tests/embodied_rl/sim2real/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW_FOLDERS):
            item.add_marker(pytest.mark.slow)
