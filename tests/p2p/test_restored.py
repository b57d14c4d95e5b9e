"""Books that come from a backup: old channels carry no more answers, and all that is due is still paid."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from by_hand import agree
from market import (
    CHALLENGE_PERIOD_S,
    DEAR,
    DEPOSIT_NANO,
    MODEL,
    NETWORK,
    Customer,
    Market,
    Seller,
    clock,
    open_market,
    question,
    signer,
)
from trio.testing import MockClock

from chain.book import Book
from chain.channel import State
from chain.errors import ChainError, ChannelUnusable, InsufficientFunds, LedgerUnavailable
from chain.ledger import Ledger, Transaction
from chain.records import Channel, Role
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, sign_claim
from p2p.answer import Answer
from p2p.errors import Refused, RemoteError
from p2p.host import Stream
from p2p.protocol import release
from p2p.protocol.release import CloseRequest, Released
from p2p.stream import MessageStream

WINDOW_NANO = 1_000_000
LOOK_S = 61
WAIT_S = 1000


class Troubled:
    """A ledger that raises, or sees nothing, where it is told to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.troubles: dict[str, ChainError | None] = {}

    def __getattr__(self, name: str) -> Any:
        async def trouble(*_: object) -> None:
            error = self.troubles[name]
            if error is not None:
                raise error

        return trouble if name in self.troubles else getattr(self._ledger, name)


class Unheard:
    """A ledger that closes a channel and does not come to know it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def close_by_payee(self, channel: bytes, claim: tuple[int, bytes] | None) -> Transaction:
        await self._ledger.close_by_payee(channel, claim)
        raise LedgerUnavailable("sent, and not seen")


def troubled(**troubles: ChainError | None) -> Callable[[Ledger], Ledger]:
    """What makes a ledger like that."""

    def wrap(ledger: Ledger) -> Ledger:
        wrapped = Troubled(ledger)
        wrapped.troubles |= troubles
        return wrapped

    return wrap


def save(folder: Path, name: str) -> None:
    """Its book, which may be in use."""
    with closing(sqlite3.connect(folder / f"{name}.sqlite")) as db:
        (folder / f"{name}.saved").write_bytes(db.serialize())


def restore(folder: Path, name: str, role: Role) -> None:
    """Its book as it was when it was saved."""
    for file in folder.glob(f"{name}.sqlite-*"):
        file.unlink()
    (folder / f"{name}.saved").replace(folder / f"{name}.sqlite")
    with Book(folder / f"{name}.sqlite", role, NETWORK) as book:
        book.retire_all(int(clock()))


def state_of(folder: Path, name: str, channel: bytes) -> State:
    """As its book has it, which nobody uses at the moment."""
    with Book(folder / f"{name}.sqlite", "payer", NETWORK) as book:
        return book.channel(channel).state


async def forgetful(market: Market, folder: Path) -> tuple[bytes, Channel]:
    """A channel of a provider that went, and came back with a book of before its last answer; and what it forgot."""
    seller = await market.seller()
    channel = (await asked(market)).channel
    save(folder, "provider")
    assert (await asked(market)).channel == channel
    (due,) = seller.book.channels()
    await market.kill(seller)
    restore(folder, "provider", "payee")
    return channel, due


async def ask(client: Customer) -> Answer:
    async with client.peer.chat(question().messages, model=MODEL, max_tokens=40) as answer:
        async for _ in answer:
            pass
    return answer.parts[-1]


async def asked(market: Market) -> Answer:
    """One question of a client who comes, asks and goes."""
    client = await market.customer()
    try:
        return await ask(client)
    finally:
        await market.kill(client)


async def forgotten(market: Market, folder: Path) -> tuple[Seller, bytes, Channel]:
    """A channel of a client that came back with a book of before its last answer; and what it has really signed."""
    seller = await market.seller(prices=DEAR)
    channel = (await asked(market)).channel
    save(folder, "client")
    assert (await asked(market)).channel == channel
    (due,) = seller.book.channels()
    restore(folder, "client", "payer")
    return seller, channel, due


async def test_a_restored_client_signs_no_more_on_its_old_channel_and_opens_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        _, channel, due = await forgotten(market, tmp_path)
        assert (await asked(market)).channel != channel
        client = await market.customer()
        assert client.book.channel(channel).authorised_nano < due.authorised_nano
        assert (await ask(client)).channel != channel
        with pytest.raises(ChannelUnusable):
            client.book.save_claim(Claim(channel, due.authorised_nano + 1, bytes(64)))


async def test_a_restored_client_closes_together_at_what_it_is_shown_to_have_signed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        _, channel, due = await forgotten(market, tmp_path)
        client = await market.customer()
        await client.peer.close_channel(channel)
        closed = client.book.channel(channel)
        assert (closed.state, closed.settled_nano, closed.claim) == (State.CLOSED, due.authorised_nano, due.claim)


@pytest.mark.parametrize("more_nano", [0, 1, DEPOSIT_NANO])
async def test_a_restored_client_does_not_believe_what_it_did_not_sign(
    tmp_path: Path, autojump_clock: MockClock, more_nano: int
) -> None:
    """A provider that wants more than it has a voucher for, or shows one that it made itself, gets no signature."""
    async with open_market(tmp_path) as market:
        seller, channel, due = await forgotten(market, tmp_path)
        payee = signer("provider", "payee")

        async def lying(stream: Stream) -> None:
            messages = MessageStream[CloseRequest](stream, CloseRequest)
            await messages.answer()
            wanted_nano = due.authorised_nano + more_nano
            wanted = sign_claim(payee, RELEASE_TAG, NETWORK.global_id, channel, wanted_nano)
            made_up = sign_claim(payee, VOUCHER_TAG, NETWORK.global_id, channel, wanted_nano)
            await messages.send(
                Released(
                    channel=channel,
                    amount_nano=wanted_nano,
                    signature=wanted.signature,
                    voucher_nano=wanted_nano,
                    voucher_signature=due.signature if more_nano else made_up.signature,
                )
            )

        seller.host.serve(release.PROTOCOL, lying)
        client = await market.customer()
        with pytest.raises(RemoteError, match="more than was authorised"):
            await client.peer.close_channel(channel)
        assert client.book.channel(channel).released_nano is None


async def test_a_restored_client_closes_alone_and_gets_no_more_than_its_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, channel, due = await forgotten(market, tmp_path)
        client = await market.customer()
        await client.peer.start_close(channel)
        await trio.sleep(CHALLENGE_PERIOD_S + 1)
        await client.peer.finalise(channel)
        assert client.book.channel(channel).state is State.CLOSED
        assert seller.book.channel(channel).settled_nano == due.authorised_nano > 0


async def test_a_client_that_stays_goes_on_with_another_channel_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It is refused once by a provider that forgot, and does not wait for the channel to be closed."""
    async with open_market(tmp_path) as market:
        channel, due = await forgetful(market, tmp_path)
        seller = await market.seller()
        client = await market.customer()
        with pytest.raises(Refused) as caught:
            await ask(client)
        assert caught.value.reason == "channel_retired"
        assert client.book.channel(channel).retired
        assert (await ask(client)).channel != channel
        assert market.chain.channel(channel) is not None, "it goes on before that is closed"
        assert client.diary.of("retired")[0]["channel"] == channel.hex()
        await trio.sleep(LOOK_S)
        assert market.chain.channel(channel) is None
        assert seller.book.channel(channel).settled_nano > due.authorised_nano


async def test_answers_that_are_begun_while_another_is_paid_on_a_retired_channel_get_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        quote = (await agree(client, question())).quote
        payers = client.peer._payers
        async with payers.lease(quote.provider, quote.channel, quote.worst_cost_nano) as payer:
            await payers.heed(payer.channel, Refused("busy"), 0)
            async with payers.lease(quote.provider, quote.channel, quote.worst_cost_nano) as same:
                assert same is payer
            await payers.heed(payer.channel, Refused("channel_retired"), 0)
            async with payers.lease(quote.provider, quote.channel, quote.worst_cost_nano) as other:
                assert other.channel != payer.channel


async def test_a_client_that_stays_drops_a_channel_that_its_provider_closed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = (await ask(client)).channel
        await seller.ledger.close_by_payee(channel, None)
        with pytest.raises(Refused, match="no such channel"):
            await ask(client)
        assert client.book.channel(channel).state is State.CLOSED
        assert (await ask(client)).channel != channel


async def test_a_channel_that_only_the_provider_cannot_see_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Its lite-server may be a block behind: no reason to lock up another deposit."""
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(ledger=troubled(channel=None)), await market.customer()
        with pytest.raises(Refused, match="no such channel"):
            await ask(client)
        seller.ledger.troubles.clear()  # type: ignore[attr-defined]
        (known,) = client.book.channels()
        assert (await ask(client)).channel == known.channel


async def test_what_a_refusal_means_is_found_out_later_if_the_chain_is_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, _ = await forgetful(market, tmp_path)
        await market.seller()
        client = await market.customer(ledger=troubled(channel=LedgerUnavailable("no lite-server answered")))
        with pytest.raises(Refused):
            await ask(client)
        assert "no lite-server" in client.diary.of("look_failed")[0]["why"]
        assert client.book.channel(channel).retired


async def test_a_restored_provider_settles_at_once_what_its_book_knows(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(prices=DEAR)
        channel = (await asked(market)).channel
        (saved,) = seller.book.channels()
        await market.kill(seller)
        save(tmp_path, "provider")
        restore(tmp_path, "provider", "payee")
        assert saved.settled_nano == 0, "nothing else would be reason to"
        seller = await market.seller(prices=DEAR)
        await trio.sleep(1)
        assert seller.diary.of("settled")[0]["why"] == "our book of the channel is incomplete"
        assert seller.book.channel(channel).settled_nano == saved.authorised_nano
        assert seller.book.channel(channel).state is State.OPEN, "the client may have more"


async def test_a_restored_provider_takes_the_voucher_of_the_next_question_serves_nothing_and_closes_with_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, due = await forgetful(market, tmp_path)
        seller = await market.seller()
        assert seller.book.channel(channel).authorised_nano < due.authorised_nano
        with pytest.raises(Refused, match="incomplete, so the channel is being closed"):
            await asked(market)
        shown_nano = seller.book.channel(channel).authorised_nano
        # In full: also the voucher that came with the question which was refused, and which is small.
        assert 0 <= shown_nano - due.authorised_nano < WINDOW_NANO
        await trio.sleep(LOOK_S)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "close_by_payee"]
        closed = seller.book.channel(channel)
        assert (closed.state, closed.settled_nano) == (State.CLOSED, shown_nano)
        assert "served" not in seller.diary.kinds()
        assert sum(day.fee_nano for day in seller.book.fees()) == seller.diary.of("closed_alone")[0]["fee_nano"] > 0
        assert (await asked(market)).channel != channel
        assert state_of(tmp_path, "client", channel) is State.CLOSED


async def test_a_restored_provider_is_paid_in_full_by_a_client_that_asks_for_a_release(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, due = await forgetful(market, tmp_path)
        await market.seller()
        client = await market.customer()
        await client.peer.close_channel(channel)
        assert client.book.channel(channel).settled_nano == due.authorised_nano
        await market.kill(client)
        assert (await asked(market)).channel != channel


async def test_a_restored_provider_waits_for_the_client_so_long_and_closes_with_what_it_has(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, due = await forgetful(market, tmp_path)
        seller = await market.seller(retired_wait_s=WAIT_S)
        saved = seller.book.channel(channel)
        await trio.sleep(WAIT_S - LOOK_S)
        assert market.chain.channel(channel) is not None
        await trio.sleep(2 * LOOK_S)
        assert [one.op for one in market.chain.transactions(channel)][-1] == "close_by_payee"
        closed = seller.book.channel(channel)
        assert (closed.state, closed.settled_nano) == (State.CLOSED, saved.authorised_nano)
        assert closed.settled_nano < due.authorised_nano, "what it has forgotten, and was not shown, is lost"
        # The client comes late: its deposit is not locked, and it drops the channel.
        assert (await asked(market)).channel != channel
        assert state_of(tmp_path, "client", channel) is State.CLOSED


async def test_a_restored_provider_does_not_wait_where_the_whole_deposit_is_signed_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller()
        channel = (await asked(market)).channel
        whole = sign_claim(signer("client", "payer"), VOUCHER_TAG, NETWORK.global_id, channel, DEPOSIT_NANO)
        seller.book.save_claim(whole)
        await market.kill(seller)
        save(tmp_path, "provider")
        restore(tmp_path, "provider", "payee")
        seller = await market.seller()
        await trio.sleep(1)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "close_by_payee"]
        assert seller.book.channel(channel).settled_nano == DEPOSIT_NANO


async def test_a_restored_provider_drops_a_channel_that_was_closed_meanwhile(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller()
        channel = (await asked(market)).channel
        save(tmp_path, "provider")
        client = await market.customer()
        await client.peer.close_channel(channel)
        await market.kill(seller)
        restore(tmp_path, "provider", "payee")
        seller = await market.seller()
        await trio.sleep(1)
        assert seller.book.channel(channel).state is State.CLOSED
        assert list(seller.provider._payees) == []


async def test_a_restored_provider_learns_from_the_chain_what_was_settled_since(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, due = await forgetful(market, tmp_path)
        stranger = await market.customer("stranger")
        await stranger.ledger.settle(channel, due.authorised_nano, due.signature)
        seller = await market.seller(retired_wait_s=WAIT_S)
        await trio.sleep(WAIT_S + LOOK_S)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "settle", "close_by_payee"]
        assert seller.book.channel(channel).settled_nano == due.authorised_nano


async def test_a_restored_provider_that_does_not_hear_of_its_own_closing_finds_what_it_was_paid(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, _ = await forgetful(market, tmp_path)
        seller = await market.seller(retired_wait_s=0, ledger=Unheard)
        await trio.sleep(2 * LOOK_S)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "close_by_payee"]
        closed = seller.book.channel(channel)
        assert (closed.state, closed.settled_nano) == (State.CLOSED, closed.authorised_nano)
        assert closed.settled_nano > 0


async def test_a_restored_provider_releases_what_a_deposit_that_it_has_not_seen_pays_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        channel, _ = await forgetful(market, tmp_path)
        client = await market.customer()
        await client.ledger.top_up(channel, DEPOSIT_NANO)
        more = sign_claim(signer("client", "payer"), VOUCHER_TAG, NETWORK.global_id, channel, DEPOSIT_NANO + 10)
        client.book.save_claim(more)
        seller = await market.seller(ledger=troubled(channel=LedgerUnavailable("no lite-server answered")))
        await trio.sleep(1)
        seller.ledger.troubles.clear()  # type: ignore[attr-defined]
        await client.peer.close_channel(channel)
        assert client.book.channel(channel).settled_nano == more.amount_nano


async def test_a_closing_that_fails_is_told_and_tried_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        channel, _ = await forgetful(market, tmp_path)
        seller = await market.seller(
            retired_wait_s=0, ledger=troubled(close_by_payee=InsufficientFunds("no money for fees"))
        )
        await trio.sleep(LOOK_S)
        assert {failed["why"] for failed in seller.diary.of("settle_failed")} == {"no money for fees"}
        assert seller.book.channel(channel).state is State.OPEN
        seller.ledger.troubles.clear()  # type: ignore[attr-defined]
        await trio.sleep(LOOK_S)
        assert seller.book.channel(channel).state is State.CLOSED


async def test_what_the_chain_refuses_to_close_is_not_carried_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        channel, _ = await forgetful(market, tmp_path)
        with Book(tmp_path / "provider.sqlite", "payee", NETWORK) as book:
            known = book.channel(channel)
            book.save_claim(Claim(channel, known.authorised_nano + 1, bytes(64)))
        await market.seller(retired_wait_s=0)
        await trio.sleep(10 * LOOK_S)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "close_by_payee"]
        assert market.chain.channel(channel) is not None


async def test_a_provider_without_its_book_does_not_believe_that_all_was_paid_for_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A channel that its book, or its backup, does not know: what was paid there before buys nothing again."""
    async with open_market(tmp_path) as market:
        seller = await market.seller(prices=DEAR)
        channel = (await asked(market)).channel
        (due,) = seller.book.channels()
        await market.kill(seller)
        market.lose_book(seller)
        seller = await market.seller(prices=DEAR)
        with pytest.raises(Refused, match="incomplete"):
            await asked(market)
        await trio.sleep(LOOK_S)
        closed = seller.book.channel(channel)
        assert closed.state is State.CLOSED
        assert 0 <= closed.settled_nano - due.authorised_nano < WINDOW_NANO
        assert (await asked(market)).channel != channel
