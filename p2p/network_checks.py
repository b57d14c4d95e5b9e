"""What `doctor` looks at outside: the chain, its clock, bootstrap peers and providers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from chain.ledger import Ledger
from p2p.discovery import Directory
from p2p.errors import Error, LocalError, Unavailable
from p2p.findings import Finding, Verdict
from p2p.home import Home
from p2p.host import Host, Reached
from p2p.keys import verify_by_peer
from p2p.network_file import NetworkFile
from p2p.protocol.addresses import Reach, parse, reach_of
from p2p.protocol.advert import CLOCK_TOLERANCE_S
from p2p.protocol.reachability import Status

REACH_TIMEOUT_S = 15.0  # for others to dial us, who give each address 5 s
LOOK_S = 0.1
OPEN_A_PORT = "forward the port that you listen on in the router, or start with --upnp"
KINDS = {
    True: "; the router keeps to one port, so clients may come straight by a punched hole",
    False: "; the router takes another port for each conversation, so no hole can be punched",
    None: "",
}


@dataclass(frozen=True)
class Wiring:
    """What stands behind the seams, given by `p2p.node`; all with keys that are thrown away."""

    open_host: Callable[[NetworkFile], AbstractAsyncContextManager[Host]]
    open_listener: Callable[[NetworkFile], AbstractAsyncContextManager[Host]]  # where our provider listens
    open_ledger: Callable[[NetworkFile, Home], AbstractAsyncContextManager[Ledger]]


async def chain(network: NetworkFile, home: Home, wiring: Wiring) -> Sequence[Finding]:
    """Whether the lite-servers answer, and whether our clock agrees with theirs. Raises `chain.errors`."""
    if network.unpaid:
        return [Finding("chain", Verdict.NOTE, f"{network.mark.name} is a network without money, and has none")]
    async with wiring.open_ledger(network, home) as ledger:
        asked_at = time.monotonic()
        now = await ledger.now()
        took_ms = round(1000 * (time.monotonic() - asked_at))
    reached = Finding("chain", Verdict.GOOD, f"{network.mark.name} answers in {took_ms} ms")
    return [reached, _clock(now - round(time.time()), devnet=bool(network.mark.control))]


def _clock(ahead_s: int, *, devnet: bool) -> Finding:
    what = f"{abs(ahead_s)} s {'behind' if ahead_s >= 0 else 'ahead of'} the chain's"
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding("clock", Verdict.GOOD, what)
    if devnet:
        return Finding("clock", Verdict.NOTE, f"{what}: a devnet's may have been moved")
    return Finding("clock", Verdict.BAD, what, "set it (timedatectl set-ntp true): others refuse what is signed now")


async def peers(network: NetworkFile, wiring: Wiring) -> Sequence[Finding]:
    """Whether bootstrap peers answer, and whether providers are found through them."""
    async with wiring.open_host(network) as host:
        findings = [await _bootstrap(host, address) for address in network.bootstraps]
        if not any(finding.verdict is Verdict.GOOD for finding in findings):
            advice = "ask for a network file that is up to date, or start a network: python -m p2p.node"
            return [*findings, Finding("peers", Verdict.BAD, "no bootstrap peer answers", advice)]
        return [*findings, await _providers(host, network)]


async def reach(network: NetworkFile, wiring: Wiring) -> Sequence[Finding]:
    """Whether others can dial what listens where our provider does, by having them try."""
    try:
        async with wiring.open_listener(network) as host:
            with trio.move_on_after(REACH_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    for address in network.bootstraps:
                        nursery.start_soon(_bootstrap, host, address)
                if not host.peers():
                    return [Finding("reach", Verdict.NOTE, "not tried, for no bootstrap peer answers")]
                while not _is_settled(host):  # noqa: ASYNC110  # a verdict comes without a change of address
                    await trio.sleep(LOOK_S)
            return [told(host.reached(), host.addresses())]
    except LocalError as error:
        return [Finding("reach", Verdict.NOTE, f"not tried: {error}")]


def _is_settled(host: Host) -> bool:
    status = host.reached().status
    return status is Status.PUBLIC or (status is Status.PRIVATE and bool(host.addresses()))


def told(reached: Reached, addresses: Sequence[str]) -> Finding:
    """What to make of it, and of the addresses that would be announced."""
    straight = [address.rpartition("/p2p/")[0] for address in addresses if "/p2p-circuit/" not in address]
    if reached.status is Status.PUBLIC:
        how = "public" if reach_of(parse(straight[0])) is Reach.WORLD else "open on this network"
        return Finding("reach", Verdict.GOOD, f"{how}: others come through to {straight[0]}")
    if straight:
        return Finding("reach", Verdict.NOTE, f"unknown: nobody tried {straight[0]}, which is announced all the same")
    if not addresses:
        what = "nobody can reach you: nothing that you listen on is open, and no relay takes you in"
        return Finding("reach", Verdict.BAD, what, f"{OPEN_A_PORT}, or ask for a network file with a relay in it")
    if reached.status is Status.UNKNOWN:
        what = "unknown whether you can be dialled, for nobody here tried; reached through a relay"
    else:
        what = f"behind a router or firewall, reached through a relay{KINDS[reached.keeps_port]}"
    return Finding("reach", Verdict.NOTE, what, f"to be dialled straight, {OPEN_A_PORT}")


async def _bootstrap(host: Host, address: str) -> Finding:
    asked_at = trio.current_time()
    try:
        await host.connect(address)
    except Error as error:
        return Finding("bootstrap", Verdict.NOTE, str(error))
    return Finding("bootstrap", Verdict.GOOD, f"{address} in {round(1000 * (trio.current_time() - asked_at))} ms")


async def _providers(host: Host, network: NetworkFile) -> Finding:
    directory = Directory(host, network=network.mark.name, verify=verify_by_peer, clock=time.time)
    try:
        found = await directory.find(None)
    except Unavailable as error:
        return Finding("providers", Verdict.BAD, str(error))
    if not found:
        return Finding("providers", Verdict.NOTE, "nobody sells anything here now", "python -m p2p.node provide")
    return Finding(
        "providers", Verdict.GOOD, f"{len(found)} found, the nearest in {min(one.rtt_ms for one in found)} ms"
    )
