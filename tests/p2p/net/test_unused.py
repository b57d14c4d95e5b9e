"""Starting a node does not wait for libraries that libp2p and pytoniq want and we do not."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from p2p.net.unused import UNUSED, kept_out

IMPORTS = """
import sys, psutil
import p2p.net.libp2p_host
from p2p.network_file import NetworkFile
from p2p.wiring import open_ledger
open_ledger(NetworkFile(bootstraps=(), chain={"bombyx": {"name": "devnet", "global_id": -239}}), None, None)
import pytoniq
from p2p.net.unused import UNUSED
print(*sorted(UNUSED & {name.partition(".")[0] for name in sys.modules}))
import libp2p.rcmgr.memory_stats
assert libp2p.rcmgr.memory_stats.psutil is psutil
import requests
print(requests.get.__module__)
"""


def test_a_host_and_a_ledger_need_none_of_them_and_others_get_the_real_ones() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["psutil", "requests.api"]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a library as it is before anybody imports it."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "requests":
            monkeypatch.delitem(sys.modules, name)
    assert "requests" in UNUSED
    return "requests"


def test_a_stand_in_is_inherited_from_and_caught_but_not_made(absent: str) -> None:
    with kept_out():
        module = import_module(f"{absent}.deep.within")
        assert module is sys.modules[f"{absent}.deep.within"]
    assert not [name for name in sys.modules if name.startswith(absent)]

    session = module.Session
    heir = type("Heir", (session,), {"limit": module.Code.LIMIT})
    assert issubclass(heir, session)
    assert issubclass(session, Exception)  # so that it may stand in an `except`
    assert not isinstance(ValueError(), session)
    with pytest.raises(NotImplementedError, match="Session"):
        session()
