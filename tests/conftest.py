"""What is slow is marked by its folder, so that plain `pytest` runs the quick tests only."""

from pathlib import Path

import pytest

SLOW = [Path(__file__).parent / name for name in ("slow", "site")]


def pytest_collection_modifyitems(items):
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in SLOW):
            item.add_marker(pytest.mark.slow)
