"""Some hundred Kademlia cores on one network in virtual time: that look-ups converge, and what churn and liars cost."""

from __future__ import annotations

import itertools
import statistics

import pytest
from kad_churn import grown, measure, p95
from kad_network import KadNetwork, contact_of, peer_of

from p2p.protocol.kad_messages import AddProvider, Contact, FindNode, GetProviders, K, Request, Response, kad_id
from p2p.protocol.kademlia import PATIENCE_S, QUERY_TIMEOUT_S, REQUESTS_AT_ONCE, REQUESTS_PER_S, Kademlia
from p2p.protocol.lookup import MAX_PER_ORIGIN
from p2p.protocol.provider_records import MAX_RECORDS_PER_KEY, RECORD_LIFE_S
from p2p.protocol.routing_table import CHECK_AFTER_S
from p2p.protocol.shards import record_key

KEY = record_key("any")


def some(network: KadNetwork, count: int) -> list[Kademlia]:
    return network.chance.sample(list(network.peers.values()), count)


def truly_closest(network: KadNetwork, key: bytes, *, but: bytes) -> set[bytes]:
    servers = [peer for peer in network.peers if peer not in network.clients and peer != but]
    return set(sorted(servers, key=lambda peer: kad_id(peer) ^ kad_id(key))[:K])


@pytest.mark.slow
def test_look_ups_converge_and_every_provider_is_found_from_anywhere() -> None:
    network = grown(100, clients=10)
    clients = [network.peers[peer_of(f"client {number}")] for number in range(10)]
    costs = []
    for number, provider in enumerate(clients):
        key = record_key(f"name {number}")
        closest = {each.peer for each in network.locate(provider, key).closest}
        assert closest == truly_closest(network, key, but=provider.me)
        assert {each.peer for each in network.announce(provider, key).servers} == closest
        for core in some(network, 3):
            before = network.asked[core.me]
            found = network.find(core, key)
            costs.append(network.asked[core.me] - before)
            assert found.providers == (() if core is provider else (contact_of(provider.me),))
    assert statistics.median(costs) < 1.5 * K
    network.withdraw(clients[0], record_key("name 0"))
    assert network.find(clients[1], record_key("name 0")).providers == ()
    for core in network.peers.values():
        assert not {entry.contact.peer for entry in core.table} & network.clients, "clients are in no table"


def test_a_dead_provider_is_named_no_longer_than_its_record_lives() -> None:
    network = grown(15, clients=2)
    provider, client = (network.peers[peer_of(f"client {number}")] for number in range(2))
    announced_at = network.now
    network.announce(provider, KEY)
    network.crash(provider.me)
    network.run(RECORD_LIFE_S - (network.now - announced_at) - 1)
    assert network.find(client, KEY).providers == (contact_of(provider.me),)
    network.run(2)
    assert network.find(client, KEY).providers == ()


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True], ids=["processes die", "machines die"])
def test_under_churn_who_is_there_is_found_and_the_dead_are_forgotten(silent: bool) -> None:
    report = measure(servers=40, seed=2, every_s=30.0, silent=silent)
    assert all(report.at_rest.found)
    assert all(report.under_churn.found)
    assert p95(report.under_churn.took_s) < QUERY_TIMEOUT_S + PATIENCE_S
    assert max(report.stale_share) < 0.25
    assert max(report.named_dead_s) < RECORD_LIFE_S
    network = report.network
    network.run(CHECK_AFTER_S + QUERY_TIMEOUT_S)
    for core in network.peers.values():
        assert {entry.contact.peer for entry in core.table} <= set(network.peers), "nobody knows one who is dead"


@pytest.mark.slow
def test_half_of_the_network_vanishes_and_the_rest_finds_itself_again() -> None:
    network = grown(60)
    survivor = network.peers[peer_of("server 1")]
    network.announce(survivor, KEY)
    for number in range(2, 60, 2):
        network.crash(peer_of(f"server {number}"), silent=True)
    network.announce(survivor, KEY)
    for core in some(network, 5):
        found = network.find(core, KEY)
        assert found.providers == (() if core is survivor else (contact_of(survivor.me),))


def test_one_that_was_restarted_comes_back_through_its_snapshot() -> None:
    network = grown(30)
    known = network.peers[peer_of("server 7")].snapshot()
    network.crash(peer_of("server 7"))
    network.crash(peer_of("server 0"))
    again = network.join("server 7")
    network.act(again, lambda: again.restore(known, network.now))
    network.run(10)
    living = {contact.peer for contact in known} & set(network.peers)
    assert len(living) > K
    assert living <= {entry.contact.peer for entry in again.table} <= set(network.peers)


class Sybil(Kademlia):
    """A server that names only its fellows, as servers and as providers."""

    fellows: tuple[Contact, ...] = ()

    def receive(self, peer: bytes, origin: str, request: Request, now: float) -> Response | None:
        if isinstance(request, AddProvider):
            return None
        return Response(self.fellows[:K], self.fellows if isinstance(request, GetProviders) else ())


def sybils_near(network: KadNetwork, key: bytes, count: int) -> list[str]:
    """Names of peers closer to `key` than nearly all honest ones; who makes keys by the million gets still closer."""
    bound = sorted(kad_id(peer) ^ kad_id(key) for peer in network.peers)[2]
    names = (f"sybil {number}" for number in itertools.count())
    return list(itertools.islice((name for name in names if kad_id(peer_of(name)) ^ kad_id(key) < bound), count))


@pytest.mark.slow
def test_sybils_near_a_key_hide_no_provider_as_long_as_they_come_from_one_network() -> None:
    network = grown(50)
    names = sybils_near(network, KEY, 30)
    sybils = {peer_of(name): "192.0.2.0/24" for name in names}
    Sybil.fellows = tuple(map(contact_of, sybils))
    network.origins |= sybils
    for name in names:
        network.join(name, contact_of(peer_of("server 0")), kind=Sybil)
    network.run(30)
    provider, client = network.peers[peer_of("server 5")], network.peers[peer_of("server 9")]
    announced = network.announce(provider, KEY)
    assert len(announced.servers) == K - MAX_PER_ORIGIN, "the places that sybils cannot take"
    found = network.find(client, KEY, limit=32)
    assert contact_of(provider.me) in found.providers


def test_a_server_under_every_kind_of_flood_keeps_its_bounds_and_answers_others() -> None:
    network = grown(10)
    victim, honest = network.peers[peer_of("server 1")], network.peers[peer_of("server 2")]
    floods: list[Request] = [FindNode(b"x"), GetProviders(b"x"), AddProvider(b"x", (b"a",))]
    for number in range(100):
        evil = peer_of(f"evil {number}")
        for request in floods * (REQUESTS_AT_ONCE // 2):
            victim.receive(evil, "192.0.2.0/24", request, network.now)
        for key in range(50):
            victim.receive(evil, "192.0.2.0/24", AddProvider(b"%d" % key, (b"a",)), network.now)
    assert victim.receive(evil, "", FindNode(b"x"), network.now) == Response()
    assert len(victim.records) <= MAX_RECORDS_PER_KEY
    announced = network.announce(honest, KEY)
    assert victim.me in [each.peer for each in announced.servers]
    network.run(REQUESTS_AT_ONCE / REQUESTS_PER_S)
    assert victim.receive(evil, "", FindNode(b"x"), network.now) != Response()


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> tuple[int, float]:
        network = grown(15, seed=seed)
        core = network.peers[peer_of("server 3")]
        network.announce(core, b"key")
        return network.asked.total(), network.now

    assert run(1) == run(1)
    assert run(1) != run(2)
