"""The client's channels: opened within the budget, used again, closed together or alone, found again after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from market import CHALLENGE_PERIOD_S, DEPOSIT_NANO, MODEL, Customer, open_market, question, signer
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.channel import State
from chain.errors import ChainError, LedgerUnavailable, LimitReached
from chain.ledger import ChannelTerms, Ledger, Transaction
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, sign_claim
from p2p.errors import LocalError, PaymentError, Refused, RemoteError, Unavailable
from p2p.funding import CHALLENGE_PERIOD_MAX_S, OPEN_WITHIN_S
from p2p.host import Stream
from p2p.payers import Payers
from p2p.protocol import release
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.release import CloseRequest, Released
from p2p.stream import MessageStream


class Flaky:
    """A ledger that takes its time, and does what it is asked but says that it failed, as a lost connection does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.error: ChainError | None = None
        self.top_up_error: ChainError | None = None
        self.opening_takes_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def open(self, terms: ChannelTerms, deposit_nano: int) -> Transaction:
        await trio.sleep(self.opening_takes_s)
        return self._done(await self._ledger.open(terms, deposit_nano))

    async def top_up(self, channel: bytes, amount_nano: int) -> Transaction:
        if self.top_up_error is not None:
            raise self.top_up_error
        return self._done(await self._ledger.top_up(channel, amount_nano))

    async def close_by_release(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        return self._done(await self._ledger.close_by_release(channel, amount_nano, signature))

    async def start_close(self, channel: bytes) -> Transaction:
        return self._done(await self._ledger.start_close(channel))

    def _done(self, transaction: Transaction) -> Transaction:
        if self.error is not None:
            raise self.error
        return transaction


def offer(**changes: object) -> ChannelOffer:
    """The terms of a provider that does not run."""
    plain = ChannelOffer(
        payee="0:" + "bb" * 32,
        payee_key=signer("provider", "payee").public_key,
        deposit_min_nano=DEPOSIT_NANO,
        challenge_period_s=CHALLENGE_PERIOD_S,
    )
    return msgspec.structs.replace(plain, **changes)


def payers(client: Customer) -> Payers:
    return client.peer._payers


async def lease_once(
    client: Customer, provider: str = "p", cost_max_nano: int = 1, terms: ChannelOffer | None = None
) -> bytes:
    async with payers(client).lease(provider, terms or offer(), cost_max_nano) as payer:
        return payer.channel


async def spend_all(client: Customer) -> bytes:
    """A channel on which everything is signed away."""
    async with payers(client).lease("p", offer(), 1) as payer:
        await client.keeper.do(lambda book: book.save_claim(payer.authorise(DEPOSIT_NANO)))
    return payer.channel


async def buy(client: Customer) -> bytes:
    deal = await client.peer.agree(await client.peer.find(MODEL), question())
    async with client.peer.answer(deal, question()) as answer:
        async for _ in answer:
            pass
    await wait_all_tasks_blocked()
    return answer.channel


async def test_a_channel_is_opened_once_and_used_while_it_covers_the_cost(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        first = await lease_once(client)
        assert await lease_once(client, cost_max_nano=DEPOSIT_NANO) == first
        (known,) = client.book.channels()
        assert (known.state, known.deposited_nano, known.peer) == (State.OPEN, DEPOSIT_NANO, "p")
        async with payers(client).lease("p", offer(), 1) as payer:
            assert await lease_once(client, cost_max_nano=DEPOSIT_NANO - 1) == first, "several answers at a time"
            assert await lease_once(client, cost_max_nano=DEPOSIT_NANO) != first, "what runs may cost the rest"
            await client.keeper.do(lambda book: book.save_claim(payer.authorise(DEPOSIT_NANO - 10)))
        assert await lease_once(client, cost_max_nano=10) == first
        assert await lease_once(client, cost_max_nano=11) != first
        assert client.book.channel(first).deposited_nano == DEPOSIT_NANO


async def test_a_channel_that_is_used_up_is_topped_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await buy(client)
        before = client.book.channel(channel).authorised_nano
        terms = (await client.peer.find(MODEL))[0].advert.channel
        assert await lease_once(client, seller.peer, DEPOSIT_NANO - before + 1, terms) == channel
        assert client.book.channel(channel).deposited_nano == 2 * DEPOSIT_NANO
        assert client.diary.of("topped_up")[0]["deposited_nano"] == 2 * DEPOSIT_NANO
        assert await buy(client) == channel
        await client.peer.close_channel(channel)
        assert [one.op for one in market.chain.transactions(channel)] == ["open", "top_up", "close_by_release"]


async def test_a_channel_that_may_hold_no_more_is_left_for_another(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer(ledger=Flaky)
        assert isinstance(client.ledger, Flaky)
        first = await spend_all(client)
        client.ledger.top_up_error = LimitReached("a channel may hold no more")
        assert await lease_once(client) != first
        assert not client.keeper.leases.held(first)
        assert client.book.channel(first).deposited_nano == DEPOSIT_NANO


async def test_a_top_up_that_was_not_confirmed_is_found_after_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer(ledger=Flaky)
        assert isinstance(client.ledger, Flaky)
        first = await spend_all(client)
        client.ledger.error = LedgerUnavailable("sent and not confirmed")
        with pytest.raises(Unavailable, match="not confirmed"):
            await lease_once(client)
        assert not client.keeper.leases.held(first)
        await market.kill(client)
        client = await market.customer()
        assert client.book.channel(first).deposited_nano == 2 * DEPOSIT_NANO
        assert await lease_once(client) == first


@pytest.mark.parametrize(
    ("provider", "changes"),
    [("q", {}), ("p", {"payee": "0:" + "cc" * 32}), ("p", {"payee_key": bytes(32)})],
)
async def test_a_channel_is_for_one_provider_and_its_keys(
    tmp_path: Path, autojump_clock: MockClock, provider: str, changes: dict[str, object]
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        assert await lease_once(client) != await lease_once(client, provider, terms=offer(**changes))


async def test_channels_that_are_opened_together_keep_to_the_limit(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer(ledger=Flaky)
        assert isinstance(client.ledger, Flaky)
        client.ledger.opening_takes_s = 5
        failures = []

        async def one(number: int) -> None:
            try:
                await lease_once(client, f"provider-{number}")
            except PaymentError as error:
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
        assert len(client.book.channels()) == 3
        assert len(failures) == 3
        assert "close one" in failures[0]
        assert len(await payers(client).providers()) == 3


@pytest.mark.parametrize(
    ("changes", "cost_max_nano", "match"),
    [
        ({"deposit_min_nano": DEPOSIT_NANO + 1}, 1, "deposit"),
        ({}, DEPOSIT_NANO + 1, "may cost"),
        ({"challenge_period_s": CHALLENGE_PERIOD_MAX_S + 1}, 1, "hold the deposit"),
    ],
)
async def test_a_provider_cannot_make_us_lock_up_more_or_longer_than_we_will(
    tmp_path: Path, autojump_clock: MockClock, changes: dict[str, object], cost_max_nano: int, match: str
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        with pytest.raises(PaymentError, match=match):
            await lease_once(client, cost_max_nano=cost_max_nano, terms=offer(**changes))
        assert client.book.channels() == []


async def test_a_wallet_without_money_is_a_payment_error(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        address = client.ledger.wallet.address
        market.chain.transfer(address, "0:" + "ff" * 32, market.chain.balance(address) - 90_000_000)
        with pytest.raises(PaymentError, match="wallet holds"):
            await lease_once(client)
        assert client.book.channels()[0].state is State.UNFUNDED


async def test_a_channel_whose_opening_was_not_confirmed_is_found_after_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer(ledger=Flaky)
        assert isinstance(client.ledger, Flaky)
        client.ledger.error = LedgerUnavailable("sent and not confirmed")
        with pytest.raises(Unavailable, match="not confirmed"):
            await lease_once(client)
        await market.kill(client)
        client = await market.customer()
        (known,) = client.book.channels()
        assert (known.state, known.deposited_nano) == (State.OPEN, DEPOSIT_NANO)
        assert await lease_once(client) == known.channel


async def test_a_channel_that_was_never_opened_is_forgotten_once_it_cannot_be_any_more(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        terms = ChannelTerms(
            payer=client.ledger.wallet.address,
            payee="0:" + "bb" * 32,
            payer_key=bytes(32),
            payee_key=bytes(32),
            challenge_period_s=60,
            open_before=await client.ledger.now() + OPEN_WITHIN_S,
            salt=bytes(32),
        )
        client.book.add_channel(market.chain.channel_id(terms), terms, "p")
        for wait_s, state in ((0, State.UNFUNDED), (OPEN_WITHIN_S + 1, State.CLOSED)):
            await trio.sleep(wait_s)
            await market.kill(client)
            client = await market.customer()
            assert client.book.channels()[0].state is state
            assert not await client.peer.can_pay()


async def test_what_happened_on_chain_while_we_were_away_is_taken_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(settle_at_nano=1), await market.customer()
        channel = await buy(client)
        await market.kill(client)
        market.chain.start_close(client.ledger.wallet.address, channel)
        client = await market.customer()
        (known,) = client.book.channels()
        assert (known.state, known.settled_nano) == (State.CLOSING, known.authorised_nano)
        assert not await client.peer.can_pay()
        market.chain.close_by_payee(seller.ledger.wallet.address, channel, None)
        await market.kill(client)
        client = await market.customer()
        assert client.book.channels()[0].state is State.CLOSED


async def test_a_channel_is_not_closed_while_it_pays_nor_used_while_it_is_closed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        channel = await buy(client)
        with client.peer._closing._alone(channel):
            with pytest.raises(LocalError, match="wait"):
                await client.peer.close_channel(channel)
            with pytest.raises(LocalError, match="wait"):
                await client.peer.start_close(channel)
        await client.peer.close_channel(channel)


async def test_closing_goes_on_where_it_was_broken_off(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await buy(client)
        (known,) = client.book.channels()
        claim = sign_claim(signer("provider", "payee"), RELEASE_TAG, -239, channel, known.authorised_nano)
        client.book.save_released(channel, claim.amount_nano, claim.signature)
        await market.kill(seller)
        await market.kill(client)
        client = await market.customer()
        assert not await client.peer.can_pay(), "a released channel signs nothing"
        transaction = await client.peer.close_channel(channel)
        assert transaction.op == "close_by_release"
        assert client.book.channels()[0].settled_nano == known.authorised_nano


async def test_a_close_that_was_not_confirmed_leaves_no_channel_to_pay_through(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer(ledger=Flaky)
        assert isinstance(client.ledger, Flaky)
        channel = await buy(client)
        client.ledger.error = LedgerUnavailable("sent and not confirmed")
        with pytest.raises(Unavailable):
            await client.peer.close_channel(channel)
        client.ledger.error = None
        assert not await client.peer.can_pay()
        assert await buy(client) != channel
        await market.kill(client)
        client = await market.customer()
        assert [one.state for one in client.book.channels()] == [State.CLOSED, State.OPEN]


async def test_a_channel_is_closed_alone_when_the_provider_is_gone(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await buy(client)
        await market.kill(seller)
        with pytest.raises(Unavailable):
            await client.peer.close_channel(channel)
        assert await payers(client).providers() == {seller.peer}
        await client.peer.start_close(channel)
        assert await payers(client).providers() == frozenset()
        with pytest.raises(PaymentError, match="exit code"):
            await client.peer.finalise(channel)
        await trio.sleep(CHALLENGE_PERIOD_S)
        await client.peer.finalise(channel)
        assert client.book.channels()[0].state is State.CLOSED


async def test_an_unused_channel_and_an_unknown_one_are_not_closed_together(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await lease_once(client, seller.peer)
        with pytest.raises(Refused) as caught:
            await client.peer.close_channel(channel)
        assert caught.value.reason == "unknown_channel"
        with pytest.raises(PaymentError):
            await client.peer.close_channel(bytes(32))


def lies(channel: bytes, authorised: int) -> dict[str, Released]:
    key = signer("provider", "payee")

    def released(tag: int, named: bytes, signed: bytes, amount: int) -> Released:
        claim = sign_claim(key, tag, -239, signed, amount)
        return Released(channel=named, amount_nano=amount, signature=claim.signature)

    return {
        "more than was authorised": released(RELEASE_TAG, channel, channel, authorised + 1),
        "another channel": released(RELEASE_TAG, bytes(32), bytes(32), 0),
        "signed for another channel": released(RELEASE_TAG, channel, bytes(32), 0),
        "a voucher": released(VOUCHER_TAG, channel, channel, 0),
    }


@pytest.mark.parametrize("lie", list(lies(bytes(32), 0)))
async def test_a_bad_release_is_not_kept(tmp_path: Path, autojump_clock: MockClock, lie: str) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await buy(client)

        async def lying(stream: Stream) -> None:
            messages = MessageStream[CloseRequest](stream, CloseRequest)
            request = await messages.answer()
            await messages.send(lies(channel, request.amount_nano)[lie])

        seller.host.serve(release.PROTOCOL, lying)
        with pytest.raises(RemoteError, match="bad_release"):
            await client.peer.close_channel(channel)
        (known,) = client.book.channels()
        assert known.released_nano is None
        assert await client.peer.can_pay()


async def test_a_close_waits_for_a_provider_that_has_not_heard_of_the_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        channel = await buy(client)
        incoming = seller.provider._payees.get(channel)
        assert incoming is not None
        incoming.enter()

        async def end() -> None:
            await trio.sleep(1.5)
            incoming.leave()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            began = trio.current_time()
            await client.peer.close_channel(channel)
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
        assert client.book.channel(channel).state is State.CLOSED
