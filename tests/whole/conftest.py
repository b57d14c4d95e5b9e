"""One small network, started by hand, for all tests that need no other; and a place for what each test starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local import Local, start_local
from processes import Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Processes(tmp_path_factory.mktemp("network")) as started:
        yield start_local(started)
