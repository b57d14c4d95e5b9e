"""The same market over real libp2p on loopback, with books whose commits run in threads and the true clock."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from market import MODEL, PRICES, RICH_NANO, question
from town import Town, open_town

from chain.channel import State
from inference.engine import Delta
from inference.nursery import open_background
from inference.script import answer as script
from inference.scripted import Scripted
from p2p.errors import Refused, Unavailable
from p2p.protocol import session

pytestmark = pytest.mark.slow


async def settled(town: Town, nano: int) -> None:
    """The provider settles after it has answered, and tells nobody."""
    while town.book.channels()[0].settled_nano < nano:  # noqa: ASYNC110
        await trio.sleep(0.01)


async def test_an_answer_is_bought_and_its_channel_closed(tmp_path: Path) -> None:
    request = question("why " * 1000, max_tokens=60)
    expected = "".join(item.text for item in script(request) if isinstance(item, Delta))
    async with open_town(tmp_path) as town, town.provider(Scripted(tokens_per_s=400)), town.client() as client:
        deal = await client.agree(await client.find(MODEL), request)
        assert deal.quote.prices == PRICES.scaled(90, 100)
        async with client.answer(deal, request) as answer:
            assert "".join([piece async for piece in answer]) == expected
        assert answer.receipt is not None
        await settled(town, answer.authorised_nano)
        transaction = await client.close_channel(answer.channel)
        assert transaction.op == "close_by_release"
        (known,) = await client.channels()
        assert (known.state, known.settled_nano) == (State.CLOSED, answer.receipt.session_total_nano)
        assert town.chain.balance("seller") < RICH_NANO, "fees"
        assert town.engine.capacity().free == 4


async def test_a_reader_who_leaves_and_one_who_is_slow(tmp_path: Path) -> None:
    request = question(max_tokens=200)
    async with open_town(tmp_path) as town, town.provider(Scripted(slots=1, tokens_per_s=200)), town.client() as client:
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            async for _ in answer:
                break
        assert answer.receipt is not None
        assert answer.receipt.reason == "cancelled"
        assert answer.receipt.tokens.output < 100
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            async for _ in answer:
                await trio.sleep(0.01)
        assert answer.completion_tokens == 200
        assert town.engine.capacity().free == 1


async def test_the_provider_says_why_before_it_hangs_up(tmp_path: Path) -> None:
    async with open_town(tmp_path) as town, town.provider(Scripted(fail_after=0)), town.client() as client:
        async with client.answer(await client.agree(await client.find(MODEL), question()), question()) as answer:
            with pytest.raises(Refused) as caught:
                await anext(answer)
        assert caught.value.reason == "engine_failed"


async def test_a_provider_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    request = question(max_tokens=100)
    async with open_town(tmp_path) as town, town.client() as client, open_background() as background:
        going, gone = trio.CancelScope(), trio.Event()
        await background.start(until_cancelled, town, Scripted(tokens_per_s=20), going, gone)
        async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
            await anext(answer)
            going.cancel()
            with pytest.raises(Unavailable) as caught:
                await read(answer)
        client.give_up(answer.deal.provider, caught.value)
        (known,) = await client.channels()
        assert 0 < known.delivered_nano <= known.authorised_nano
        await gone.wait()
        async with town.provider(Scripted(tokens_per_s=400)):
            async with client.answer(await client.agree(await client.find(MODEL), request), request) as answer:
                await read(answer)
            assert town.book.channels()[0].delivered_nano == answer.delivered_nano


async def until_cancelled(
    town: Town, scripted: Scripted, scope: trio.CancelScope, gone: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
    with scope:
        async with town.provider(scripted):
            task_status.started()
            await trio.sleep_forever()
    gone.set()


async def read(answer: object) -> None:
    async for _ in answer:  # type: ignore[attr-defined]
        pass


async def test_garbage_over_a_real_stream_costs_the_stream(tmp_path: Path) -> None:
    async with open_town(tmp_path) as town, town.provider() as host, town.client() as client:
        for garbage in (b"\x05hello", b"\xff\xff\xff\xff"):
            stream = await client._host.open(host.peer, session.PROTOCOL)
            await stream.write(garbage)
            with pytest.raises(Unavailable):
                await stream.read(1)
        async with client.chat(question().messages, model=MODEL, max_tokens=10) as answer:
            await read(answer)
        assert answer.completion_tokens == 10
