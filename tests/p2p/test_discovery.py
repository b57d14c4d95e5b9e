"""Finding providers in a network where some are dead, some lie and some say nothing."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from market import MODEL, PRICES, Diary, clock, signer
from memory_host import MemoryHost, MemoryNetwork, open_memory_network
from trio.testing import MockClock, wait_all_tasks_blocked

from p2p.discovery import (
    FIRST_RENEWAL_S,
    GRACE_S,
    MAX_FOUND,
    PROBE_KEPT_S,
    PROBE_TIMEOUT_S,
    RENEW_S,
    RENEWAL_SPREAD,
    SEARCH_KEPT_S,
    SETTLE_S,
    TIDY_S,
    Announcer,
    Directory,
    Found,
    family_topic,
)
from p2p.errors import RemoteError, Unavailable
from p2p.host import PeerAddress, Stream, Verdict
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import (
    MAX_LIFETIME_S,
    PROTOCOL,
    Advert,
    ChannelOffer,
    ModelOffer,
    Pull,
    lookup_key,
    provider_keys,
)
from p2p.protocol.advert_book import FAILURE_S, MIN_RENEWAL_S
from p2p.protocol.wire import Signed, encode, frame, sign
from p2p.stream import MessageStream

FAMILY = "scripted"


def peer(name: str) -> str:
    return peer_id_of(signer(name).public_key)


def advert(name: str, **changes: object) -> tuple[Advert, Signed]:
    now = int(clock())
    plain = Advert(
        network="devnet",
        peer=peer(name),
        addresses=(f"/memory/{peer(name)}/p2p/{peer(name)}",),
        seq=int(clock() * 1000),
        issued_at=now,
        expires_at=now + MAX_LIFETIME_S,
        models=(
            ModelOffer(
                id=MODEL,
                family=FAMILY,
                quantisation="none",
                digest="00",
                context=8192,
                prices=PRICES,
                ttft_ms=50,
                tokens_per_s=100,
                slots_free=1,
                slots_total=1,
            ),
        ),
        channel=ChannelOffer(payee="0:00", payee_key=bytes(32), deposit_min_nano=1, challenge_period_s=60),
    )
    body = msgspec.structs.replace(plain, **changes)
    return body, sign(body, signer(name))


class World:
    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery, client: MemoryHost) -> None:
        self.network = network
        self.client = client
        self.diary = Diary()
        self.directory = Directory(client, network="devnet", verify=verify_by_peer, clock=clock, trace=self.diary)
        self._nursery = nursery

    async def announce(self, name: str, **changes: object) -> MemoryHost:
        host = await self.network.join(peer(name))
        await self._nursery.start(Announcer(host, lambda: advert(name, **changes)).run)
        return host

    async def serve(self, name: str, answer: Any) -> MemoryHost:
        """Somebody who is announced and answers a pull in a way of its own."""
        host = await self.network.join(peer(name))
        host.serve(PROTOCOL, answer)
        await host.provide(lookup_key(MODEL))
        return host

    async def find(self, model: str | None = MODEL) -> list[str]:
        return [one.peer for one in await self.directory.find(model)]


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        yield World(network, nursery, await network.join("client"))
        nursery.cancel_scope.cancel()


async def test_a_cold_client_finds_who_is_there(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.announce("one")
        await world.announce("two")
        assert await world.find() == sorted([peer("one"), peer("two")])
        assert await world.find(None) == sorted([peer("one"), peer("two")])
        assert await world.find("Qwen/Qwen3-8B") == []
        (found, _) = await world.directory.find(MODEL)
        assert isinstance(found, Found)
        assert (found.model.id, found.model.prices, found.rtt_ms) == (MODEL, PRICES, 1)


async def test_the_dead_and_the_silent_are_left_out_within_the_probes_time(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.announce("alive")
        await world.announce("dead")
        world.network.kill(peer("dead"))
        await world.serve("silent", _say_nothing)
        assert await world.find() == [peer("alive")]
        assert trio.current_time() <= PROBE_TIMEOUT_S
        assert {record["peer"] for record in world.diary.of("probe_failed")} == {peer("dead"), peer("silent")}
        assert all(stream.over for stream in world.client.streams)


@pytest.mark.parametrize(
    "answer",
    ["nothing", "garbage", "of another", "unsigned", "of another network", "expired", "in the future"],
)
async def test_liars_are_left_out(autojump_clock: MockClock, answer: str) -> None:
    async with open_world() as world:

        async def lie(stream: Stream) -> None:
            now = int(clock())
            _, good = advert("liar")
            lies = {
                "nothing": b"",
                "garbage": b"\x05hello",
                "of another": frame(advert("other")[1]),
                "unsigned": frame(msgspec.structs.replace(good, signature=bytes(64))),
                "of another network": frame(advert("liar", network="mainnet")[1]),
                "expired": frame(advert("liar", issued_at=now - 20, expires_at=now - 10)[1]),
                "in the future": frame(advert("liar", issued_at=now + 100, expires_at=now + 200)[1]),
            }
            await stream.write(lies[answer])

        await world.serve("liar", lie)
        assert await world.find() == []
        assert "probe_failed" in world.diary.kinds()


async def test_a_provider_without_the_model_is_no_provider_of_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        host = await world.announce("one", models=())
        await host.provide(lookup_key(MODEL))
        assert await world.find() == []


async def test_a_network_that_cannot_be_asked_leaves_those_that_are_known(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.network.dht_is_down = True
        with pytest.raises(Unavailable):
            await world.find()
        await world.announce("one")
        world.network.dht_is_down = False
        host = world.network.hosts[peer("one")]
        await host.provide(lookup_key(MODEL))
        assert await world.find() == [peer("one")]
        world.network.dht_is_down = True
        assert await world.find() == [peer("one")]
        world.network.kill(peer("one"))
        await trio.sleep(PROBE_KEPT_S)
        with pytest.raises(Unavailable):
            await world.find()


async def test_an_announcement_is_renewed_though_the_network_fails_meanwhile(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.network.dht_is_down = True
        await world.announce("one")
        world.network.dht_is_down = False
        assert await world.find() == []
        await trio.sleep(FIRST_RENEWAL_S + 1)
        assert await world.find() == [peer("one")]
        (first,) = await world.directory.find(MODEL)
        await trio.sleep(MAX_LIFETIME_S)
        (later,) = await world.directory.find(MODEL)
        assert later.advert.seq > first.advert.seq


@pytest.mark.parametrize("drawn", [0.0, 1.0])
async def test_announcements_are_renewed_soon_at_first_and_then_in_time(
    drawn: float, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        at_s: list[float] = []

        def announced() -> tuple[Advert, Signed]:
            at_s.append(trio.current_time())
            return advert("one")

        host = await world.network.join(peer("one"))
        with trio.move_on_after(1000):
            await Announcer(host, announced, draw=lambda: drawn).run()
        (*gaps_s, _) = [later - earlier for earlier, later in itertools.pairwise(at_s)]  # the last is the withdrawal
        waits_s = [FIRST_RENEWAL_S, 2 * FIRST_RENEWAL_S, 4 * FIRST_RENEWAL_S, RENEW_S, RENEW_S, RENEW_S]
        assert gaps_s[:6] == pytest.approx([wait_s * (1 - RENEWAL_SPREAD * drawn) for wait_s in waits_s])


async def test_one_that_leaves_takes_its_announcements_back(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        host = await world.network.join(peer("one"))
        await nursery.start(Announcer(host, lambda: advert("one")).run)
        assert {key for key, records in world.network.records.items() if records} == {*provider_keys(advert("one")[0])}
        nursery.cancel_scope.cancel()
    assert not any(world.network.records.values())


async def test_a_provider_that_has_moved_says_so_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        host = await world.network.join(peer("one"))
        announcer = Announcer(host, lambda: advert("one", addresses=tuple(host.addresses())))
        nursery.start_soon(world.directory.listen, [FAMILY])
        await wait_all_tasks_blocked()
        await nursery.start(announcer.run)
        await trio.sleep(1)
        host.move(("/memory/elsewhere/p2p/one",))
        await trio.sleep(SETTLE_S)
        known = world.directory.book.known(peer("one"))
        assert known is not None
        assert known.addresses == ("/memory/elsewhere/p2p/one",)
        nursery.cancel_scope.cancel()


async def test_adverts_travel_by_gossip_and_only_good_news_is_passed_on(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.listen, [FAMILY, "qwen"])
        await wait_all_tasks_blocked()
        await world.announce("one")
        await wait_all_tasks_blocked()
        assert world.directory.book.known(peer("one")) is not None
        assert [record["peer"] for record in world.diary.of("advert")] == [peer("one")]
        (validator,) = world.network.topics[family_topic(FAMILY)].values()
        _, good = advert("two")
        now = int(clock())
        for payload, verdict in (
            (encode(good), Verdict.ACCEPT),
            (encode(good), Verdict.IGNORE),
            (encode(advert("one", seq=1)[1]), Verdict.IGNORE),
            (encode(advert("three", issued_at=now - 20, expires_at=now - 10)[1]), Verdict.IGNORE),
            (encode(advert("three", issued_at=now + 100, expires_at=now + 200)[1]), Verdict.IGNORE),
            (b"", Verdict.REJECT),
            (b"garbage", Verdict.REJECT),
            (encode(advert("one")[1])[:-1], Verdict.REJECT),
            (encode(msgspec.structs.replace(good, signature=bytes(64))), Verdict.REJECT),
            (encode(advert("two", network="mainnet")[1]), Verdict.REJECT),
            (encode(advert("three", expires_at=now + MAX_LIFETIME_S + 1)[1]), Verdict.REJECT),
            (encode(msgspec.structs.replace(good, body=bytes(1 << 17))), Verdict.REJECT),
        ):
            assert validator(payload, "forwarder") is verdict
        assert world.directory.book.known(peer("two")) is not None
        assert world.directory.book.known(peer("three")) is None
        nursery.cancel_scope.cancel()


async def test_what_was_heard_is_forgotten_once_it_has_expired(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.listen, [FAMILY])
        await wait_all_tasks_blocked()
        (validator,) = world.network.topics[family_topic(FAMILY)].values()
        validator(encode(advert("one")[1]), "forwarder")
        await trio.sleep(MAX_LIFETIME_S - 1)
        assert len(world.directory.book) == 1
        await trio.sleep(TIDY_S + 1)
        assert len(world.directory.book) == 0
        nursery.cancel_scope.cancel()


async def test_of_very_many_that_are_known_a_few_are_probed(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for number in range(3 * MAX_FOUND):
            world.directory.book.add(advert(f"sybil-{number}")[1], clock(), source="sybil")
        await world.announce("one")
        assert await world.find() == [peer("one")]
        assert len(world.diary.of("probe_failed")) == MAX_FOUND


async def test_a_flood_does_not_hide_a_provider_that_others_told_of(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.network.dht_is_down = True
        await world.announce("one")
        world.directory.book.add(advert("one")[1], clock(), source="honest")
        for number in range(10 * MAX_FOUND):
            world.directory.book.add(advert(f"sybil-{number}")[1], clock(), source="sybil")
        assert await world.find() == [peer("one")]


async def test_who_never_answers_costs_little_and_that_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.announce("alive")
        for number in range(3):
            await world.serve(f"silent {number}", _say_nothing)
        for took_s in (GRACE_S, 0):
            began_at = trio.current_time()
            assert await world.find() == [peer("alive")]
            assert trio.current_time() == began_at + took_s
        assert len(world.diary.of("probe_failed")) == 3
        await trio.sleep(FAILURE_S)
        await world.find()
        assert len(world.diary.of("probe_failed")) == 6, "whoever comes back is found again after a while"


async def test_a_crowd_is_waited_for_while_it_answers_but_not_for_ever(autojump_clock: MockClock) -> None:
    def late(name: str, delay_s: float) -> Callable[[Stream], Awaitable[None]]:
        async def answer(stream: Stream) -> None:
            await trio.sleep(delay_s)
            await stream.write(frame(advert(name)[1]))
            await stream.close()

        return answer

    async with open_world() as world:
        await world.announce("at once")
        for name, delay_s in (("soon", 0.9 * GRACE_S), ("later", 1.8 * GRACE_S), ("never", 1.1 * PROBE_TIMEOUT_S)):
            await world.serve(name, late(name, delay_s))
        began_at = trio.current_time()
        assert set(await world.find()) == {peer("at once"), peer("soon"), peer("later")}
        assert trio.current_time() == began_at + PROBE_TIMEOUT_S


async def test_where_nobody_else_is_left_those_that_failed_are_asked_again(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        host = await world.announce("one")
        world.directory.fail(peer("one"), "of an earlier failure")
        assert await world.find() == [peer("one")]
        await world.announce("two")
        world.directory.fail(peer("one"), "again")
        assert await world.find() == [peer("two")]
        world.network.kill(peer("two"))
        await trio.sleep(PROBE_KEPT_S)
        assert await world.find() == [peer("one")]
        assert host.peer == peer("one")


async def test_who_asks_often_searches_and_probes_now_and_then(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.network.dht_is_down = True
        with pytest.raises(Unavailable):
            await world.find()
        world.network.dht_is_down = False
        await world.announce("one")
        for _ in range(10):
            assert await world.find() == [peer("one")]
            assert await world.find(None) == [peer("one")]
        assert len(world.client.streams) == 1
        await world.announce("two")
        assert await world.find("what nobody has") == []
        assert await world.find() == [peer("one")], "nobody has looked for it yet"
        await trio.sleep(SEARCH_KEPT_S)
        assert await world.find() == sorted([peer("one"), peer("two")])
        assert len(world.client.streams) == 3


async def test_one_that_failed_since_it_was_probed_is_asked_whether_it_is_there(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.announce("one")
        await world.announce("two")
        assert await world.find() == sorted([peer("one"), peer("two")])
        world.network.kill(peer("one"))
        world.directory.fail(peer("one"), "it broke off")
        assert await world.find() == [peer("two")]
        world.network.kill(peer("two"))
        world.directory.fail(peer("two"), "it broke off")
        assert await world.find() == []
        await world.announce("three")
        assert await world.find() == [peer("three")], "who finds nobody looks again at once"


async def test_where_nobody_answers_all_are_asked_once_more(autojump_clock: MockClock) -> None:
    """As when it was our own machine that was too busy to hear them."""
    async with open_world() as world:
        host = await world.announce("one")
        heard = 0

        async def deaf_at_first(stream: Stream) -> None:
            nonlocal heard
            heard += 1
            if heard == 1:
                await _say_nothing(stream)
            messages = MessageStream[Pull](stream, Pull)
            await messages.answer()
            await messages.send(advert("one")[1])

        host.serve(PROTOCOL, deaf_at_first)
        assert await world.find() == [peer("one")]
        assert heard == 2


async def test_a_killed_provider_leaves_the_list_at_the_next_look_and_for_good(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.directory.listen, [FAMILY])
        await wait_all_tasks_blocked()
        await world.announce("one")
        await world.announce("two")
        assert len(await world.find()) == 2
        last = advert("one", seq=int(clock() * 1000) + 1000)[1]
        (validator,) = world.network.topics[family_topic(FAMILY)].values()
        await trio.sleep(MIN_RENEWAL_S)
        assert validator(encode(last), "forwarder") is Verdict.ACCEPT
        world.network.kill(peer("one"))
        assert await world.find() == [peer("two")]
        assert validator(encode(last), "forwarder") is Verdict.IGNORE
        listed = {listing.advert.peer for listing in world.directory.book.listings(MODEL, clock())}
        assert listed == {peer("two")}
        nursery.cancel_scope.cancel()


async def test_we_are_not_our_own_provider(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.network.records[lookup_key(MODEL)]["client"] = PeerAddress("client", ())
        assert await world.find() == []
        assert world.client.streams == []


async def test_whoever_pulls_is_answered_and_nothing_else_is(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.announce("one")
        for said in (b"", b"\x05hello", b"\xff"):
            stream = await world.client.open(peer("one"), PROTOCOL)
            await stream.write(said)
            with pytest.raises(Unavailable):
                await stream.read(1)
        await world.serve("two", _of_another)
        with pytest.raises(RemoteError, match="another peer"):
            await world.directory.probe(peer("two"))
        _, rtt_ms = await world.directory.probe(peer("one"))
        assert rtt_ms == 1


async def _of_another(stream: Stream) -> None:
    await stream.write(frame(advert("one")[1]))


async def _say_nothing(stream: Stream) -> None:
    await trio.sleep_forever()
