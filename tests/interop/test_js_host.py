"""Our hosts and js-libp2p's: one network, whichever of the two dials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from js_peer import JsError, JsPeer, js_peer, needs_js, signer
from loopback import ECHO, a_host, echo, raw, read_exactly, read_to_end, until

from inference.nursery import open_background
from p2p.discovery import Announcer, Directory
from p2p.errors import Unavailable
from p2p.host import Host, Stream, Verdict
from p2p.keys import verify_by_peer
from p2p.protocol.advert import Advert, ChannelOffer, ModelOffer, provider_keys
from p2p.protocol.price import Prices
from p2p.protocol.wire import sign

pytestmark = [pytest.mark.slow, needs_js]

MEGABYTE = bytes(range(256)) * 4096
KEY = bytes(range(32))  # of a private network
MODEL = "example/model-1b"
TOPIC = "adverts/example"

js_dials = pytest.mark.parametrize("js_dials", [True, False], ids=["js dials", "we dial"])


async def meet(ours: Host, js: JsPeer, *, js_dials: bool) -> dict[str, Any]:
    """One of them dials the other; what js then heard by identify."""
    if js_dials:
        assert await js.do("dial", address=ours.addresses()[0]) == ours.peer
    else:
        assert await ours.connect(js.addresses[0]) == js.peer
    return await js.event("identified", peer=ours.peer)


@js_dials
async def test_both_identify_ping_and_stream(js_dials: bool) -> None:
    async with a_host("ours") as ours, js_peer("theirs") as js:
        ours.serve(ECHO, echo)
        said = await meet(ours, js, js_dials=js_dials)
        assert {ECHO, "/ipfs/ping/1.0.0", "/bombyx/test/kad/1.0.0", "/meshsub/1.1.0"} <= set(said["protocols"])
        await until(lambda: {ECHO, "/bombyx/test/kad/1.0.0"} <= spoken(ours, js.peer))
        assert await js.do("ping", peer=ours.peer) < 10_000
        stream = await ours.open(js.peer, "/ipfs/ping/1.0.0")
        for payload in (b"1" * 32, b"2" * 32):
            await stream.write(payload)
            assert await read_exactly(stream, 32) == payload
        await stream.close()
        assert await js.do("echo", peer=ours.peer, bytes=MEGABYTE) == MEGABYTE
        stream = await ours.open(js.peer, ECHO)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all, stream, MEGABYTE)
            assert await read_to_end(stream) == MEGABYTE
        assert await js.do("connections", peer=ours.peer) == ["outbound" if js_dials else "inbound"]


def spoken(host: Host, peer: str) -> set[str]:
    """What a peer told `host` that it speaks."""
    peerstore = raw(host).get_peerstore()
    known = [one for one in peerstore.peers_with_addrs() if str(one) == peer]
    return {protocol for one in known for protocol in peerstore.get_protocols(one)}


async def write_all(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    await stream.close()


@js_dials
async def test_members_of_a_private_network_deal_with_each_other(js_dials: bool) -> None:
    """With the key in a file as ours write it."""
    async with a_host("ours", swarm_key=KEY) as ours, js_peer("theirs", swarm_key=KEY) as js:
        ours.serve(ECHO, echo)
        await meet(ours, js, js_dials=js_dials)
        assert await js.do("echo", peer=ours.peer, bytes=MEGABYTE) == MEGABYTE
        await js.until(lambda size: size == 1, "table")
        await ours.provide("model:example/of ours")
        assert ours.peer in await js.do("providers", key="model:example/of ours")


async def test_one_of_theirs_without_the_key_is_shut_out() -> None:
    async with a_host("ours", swarm_key=KEY) as ours, js_peer("theirs") as js:
        with pytest.raises(JsError):
            await js.do("dial", address=ours.addresses()[0])
        assert not ours.peers()


@js_dials
async def test_two_of_ours_find_each_other_and_js_through_js(js_dials: bool) -> None:
    """The second keeps no records, so that js alone holds its own."""
    async with a_host("one") as one, a_host("two", dht_server=False) as two, js_peer("theirs") as js:
        await meet(one, js, js_dials=js_dials)
        await meet(two, js, js_dials=js_dials)
        two.serve(ECHO, echo)
        await js.until(lambda size: size == 1, "table")
        await js.do("provide", key="model:example/of theirs")
        await found(one, "model:example/of ours", {two.peer}, again=two)
        await two.provide("model:example/of ours")  # which raises if js does not say that it has it
        await found(one, "model:example/of theirs", {js.peer})
        await found(two, "model:example/of theirs", {js.peer})
        providers = await js.do("providers", key="model:example/of ours")
        assert {peer: addresses for peer, addresses in providers.items() if peer != js.peer}.keys() == {two.peer}
        stream = await one.open(two.peer, ECHO)  # at the address that js gave
        await stream.write(b"found you")
        assert await stream.read(100) == b"found you"


async def test_two_of_theirs_find_each_other_through_ours() -> None:
    async with a_host("ours") as ours, js_peer("one") as one, js_peer("two", server=False) as two:
        await meet(ours, one, js_dials=True)
        await meet(ours, two, js_dials=False)
        for js in (one, two):
            await js.until(lambda size: size == 1, "table")
        await one.do("provide", key="family:example")
        await found(ours, "family:example", {one.peer})
        providers = await two.do("providers", key="family:example")
        assert providers.keys() == {one.peer}


@js_dials
async def test_both_hear_the_others_gossip(js_dials: bool) -> None:
    topic = f"/bombyx/test/{TOPIC}"
    heard = []

    def take(payload: bytes, forwarder: str) -> Verdict:
        heard.append((payload, forwarder))
        return Verdict.ACCEPT

    async with a_host("ours") as ours, js_peer("theirs") as js, ours.subscribe(TOPIC, take):
        await js.do("subscribe", topic=topic)
        await meet(ours, js, js_dials=js_dials)
        await gossip_flows(ours, js)
        await ours.publish(TOPIC, b"from ours")
        event = await js.event("gossip", data=b"from ours")
        assert (event["topic"], event["from"]) == (topic, ours.peer)
        assert await js.do("publish", topic=topic, payload=b"from js") == [ours.peer]
        await until(lambda: heard)
        assert heard == [(b"from js", js.peer)]


@js_dials
async def test_each_finds_the_other_as_a_provider(js_dials: bool) -> None:
    """By the DHT, where the advert is then pulled from the provider, and by gossip."""
    async with a_host("ours") as ours, js_peer("theirs") as js, open_background() as background:
        warm, cold = (Directory(ours, network="test", verify=verify_by_peer, clock=time.time) for _ in range(2))
        background.start_soon(warm.listen, ["example"])
        await js.do("subscribe", topic=f"/bombyx/test/{TOPIC}")
        await meet(ours, js, js_dials=js_dials)
        await js.until(lambda size: size == 1, "table")
        await gossip_flows(ours, js)

        mine = advert_of(ours.peer, ours.addresses())
        await background.start(Announcer(ours, lambda: (mine, sign(mine, signer("ours")))).run)
        providers = await js.until(lambda found: ours.peer in found, "providers", key=f"model:{MODEL}")
        assert providers[ours.peer]
        assert as_read(await js.do("pull", peer=ours.peer)) == mine
        heard = await js.event("gossip", topic=f"/bombyx/test/{TOPIC}")
        assert as_read(await js.do("openAdvert", payload=heard["data"])) == mine

        theirs = advert_of(js.peer, js.addresses)
        fields = msgspec.to_builtins(theirs, builtin_types=(bytes,))
        await js.do("offer", advert=fields, keys=provider_keys(theirs), topic=f"/bombyx/test/{TOPIC}")
        await until(lambda: warm.book.known(js.peer) == theirs)
        await found(ours, f"model:{MODEL}", {js.peer})
        (one,) = await cold.find(MODEL)
        assert (one.peer, one.advert) == (js.peer, theirs)


async def test_a_provider_that_stops_is_found_no_more_by_theirs() -> None:
    """It takes its records back from our servers, which js asks."""
    key = f"model:{MODEL}"
    async with a_host("keeper") as keeper, js_peer("theirs", server=False) as js:
        await meet(keeper, js, js_dials=True)
        await js.until(lambda size: size == 1, "table")
        async with a_host("provider") as provider, open_background() as background:
            await provider.connect(keeper.addresses()[0])
            advert = advert_of(provider.peer, provider.addresses())
            await background.start(Announcer(provider, lambda: (advert, sign(advert, signer("provider")))).run)
            found = await js.until(lambda found: provider.peer in found, "providers", key=key)
            assert found.keys() == {provider.peer}
        await js.until(lambda found: not found, "providers", key=key)
        assert not await keeper.find_providers(key, 20)


def advert_of(peer: str, addresses: Sequence[str]) -> Advert:
    now = int(time.time())
    offer = ModelOffer(
        id=MODEL, family="example", quantisation="q8_0", digest="ab" * 32, context=8192, prices=Prices(3, 2, 9),
        ttft_ms=120, tokens_per_s=40, slots_free=2, slots_total=4,
    )  # fmt: skip
    terms = ChannelOffer(payee=f"0:{'22' * 32}", payee_key=bytes(32), deposit_min_nano=1, challenge_period_s=3600)
    return Advert(
        network="test", peer=peer, addresses=tuple(addresses), seq=1, issued_at=now, expires_at=now + 600,
        models=(offer,), channel=terms,
    )  # fmt: skip


def as_read(fields: dict[str, Any]) -> Advert:
    return msgspec.convert(fields, Advert, builtin_types=(bytes,))


async def gossip_flows(ours: Host, js: JsPeer) -> None:
    """Wait until each knows that the other listens."""
    topic = f"/bombyx/test/{TOPIC}"
    await until(lambda: js.peer in map(str, ours._gossip._reader.router.mesh[topic]))  # type: ignore[attr-defined]
    await js.until(lambda subscribers: ours.peer in subscribers, "subscribers", topic=topic)


async def found(host: Host, key: str, expected: set[str], again: Host | None = None) -> None:
    """Wait until a look-up finds them: whoever was dialled learns a moment later that js keeps records.

    `again` announces itself until then, as providers do.
    """
    with trio.fail_after(30):
        while {provider.peer for provider in await host.find_providers(key, 20)} != expected:
            await trio.sleep(0.05)
            if again is not None:
                with suppress(Unavailable):
                    await again.provide(key)
