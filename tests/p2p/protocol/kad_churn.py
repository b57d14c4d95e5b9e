"""Look-ups in a Kademlia network at rest and under churn: how many succeed, what they cost, and who is stale."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from kad_network import KadNetwork, contact_of, peer_of

from p2p.protocol.kademlia import Kademlia
from p2p.protocol.shards import record_key

RENEW_S = 240.0  # as `p2p.discovery` does
CLIENTS = 20


@dataclass
class Finds:
    """What became of looking for providers that are there."""

    found: list[bool] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)


@dataclass
class Report:
    """`named_dead_s`: how long after their end dead providers were still named."""

    network: KadNetwork
    at_rest: Finds = field(default_factory=Finds)
    under_churn: Finds = field(default_factory=Finds)
    stale_share: list[float] = field(default_factory=list)  # of all tables' entries
    named_dead_s: list[float] = field(default_factory=lambda: [0.0])


def grown(servers: int, *, clients: int = 0, seed: int = 1) -> KadNetwork:
    """So many servers, then so many clients, each of which joined through the first."""
    network = KadNetwork(seed)
    first = contact_of(network.join("server 0").me)
    for number in range(1, servers):
        network.join(f"server {number}", first)
        network.run(0.1)
    for number in range(clients):
        network.join(f"client {number}", first, server=False)
    network.run(30)
    return network


def measure(*, servers: int, seed: int, for_s: float = 600.0, every_s: float = 6.0, silent: bool = True) -> Report:
    """Half of the servers are replaced within `for_s`, and half of the providers die. Somebody looks each `every_s`."""
    network = grown(servers, clients=2 * CLIENTS, seed=seed)
    clients = [network.peers[peer_of(f"client {number}")] for number in range(2 * CLIENTS)]
    seekers, providers = clients[:CLIENTS], clients[CLIENTS:]
    old = [peer_of(f"server {number}") for number in range(1, servers)]
    network.chance.shuffle(old)
    report = Report(network)
    _renew(network, providers)
    network.run(every_s)
    for _ in range(round(for_s / every_s)):
        _find(network, report.at_rest, seekers, providers)
    began, renew_at, newcomers = network.now, network.now, 0
    dead: dict[bytes, float] = {}
    while (passed := (network.now - began) / for_s) < 1:
        while newcomers < servers * passed / 2:
            network.crash(old.pop(), silent=silent)
            network.join(f"newcomer {newcomers}", contact_of(peer_of("server 0")))
            newcomers += 1
        while len(dead) <= CLIENTS * passed / 2:
            dead[providers[-1].me] = network.now
            network.crash(providers.pop().me, silent=silent)
        if network.now >= renew_at:
            renew_at += RENEW_S
            _renew(network, providers)
        network.run(every_s)
        report.stale_share.append(_stale_share(network))
        _find(network, report.under_churn, seekers, providers)
        _look_for_the_dead(network, report, seekers, dead)
    return report


def _renew(network: KadNetwork, providers: list[Kademlia]) -> None:
    for provider in providers:
        _, events = provider.announce(name_of(provider.me), contact_of(provider.me).addresses, network.now)
        network.act(provider, partial(list, events))


def name_of(peer: bytes) -> bytes:
    return record_key(peer.hex())


def _find(network: KadNetwork, finds: Finds, seekers: list[Kademlia], providers: list[Kademlia]) -> None:
    seeker, provider = network.chance.choice(seekers), network.chance.choice(providers)
    asked, now = network.asked[seeker.me], network.now
    found = network.find(seeker, name_of(provider.me))
    finds.found.append(found.providers == (contact_of(provider.me),))
    finds.messages.append(network.asked[seeker.me] - asked)
    finds.took_s.append(network.now - now)


def _look_for_the_dead(network: KadNetwork, report: Report, seekers: list[Kademlia], dead: dict[bytes, float]) -> None:
    peer = network.chance.choice(list(dead))
    if network.find(network.chance.choice(seekers), name_of(peer)).providers:
        report.named_dead_s.append(network.now - dead[peer])


def _stale_share(network: KadNetwork) -> float:
    entries = [entry.contact.peer in network.peers for core in network.peers.values() for entry in core.table]
    return 1 - sum(entries) / len(entries)


def table(report: Report) -> Sequence[str]:
    """Markdown."""

    def row(title: str, finds: Finds) -> str:
        share = 100 * sum(finds.found) / len(finds.found)
        messages, took_s = finds.messages, finds.took_s
        return (
            f"| {title} | {share:.1f}% of {len(finds.found)} | {statistics.median(messages):.0f} | {p95(messages):.0f} "
            f"| {statistics.median(took_s):.2f} | {p95(took_s):.2f} |"
        )

    mean, most = 100 * statistics.mean(report.stale_share), 100 * max(report.stale_share)
    return [
        "| | found | questions, median | p95 | seconds, median | p95 |",
        "|---|---|---|---|---|---|",
        row("at rest", report.at_rest),
        row("under churn", report.under_churn),
        "",
        f"Of the tables' entries {mean:.1f}% were dead on average under churn, {most:.1f}% at most.",
        f"A dead provider was named no longer than {max(report.named_dead_s):.0f} s after its end.",
    ]


def p95(values: Sequence[float]) -> float:
    return sorted(values)[round(0.95 * (len(values) - 1))]
