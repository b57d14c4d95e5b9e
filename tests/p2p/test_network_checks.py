"""What `doctor` says of how others reach a provider: as a table, and of real hosts that try each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from loopback import a_host

from p2p import network_checks
from p2p.findings import Finding, Verdict
from p2p.host import Reached
from p2p.net import autonat
from p2p.network_checks import Wiring, reach, told
from p2p.network_file import NetworkFile
from p2p.protocol import addresses
from p2p.protocol.addresses import Reach
from p2p.protocol.reachability import Status
from p2p.protocol.relaying import Limits

LISTEN = ("/ip4/127.0.0.1/tcp/0",)
HIDDEN = ("/ip4/127.2.0.1/tcp/0",)
LIMITS = Limits(4, 4, 3600, 8, 4, 60, 1 << 24)
CHAIN = {"bombyx": {"name": "test", "global_id": -239}}
PEER = "12D3KooWJzmKPPNNBEDNwL1s7Nn8N3pV8pRbqJLBcUdUSB29kvoR"
OPEN, NEAR = f"/ip4/8.8.8.8/tcp/4001/p2p/{PEER}", f"/ip4/192.168.1.7/tcp/4001/p2p/{PEER}"
RELAYED = f"/ip4/9.9.9.9/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}"


@pytest.mark.parametrize(
    ("reached", "announced", "verdict", "words", "advice"),
    [
        (Reached(Status.PUBLIC), [OPEN], Verdict.GOOD, ["public: others come through to /ip4/8.8.8.8/tcp/4001"], ""),
        (Reached(Status.PUBLIC), [NEAR], Verdict.GOOD, ["open on this network", "192.168.1.7"], ""),
        (Reached(Status.UNKNOWN), [NEAR, RELAYED], Verdict.NOTE, ["unknown", "192.168.1.7"], ""),
        (Reached(Status.UNKNOWN), [RELAYED], Verdict.NOTE, ["unknown", "nobody here tried", "a relay"], "--upnp"),
        (Reached(Status.PRIVATE), [RELAYED], Verdict.NOTE, ["behind a router", "through a relay"], "forward the port"),
        (Reached(Status.PRIVATE, True), [RELAYED], Verdict.NOTE, ["keeps to one port", "punched hole"], "--upnp"),
        (Reached(Status.PRIVATE, False), [RELAYED], Verdict.NOTE, ["another port for each", "no hole"], "--upnp"),
        (Reached(Status.PRIVATE), [], Verdict.BAD, ["nobody can reach you"], "a network file with a relay"),
        (Reached(Status.UNKNOWN), [], Verdict.BAD, ["nobody can reach you"], "a network file with a relay"),
    ],
)
def test_what_is_said(
    reached: Reached, announced: Sequence[str], verdict: Verdict, words: Sequence[str], advice: str
) -> None:
    finding = told(reached, announced)
    assert (finding.check, finding.verdict) == ("reach", verdict)
    assert [word for word in words if word not in finding.what] == []
    assert advice in finding.advice
    assert bool(advice) == bool(finding.advice)


@pytest.fixture
def a_world_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_reachable.py."""
    monkeypatch.setattr(addresses, "reach_of_ip", lambda ip: Reach.SITE if ip.startswith("127.2.") else Reach.WORLD)


async def examined(listen: tuple[str, ...], *bootstraps: str) -> Finding:
    def listener(_: NetworkFile) -> Any:
        return a_host("mine", listen=listen, dht_server=False)

    def nothing(*_: object) -> Any:
        raise AssertionError("it is of no use here")

    (finding,) = await reach(NetworkFile(bootstraps=bootstraps, chain=CHAIN), Wiring(nothing, listener, nothing))
    return finding


@pytest.mark.usefixtures("a_world_on_loopback")
async def test_who_can_be_dialled_is_told_so() -> None:
    async with a_host("relay", relay=LIMITS) as relay:
        finding = await examined(LISTEN, *relay.addresses())
    assert (finding.verdict, finding.what.split(":")[0]) == (Verdict.GOOD, "public")


@pytest.mark.usefixtures("a_world_on_loopback")
async def test_who_cannot_be_dialled_is_told_how_it_is_reached() -> None:
    async with a_host("a", relay=LIMITS) as a, a_host("b", relay=LIMITS) as b:
        finding = await examined(HIDDEN, *a.addresses(), *b.addresses())
    assert finding.verdict is Verdict.NOTE
    assert finding.what.startswith("behind a router or firewall, reached through a relay; the router keeps to one port")
    assert "--upnp" in finding.advice


@pytest.mark.usefixtures("a_world_on_loopback")
async def test_who_is_not_tried_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    async def shrug(*_: object) -> None:
        return None

    monkeypatch.setattr(autonat.DialBack, "ask", shrug)
    monkeypatch.setattr(network_checks, "_is_settled", lambda host: host.addresses())  # it would wait for a verdict
    async with a_host("relay", relay=LIMITS) as relay:
        finding = await examined(LISTEN, *relay.addresses())
    assert finding.what.startswith("unknown whether you can be dialled")


async def test_where_nobody_answers_nothing_is_tried() -> None:
    async with a_host("gone") as gone:
        (address,) = gone.addresses()
    finding = await examined(LISTEN, address)
    assert (finding.verdict, finding.what) == (Verdict.NOTE, "not tried, for no bootstrap peer answers")


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    async with a_host("theirs") as theirs:
        (address,) = theirs.addresses()
        finding = await examined((address.rpartition("/p2p/")[0],), address)
    assert finding.verdict is Verdict.NOTE
    assert finding.what.startswith("not tried: cannot listen on 127.0.0.1")
