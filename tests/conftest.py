"""The order of the files, a place for what each test starts, and one small network for tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local import Local, start_local
from processes import Processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that of several processes none works long when the others have nothing left."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Processes(tmp_path_factory.mktemp("network")) as started:
        yield start_local(started)
