"""Books that come from a backup: old channels carry no more answers, and all that is due is still paid."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio
from market import CHALLENGE_PERIOD_S, DEAR, MODEL, NETWORK, Market, open_market, question
from trio.testing import MockClock

from chain.book import Book
from chain.channel import State
from chain.records import Role
from p2p.answer import Answer
from p2p.errors import Refused, RemoteError

WINDOW_NANO = 1_000_000


def save(folder: Path, name: str) -> None:
    shutil.copy(folder / f"{name}.sqlite", folder / f"{name}.saved")


def restore(folder: Path, name: str, role: Role) -> None:
    """Its book as it was when it was saved."""
    (folder / f"{name}.saved").replace(folder / f"{name}.sqlite")
    with Book(folder / f"{name}.sqlite", role, NETWORK) as book:
        book.mark_restored()


async def asked(market: Market) -> Answer:
    """One question of a client who comes, asks and goes."""
    client = await market.customer()
    try:
        async with client.peer.chat(question().messages, model=MODEL, max_tokens=40) as answer:
            async for _ in answer:
                pass
        return answer
    finally:
        await market.kill(client)


async def test_a_client_that_forgot_what_it_signed_signs_no_more_there_and_gets_no_more_than_its_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(prices=DEAR)
        channel = (await asked(market)).channel
        save(tmp_path, "client")
        assert (await asked(market)).channel == channel
        (due,) = seller.book.channels()
        restore(tmp_path, "client", "payer")
        another = (await asked(market)).channel
        assert another != channel
        client = await market.customer()
        with pytest.raises(RemoteError, match="more than was authorised"):
            await client.peer.close_channel(channel)
        await client.peer.start_close(channel)
        await trio.sleep(CHALLENGE_PERIOD_S + 1)
        await client.peer.finalise(channel)
        states = {known.channel: known.state for known in client.book.channels()}
        assert states == {channel: State.CLOSED, another: State.OPEN}
        assert seller.book.channel(channel).settled_nano == due.authorised_nano > 0


async def test_a_provider_that_forgot_what_it_was_promised_serves_no_more_there_and_is_paid_in_full(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller()
        channel = (await asked(market)).channel
        await market.kill(seller)
        save(tmp_path, "provider")
        seller = await market.seller()
        assert (await asked(market)).channel == channel
        (due,) = seller.book.channels()
        await market.kill(seller)
        restore(tmp_path, "provider", "payee")
        seller = await market.seller()
        assert seller.book.channel(channel).authorised_nano < due.authorised_nano
        with pytest.raises(Refused, match="comes from a backup"):
            await asked(market)
        client = await market.customer()
        await client.peer.close_channel(channel)
        settled_nano = client.book.channel(channel).settled_nano
        # In full: also the voucher that came with the question which was refused, and which is small.
        assert 0 <= settled_nano - due.authorised_nano < WINDOW_NANO
        await market.kill(client)
        assert (await asked(market)).channel != channel
