"""Places that were promised and are not needed: the next one gets them at once, not after half a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from market import Customer, Market, open_market, question
from trio.testing import MockClock, wait_all_tasks_blocked

from inference.scripted import Scripted
from p2p.buying import Deal
from p2p.errors import PaymentError, Refused, Unavailable
from p2p.host import Stream
from p2p.kept_place import GIVE_BACK_TIMEOUT_S
from p2p.protocol.allowance import Allowance
from p2p.protocol.negotiate import PROTOCOL, GiveBack, ToClient
from p2p.stream import open_messages


async def promised(market: Market, client: Customer) -> Deal:
    """The only slot of the only provider, kept for the client; that it is kept is tried."""
    deal = await client.peer.agree(await client.peer.find(None), question())
    assert await free_for(await market.customer("somebody else")) == 0
    return deal


async def free_for(client: Customer) -> int:
    (found,) = await client.peer.find(None)
    return found.model.slots_free


async def free_once_all_is_said(market: Market) -> int:
    await wait_all_tasks_blocked()
    return await free_for(await market.customer("somebody else again"))


async def never(_peer: str, _protocol: str) -> Stream:
    await trio.sleep_forever()
    raise AssertionError


def drain(market: Market, client: Customer) -> None:
    address = client.ledger.wallet.address
    market.chain.transfer(address, "0:" + "00" * 32, market.chain.balance(address) - 20_000_000)


async def test_who_has_no_money_for_it_gives_the_place_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        deal = await promised(market, client)
        drain(market, client)
        with pytest.raises(PaymentError):
            async with client.peer.answer(deal, question()):
                pass
        assert await free_once_all_is_said(market) == 1
        assert seller.diary.of("given_back") == [{"peer": client.host.peer}]


async def test_who_leaves_while_a_channel_opens_gives_the_place_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        deal = await promised(market, client)
        client.keeper.commit_s = 5.0
        began = trio.current_time()
        with trio.move_on_after(1.0):
            async with client.peer.answer(deal, question()):
                raise AssertionError("it has not opened its channel yet")
        assert trio.current_time() == began + 1.0
        assert await free_once_all_is_said(market) == 1
        assert seller.diary.kinds().count("given_back") == 1


@pytest.mark.parametrize("after_s", [0.05, 0.101, 0.15, 0.19])
async def test_who_leaves_while_it_accepts_gives_the_place_back(
    tmp_path: Path, autojump_clock: MockClock, after_s: float
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=1))
        client = await market.customer()
        found = await client.peer.find(None)
        market.network.rtt_s = 0.1
        with trio.move_on_after(after_s) as scope:
            await client.peer.agree(found, question())
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert await free_once_all_is_said(market) == 1


async def test_who_leaves_before_anything_is_said_gives_the_place_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        deal = await promised(market, client)
        async with client.peer.answer(deal, question()):
            pass
        assert await free_once_all_is_said(market) == 1
        assert seller.diary.kinds().count("given_back") == 1


async def test_a_place_that_is_used_is_not_given_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        deal = await promised(market, client)
        async with client.peer.answer(deal, question()) as answer:
            await anext(aiter(answer))
        assert await free_once_all_is_said(market) == 1, "the session has ended"
        assert "given_back" not in seller.diary.kinds()


async def test_nobody_gives_back_the_place_of_another(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=1))
        client, thief = await market.customer(), await market.customer("thief")
        deal = await promised(market, client)
        async with open_messages(thief.host, deal.provider, PROTOCOL, ToClient) as messages:
            await messages.send(GiveBack(quote_id=deal.signed.id))
        await wait_all_tasks_blocked()
        assert "given_back" not in seller.diary.kinds()
        with pytest.raises(Refused, match="every slot"):
            await thief.peer.agree(await thief.peer.find(None), question())
        async with client.peer.answer(deal, question()) as answer:
            assert [piece async for piece in answer]


async def test_a_provider_that_is_gone_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        deal = await promised(market, client)
        await market.kill(seller)
        began = trio.current_time()
        with pytest.raises(Unavailable):
            async with client.peer.answer(deal, question()):
                pass
        assert trio.current_time() == began


async def test_a_provider_that_takes_no_stream_is_not_waited_for_long(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=1))
        client = await market.customer()
        deal = await promised(market, client)
        drain(market, client)
        monkeypatch.setattr(client.host, "open", never)
        began = trio.current_time()
        with pytest.raises(PaymentError):
            async with client.peer.answer(deal, question()):
                pass
        assert trio.current_time() == began + GIVE_BACK_TIMEOUT_S


async def test_for_what_is_given_away_no_place_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        allowance = Allowance(per_client=1000, per_address=1000, per_day=1000)
        seller, client = await market.seller(allowance=allowance), await market.customer()
        deal = await client.peer.agree(await client.peer.find(None), question(), free=True)
        assert not deal.keeps_place
        drain(market, client)
        with pytest.raises(KeyError):
            async with client.peer.answer(deal, question()):
                raise KeyError("the reader's own fault")
        assert "given_back" not in seller.diary.kinds()
