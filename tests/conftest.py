"""Fixtures for all tests."""

import json
from pathlib import Path

import pytest

from cluster.model.fetch import fetch_smollm2

GREEDY_CASES = Path(__file__).parent / "data" / "smollm2-greedy.json"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real model; downloaded on first use, 93 MB."""
    return fetch_smollm2().path


@pytest.fixture(scope="session")
def greedy_cases() -> list[dict]:
    """Prompts with the greedy tokens of an independent float32 implementation (PyTorch)."""
    return json.loads(GREEDY_CASES.read_text())["cases"]
