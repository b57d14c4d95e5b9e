"""What a provider does about clients that do not pay, do not read, do not speak, or ask for what was not agreed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio
from by_hand import ByHand, agree, by_hand
from market import DEPOSIT_NANO, PRICES, Customer, open_market, question, signer
from trio.testing import MockClock, wait_all_tasks_blocked

from chain.voucher import VOUCHER_TAG, sign_claim
from inference.engine import Delta, Finished, Request
from inference.scripted import SCRIPTED_MODEL, Scripted, ScriptedEngine
from p2p.budget import Budget
from p2p.errors import Refused, Unavailable
from p2p.protocol import session
from p2p.protocol.negotiate import QUOTE_LIFETIME_S, Refusal
from p2p.protocol.places import HOLD_S
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.session import (
    PAYMENT_PATIENCE_S,
    SESSIONS_PER_CHANNEL_MAX,
    SILENCE_S,
    Begun,
    End,
    Heartbeat,
    Pause,
    Payment,
    Start,
    ToClient,
)
from p2p.protocol.strategy import TakeIt
from p2p.protocol.wire import encode
from p2p.serving import MAX_PIECE_TOKENS, Pieces
from p2p.session_shell import STALL_TIMEOUT_S
from p2p.stream import MessageStream

LONG = "why " * 2000


async def until_it_ends(session_: ByHand) -> None:
    """Raises `Unavailable` where the provider abandoned the session."""
    while await session_.messages.receive() is not None:
        pass


async def refusal(session_: ByHand, **changes: object) -> str:
    await session_.start(**changes)
    answer = await session_.messages.answer()
    assert isinstance(answer, Refusal), answer
    return answer.reason


async def abandoned(session_: ByHand, **changes: object) -> None:
    await session_.start(**changes)
    with pytest.raises(Unavailable):
        await until_it_ends(session_)


async def test_a_client_that_does_not_pay_is_waited_for_and_then_served_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(tokens_per_s=1000)), await market.customer()
        async with by_hand(client, question(max_tokens=200)) as one:
            await one.start()
            await one.hear(Begun)
            one.mute = True
            pause = await one.hear(Pause)
            assert pause.due_nano == one.payer.delivered_nano
            produced = one.core.tokens.output
            window, token = one.core._quote.window_nano, cost_nano(one.core._quote.prices, Tokens(output=1))
            (payee,) = (incoming.payee for incoming in seller.provider._payees)
            assert window - token < payee.unpaid_nano <= window
            with trio.move_on_after(PAYMENT_PATIENCE_S / 2):
                while True:
                    assert isinstance(await one.obey(), Heartbeat)
                    await one.messages.send(Heartbeat())
            assert one.core.tokens.output == produced
            await one.speak()
            await one.hear(End)
        assert one.core.tokens.output == 200
        assert seller.book.channels()[0].authorised_nano == one.payer.authorised_nano


async def test_a_client_that_never_pays_costs_one_window_and_its_session(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1, tokens_per_s=1000)), await market.customer()
        async with by_hand(client, question(max_tokens=200)) as one:
            await one.start()
            one.mute = True
            await one.hear(Pause)
            assert seller.engine.capacity().free == 0

            async def keep_alive() -> None:
                with suppress(Unavailable):
                    while True:
                        await one.messages.send(Heartbeat())
                        await trio.sleep(SILENCE_S / 4)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive)
                started = trio.current_time()
                with pytest.raises(Unavailable):
                    await until_it_ends(one)
                nursery.cancel_scope.cancel()
            assert trio.current_time() - started == pytest.approx(PAYMENT_PATIENCE_S, abs=1)
        await wait_all_tasks_blocked()
        assert seller.engine.capacity().free == 1
        (channel,) = seller.book.channels()
        assert channel.delivered_nano == channel.authorised_nano, "the rest is written off"
        async with by_hand(client) as two:
            await two.start()
            await two.hear(End)


async def test_a_client_that_does_not_read_cannot_hold_the_engine_by_its_heartbeats(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        engine = Chatty()
        seller = await market.seller(engine=engine, prices=msgspec.structs.replace(PRICES, input=0, output=0))
        client = await market.customer()
        async with by_hand(client, question(max_tokens=8000)) as one:
            await one.start()

            async def keep_alive() -> None:
                with suppress(Unavailable):
                    while True:
                        await one.messages.send(Heartbeat())
                        await trio.sleep(SILENCE_S / 4)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive)
                await trio.sleep(1)
                assert engine.capacity().free == 0
                assert engine.produced < 1000, "the engine waits for the network"
                await trio.sleep(STALL_TIMEOUT_S + SILENCE_S)
                assert engine.capacity().free == 1
                nursery.cancel_scope.cancel()
            with pytest.raises(Unavailable):
                await until_it_ends(one)
        assert seller.diary.of("served") == []


class Chatty(ScriptedEngine):
    """Long tokens without end, as fast as they are taken: an engine that a slow reader must hold back."""

    def __init__(self) -> None:
        super().__init__(Scripted(slots=1))
        self.produced = 0

    @asynccontextmanager
    async def generate(self, request: Request) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        async with self._slots, aclosing(self._items()) as items:
            yield items

    async def _items(self) -> AsyncGenerator[Delta | Finished]:
        while True:
            await trio.sleep(0.001)
            self.produced += 1
            yield Delta("x" * 900, 1)


async def test_a_client_that_says_nothing_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        stream = await client.host.open(seller.peer, session.PROTOCOL)
        started = trio.current_time()
        with pytest.raises(Unavailable):
            await stream.read(1)
        assert trio.current_time() - started <= 10
        stream = await client.host.open(seller.peer, session.PROTOCOL)
        await stream.write(b"\xff")  # and one that trickles
        with pytest.raises(Unavailable):
            await stream.read(1)


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff\xff\xff\xff", b"\x05hello", b"\x01\x80"])
async def test_garbage_costs_its_stream(tmp_path: Path, autojump_clock: MockClock, garbage: bytes) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        stream = await client.host.open(seller.peer, session.PROTOCOL)
        await stream.write(garbage)
        with pytest.raises(Unavailable):
            await stream.read(1)
        async with by_hand(client, question(max_tokens=60)) as one:
            await one.start()
            await one.hear(Begun)
            await one.messages._stream.write(garbage)
            with pytest.raises(Unavailable):
                await until_it_ends(one)
        assert seller.engine.capacity().free == 4


async def test_vouchers_that_change_nothing_are_not_answered_and_buy_no_patience(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(window_cap_nano=1), await market.customer()
        async with by_hand(client, question(LONG)) as one:
            await one.start()
            one.mute = True
            await one.hear(Pause)
            claim = sign_claim(signer("client", "payer"), VOUCHER_TAG, -239, one.payer.channel, 0)
            stale = Payment(session_total_nano=0, channel_total_nano=0, signature=claim.signature)
            for _ in range(1000):
                await one.messages.send(stale)
            assert isinstance(await one.messages.receive(), Heartbeat)

            async def nag() -> None:
                with suppress(Unavailable):
                    while True:
                        await one.messages.send(stale)
                        await trio.sleep(SILENCE_S / 4)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(nag)
                with pytest.raises(Unavailable):
                    await until_it_ends(one)
                assert trio.current_time() < PAYMENT_PATIENCE_S + 1
        assert seller.engine.capacity().free == 4


async def test_a_channel_with_as_many_sessions_as_it_may_carry_is_refused_and_free_afterwards(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(tokens_per_s=1, slots=SESSIONS_PER_CHANNEL_MAX + 1))
        client = await market.customer()
        other = await agree(client, question())
        async with AsyncExitStack() as sessions:
            for _ in range(SESSIONS_PER_CHANNEL_MAX):
                one = await sessions.enter_async_context(by_hand(client))
                await one.start()
                await one.hear(Begun)
            with pytest.raises(Refused) as caught:
                await start_on(client, one, other)
            assert (caught.value.reason, caught.value.retry_after_s) == ("channel_busy", 1)
        await wait_all_tasks_blocked()
        async with by_hand(client) as two:
            await two.start()
            await two.hear(Begun)


async def start_on(client: Customer, one: ByHand, deal: object) -> None:
    """A second session on the first one's channel."""
    stream = await client.host.open(deal.provider, session.PROTOCOL)  # type: ignore[attr-defined]
    messages = MessageStream[ToClient](stream, ToClient)
    two = ByHand(one.core, messages, one.payer, client)
    claim = one.payer.authorise(0)
    await two.messages.send(
        Start(
            session=bytes(16),
            quote=deal.signed,  # type: ignore[attr-defined]
            channel=one.payer.channel,
            request=encode(question()),
            salt=bytes(16),
            payment=Payment(session_total_nano=0, channel_total_nano=claim.amount_nano, signature=claim.signature),
        )
    )
    answer = await messages.answer()
    await stream.close()
    assert isinstance(answer, Refusal)
    raise Refused(answer.reason, answer.detail, retry_after_s=answer.retry_after_s)


async def test_a_quote_is_good_once_for_its_client_and_for_a_while(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client, thief = await market.customer(), await market.customer("thief")
        deal = await agree(client, question())
        async with by_hand(thief, deal=deal) as one:
            await abandoned(one)
        async with by_hand(client, deal=deal) as one:
            await one.start()
            await one.hear(End)
        async with by_hand(client, deal=deal) as one:
            assert await refusal(one) == "quote_used"
        late = await agree(client, question())
        await trio.sleep(QUOTE_LIFETIME_S)
        async with by_hand(client, deal=late) as one:
            assert await refusal(one) == "quote_expired"
        forged = await agree(client, question())
        async with by_hand(client, deal=forged) as one:
            await abandoned(one, quote=msgspec.structs.replace(forged.signed, signature=bytes(64)))


async def test_a_request_must_be_the_one_that_was_quoted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        longer = msgspec.structs.replace(question(), max_tokens=41)
        other = msgspec.structs.replace(question(), model="Qwen/Qwen3-8B")
        for request in (longer, other, msgspec.structs.replace(question(), max_tokens=-1)):
            async with by_hand(client) as one:
                await abandoned(one, request=encode(request))
            await trio.sleep(30)
        async with by_hand(client) as one:
            assert await refusal(one, request=encode(question(LONG))) == "prompt_over_quote"
        await trio.sleep(30)
        async with by_hand(client) as one:
            assert await refusal(one, request=encode(msgspec.structs.replace(question(), messages=()))) == "bad_request"
        for request in (
            msgspec.structs.replace(question(), top_p=2.0),
            msgspec.structs.replace(question(), temperature=-1.0),
        ):
            await trio.sleep(30)
            async with by_hand(client) as one:
                await one.start(request=encode(request))
                answer = await one.messages.answer()
                while not isinstance(answer, Refusal):
                    answer = await one.messages.answer()
                assert answer.reason in {"engine_failed", "bad_request"}
        assert seller.engine.capacity().free == 4


async def test_a_channel_must_be_there_open_large_enough_and_the_clients_own(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        async with by_hand(client) as one:
            assert await refusal(one, channel=bytes(32)) == "channel_unusable"
        (channel,) = client.book.channels()
        market.chain.start_close(channel.terms.payer, channel.channel)
        async with by_hand(client) as one:
            assert await refusal(one) == "channel_unusable"


async def test_a_deposit_below_the_terms_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(deposit_min_nano=DEPOSIT_NANO)
        client = await market.customer(budget=Budget(deposit_nano=DEPOSIT_NANO, strategy=TakeIt()))
        async with by_hand(client) as one:
            await one.start()
            await one.hear(End)
        deal = await agree(client, question())
        await market.kill(seller)
        await market.seller(deposit_min_nano=DEPOSIT_NANO + 1)
        async with by_hand(client, deal=deal) as one:
            assert await refusal(one) == "channel_unusable"


async def test_a_quote_from_before_a_restart_is_good_if_the_model_is_still_there(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        kept, gone = await agree(client, question()), await agree(client, question())
        await market.kill(seller)
        seller = await market.seller()
        async with by_hand(client, deal=kept) as one:
            await one.start()
            await one.hear(End)
        await market.kill(seller)
        await market.seller(Scripted(model=msgspec.structs.replace(SCRIPTED_MODEL, id="another")))
        async with by_hand(client, deal=gone) as one:
            assert await refusal(one) == "no_such_model"


async def test_a_quote_without_a_place_is_refused_while_every_slot_is_taken(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=1, tokens_per_s=1))
        client, other = await market.customer(), await market.customer("other")
        late = await agree(other, question())
        await trio.sleep(HOLD_S)
        async with by_hand(client) as one:
            await one.start()
            await one.hear(Begun)
            await trio.sleep(1)
            async with by_hand(other, deal=late) as two:
                assert await refusal(two) == "busy"


async def test_a_session_has_its_slot_before_its_engine_has_begun(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=1), window_cap_nano=1)
        client, other = await market.customer(), await market.customer("other")
        late = await agree(other, question())
        await trio.sleep(HOLD_S)
        async with by_hand(client, question(LONG)) as one:
            await one.start()
            one.mute = True
            await one.hear(Pause)
            assert seller.engine.capacity().free == 1, "it waits to be paid"
            async with by_hand(other, deal=late) as two:
                assert await refusal(two) == "busy"
            with pytest.raises(Refused, match="every slot is in use"):
                await agree(other, question())
        await wait_all_tasks_blocked()
        async with by_hand(other) as two:
            await two.start()
            await two.hear(End)


async def test_a_stranger_takes_no_clients_channel(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Ids of channels are public on chain, and so is a payer's key."""
    async with open_market(tmp_path) as market:
        seller, client, thief = await market.seller(), await market.customer(), await market.customer("thief")
        thief.peer._agreeing._payer_key = signer("client", "payer").public_key
        stolen = await agree(thief, question())
        thief.peer._agreeing._payer_key = signer("thief", "payer").public_key
        async with by_hand(client) as one:
            channel = one.payer.channel
            forged = Payment(session_total_nano=0, channel_total_nano=0, signature=bytes(64))
            async with by_hand(thief, deal=stolen) as two:
                await abandoned(two, channel=channel, payment=forged)
            assert seller.book.channels() == [], "it is nobody's before its payer has signed"
            await one.start()
            await one.hear(End)
        thief.peer._agreeing._payer_key = signer("client", "payer").public_key
        stolen = await agree(thief, question())
        before = seller.book.channels()
        async with by_hand(thief, deal=stolen) as two:
            assert await refusal(two, channel=channel, payment=forged) == "channel_unusable"
        assert seller.book.channels() == before


async def test_pieces_are_bounded_and_ordered_and_wake_their_reader() -> None:
    pieces = Pieces()
    taken: list[tuple[str, int]] = []

    async def fill() -> None:
        for number in range(100):
            await pieces.put(Delta(f"{number} ", 1))
        pieces.end("stop")

    async def drain() -> None:
        end = None
        while end is None:
            await pieces.some()
            text, tokens, end = pieces.take()
            taken.append((text, tokens))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            nursery.start_soon(drain)
    assert "".join(text for text, _ in taken) == "".join(f"{number} " for number in range(100))
    assert max(tokens for _, tokens in taken) <= MAX_PIECE_TOKENS
    assert sum(tokens for _, tokens in taken) == 100
    with trio.fail_after(5):
        await pieces.some()
    assert pieces.take() == ("", 0, "stop")
