"""Neighbours by multicast DNS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.net import mdns

NEIGHBOURS = Path(__file__).with_name("neighbours.py")
ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_neighbours_of_the_same_network_find_each_other() -> None:
    """In a network namespace of their own: multicast is heard on all interfaces, whichever one asks."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, str(NEIGHBOURS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "found": ["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWHere"],
        "refused": "cannot look for neighbours on 192.0.2.1: No such device",
    }


@given(st.lists(st.text("abc/4p:", min_size=1, max_size=300), max_size=20))
def test_what_is_announced_is_read(addresses: list[str]) -> None:
    record = mdns.announcement("n", addresses)
    assert len(record) <= mdns.MAX_TXT_BYTES
    read = mdns.announced(record, "n")
    fitting = [address for address in addresses[: mdns.MAX_ADDRESSES] if len(address) <= 255 - len("dnsaddr=")]
    assert read == fitting[: len(read)]
    assert len(read) == len(fitting) or len(record) > mdns.MAX_TXT_BYTES - 256
    assert mdns.announced(record, "another") == []


@given(st.binary(max_size=2000))
def test_anything_from_the_local_network_is_read_or_ignored(record: bytes) -> None:
    assert len(mdns.announced(record, "n")) <= mdns.MAX_ADDRESSES
