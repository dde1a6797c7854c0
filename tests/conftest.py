"""Fixtures for all tests."""

import json
from pathlib import Path

import pytest
from hypothesis import settings

from chip.jit import backend
from cluster.model.fetch import fetch_smollm2

settings.register_profile("soak", max_examples=5000)  # `make soak`
GREEDY_CASES = Path(__file__).parent / "data" / "smollm2-greedy.json"


def pytest_sessionstart() -> None:
    """Compile what is to be compiled before the clock of any test runs; once in a checkout."""
    backend()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file's tests stay with one worker, and so do all clusters of Ray, which go first.

    What takes minutes is for the profile of `make soak` alone.
    """
    if config.getoption("--hypothesis-profile") != "soak":
        long = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        together = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real model; downloaded on first use, 93 MB."""
    return fetch_smollm2().path


@pytest.fixture(scope="session")
def greedy_cases() -> list[dict]:
    """Prompts with the greedy tokens of an independent float32 implementation (PyTorch)."""
    return json.loads(GREEDY_CASES.read_text())["cases"]
