"""What trains to the end, runs the command line or solves every desk task is slow; `make check` omits it."""

import pytest

SLOW = (
    "tests/benchmarks/",
    "tests/contracts/test_desk.py",
    "tests/envs/desk/test_chains.py",
    "tests/envs/desk/test_experts.py",
    "tests/scripts/",
    "tests/llm_align/online/",
    "tests/embodied_rl/online/",
    "tests/embodied_rl/sim2real/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
