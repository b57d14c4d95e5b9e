"""Published demands: who hears of them, who answers, and what nobody is made to do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from market import MODEL, PRICES, Customer, Market, Seller, clock, open_market, signer
from town import LISTEN, open_town
from trio.testing import MockClock, wait_all_tasks_blocked

from inference.nursery import open_background
from inference.scripted import SCRIPTED_MODEL
from p2p.demands import ANSWERS_BURST, Demands, demand_topic
from p2p.errors import Unavailable
from p2p.host import Validator, Verdict
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import MAX_LIFETIME_S, provider_keys
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import Demand, Wanted
from p2p.protocol.price import FREE
from p2p.protocol.sales import PriceList
from p2p.protocol.standing import StandingLimits
from p2p.protocol.strategy import FixedPrice
from p2p.protocol.wire import encode, sign

FAMILY = SCRIPTED_MODEL.family
BULK = PriceList(FixedPrice(PRICES, bulk_discount_percent=10), 1_000_000, FREE, FREE, StandingLimits(50, DAY_S))


def wanted(**changes: Any) -> Wanted:
    known = Wanted(family=FAMILY, per_day=3, input_tokens=100, output_tokens=20, until=int(clock()) + DAY_S)
    return msgspec.structs.replace(known, **changes)


async def published(client: Customer, want: Wanted, for_s: float = 30) -> None:
    with trio.move_on_after(for_s):
        await client.peer.publish(want)


async def listener(market: Market, peer: str) -> Validator:
    """What a peer makes of demands, once it listens."""
    await wait_all_tasks_blocked()
    return market.network.topics[demand_topic(FAMILY)][peer]


def demand(name: str, **changes: Any) -> bytes:
    known = Demand(
        network="devnet",
        client=peer_id_of(signer(name).public_key),
        addresses=("/ip4/127.0.0.1/tcp/1",),
        family=FAMILY,
        seq=1,
        issued_at=int(clock()),
        expires_at=int(clock()) + MAX_LIFETIME_S,
        wanted=wanted(),
    )
    return encode(sign(msgspec.structs.replace(known, **changes), signer(name)))


async def test_a_provider_that_nobody_finds_makes_itself_known(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(price_list=BULK), await market.customer()
        for key in provider_keys(seller.provider.advert()[0]):
            market.network.records[key].clear()
        with pytest.raises(Unavailable):
            await client.peer.demand(wanted())
        assert seller.diary.of("offered") == []
        await published(client, wanted())
        assert {said["peer"] for said in client.diary.of("interested")} == {seller.peer}
        (deal,) = await client.peer.demand(wanted())
        assert deal.provider == seller.peer


@pytest.mark.parametrize(
    "unsuitable",
    [
        {"model": "another", "family": ""},
        {"tier": "attested"},
        {"prices_max": PRICES.scaled(89, 100)},
        {"until": 0},
    ],
)
async def test_who_has_not_what_is_wanted_says_nothing(
    tmp_path: Path, autojump_clock: MockClock, unsuitable: dict[str, Any]
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(price_list=BULK)
        validate = await listener(market, seller.peer)
        assert validate(demand("a", wanted=wanted(**unsuitable)), "forwarder") is Verdict.ACCEPT
        await trio.sleep(60)
        assert market.network.hosts[seller.peer].streams == []
        suitable = wanted(prices_max=PRICES.scaled(9, 10), model=MODEL, family="")
        assert seller.provider._sales.would_sell(suitable), "it is not that it answers nobody"


async def test_what_is_passed_on_and_what_is_held_against_who_did(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(price_list=BULK)
        validate = await listener(market, seller.peer)
        for payload, verdict in (
            (demand("a"), Verdict.ACCEPT),
            (demand("a"), Verdict.IGNORE),
            (demand("b", expires_at=int(clock()), issued_at=int(clock()) - 1), Verdict.IGNORE),
            (demand("c", family="qwen", wanted=wanted(family="")), Verdict.REJECT),
            (demand("d", network="mainnet"), Verdict.REJECT),
            (b"junk", Verdict.REJECT),
        ):
            assert validate(payload, "forwarder") is verdict


async def test_strangers_cannot_make_a_provider_dial_without_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        host = await market.network.join("somebody")
        seller: Seller = await market.seller(price_list=BULK)
        dialled: list[str] = []

        async def count(peer: str, protocol: str) -> Any:
            dialled.append(peer)
            raise Unavailable("nobody is there")

        host.open = count  # type: ignore[method-assign]
        demands = Demands(host, network="devnet", verify=verify_by_peer, clock=clock, suit=lambda _: True)
        async with open_background() as background:
            background.start_soon(demands.listen, [FAMILY])
            background.start_soon(demands.answer, seller.provider.advert)
            validate = await listener(market, "somebody")
            for number in range(5 * int(ANSWERS_BURST)):
                assert validate(demand(f"stranger {number}"), "forwarder") is Verdict.ACCEPT
            assert validate(demand("nowhere", addresses=()), "forwarder") is Verdict.ACCEPT
            await trio.sleep(1)
            assert len(dialled) == int(ANSWERS_BURST)
            await trio.sleep(600)
            dialled.clear()
            for seq in range(2, 8):
                await trio.sleep(6)
                assert validate(demand("stranger 0", seq=seq), "forwarder") is Verdict.ACCEPT
            await trio.sleep(1)
            assert len(dialled) == 2, "of one client again and again"


@pytest.mark.slow
async def test_over_libp2p_a_provider_hears_of_it_and_comes_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.demands.SETTLE_S", 0.2)  # until a first one that nobody heard is said again
    came_forward = trio.Event()

    def trace(kind: str, /, **fields: object) -> None:
        if kind == "interested":
            came_forward.set()

    async with (
        open_town(tmp_path) as town,
        town.provider(price_list=BULK) as provider,
        town.client(joins=provider.addresses()[0], listen=LISTEN, trace=trace) as client,
        open_background() as background,
    ):
        want = wanted(until=int(time.time()) + DAY_S)
        background.start_soon(client.publish, want)
        await came_forward.wait()
        assert client._directory.book.known(provider.peer) is not None
        (deal,) = await client.demand(want)
        assert (deal.provider, deal.quote.uses) == (provider.peer, 3)
