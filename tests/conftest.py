"""The order of the files, a place for what each test starts, and a small network and gateway for whoever needs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gateways import Gateway, start_gateway
from local import Local, start_local
from processes import Processes

if TYPE_CHECKING:
    from openai import OpenAI


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


@pytest.fixture(scope="module")
def gateway(network: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Processes(tmp_path_factory.mktemp("gateway")) as processes:
        yield start_gateway(processes, network.file)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    from openai import OpenAI  # a second to import, which most tests do without

    with OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        yield client
