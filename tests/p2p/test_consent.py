"""What an answer may cost is weighed before a quote is accepted: a provider keeps a place for whoever accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from market import MODEL, NOON, PRICES, Customer, Seller, clock, open_market, question, signer
from trio.testing import MockClock

from inference.scripted import Scripted, open_scripted
from p2p.auditing import AuditBudget, Reader, open_auditor
from p2p.buying import prompt_tokens_bound
from p2p.errors import Refused
from p2p.gateway.buying import Buying
from p2p.gateway.keys import EVERYBODY, Capabilities, Key, Keys
from p2p.gateway.wishes import Wishes
from p2p.protocol.price import Prices, Tokens, cost_nano
from p2p.track_record import TrackRecord

REQUEST = question()
SLOTS = 2
DEARER = PRICES.scaled(10, 1)  # only who fails to get another takes it


async def places(client: Customer) -> list[int]:
    """That its providers have free, as they say."""
    return [one.model.slots_free for one in await client.peer.find(MODEL)]


def worst_nano(prices: Prices) -> int:
    """Of the request."""
    return cost_nano(prices, Tokens(input=prompt_tokens_bound(REQUEST), output=REQUEST.max_tokens))


class Rival:
    """Somebody who takes the last place of a provider just before we accept."""

    def __init__(self, customer: Customer, seller: Seller) -> None:
        self._customer = customer
        self._seller = seller
        self._done = False

    async def __call__(self) -> None:
        if not self._done:
            self._done = True
            found = [one for one in await self._customer.peer.find(MODEL) if one.peer == self._seller.peer]
            await self._customer.peer.agree(found, REQUEST)


async def test_what_is_refused_for_its_price_keeps_no_place(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=SLOTS))
        client = await market.customer()
        for _ in range(SLOTS):
            with pytest.raises(Refused, match="answer_max_nano"):
                async with client.peer.ask(REQUEST, budget=replace(client.peer.budget, answer_max_nano=1)) as answer:
                    [piece async for piece in answer]
        assert await places(client) == [SLOTS]
        assert "agreed" not in client.diary.kinds()
        begun = trio.current_time()
        async with client.peer.ask(REQUEST) as answer:
            assert await anext(answer)
        assert trio.current_time() - begun < 1


async def test_each_quote_is_weighed_at_its_own_price(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        cheap = await market.seller(Scripted(slots=1), name="cheap")
        dearer = await market.seller(name="dearer", prices=DEARER)
        client = await market.customer()
        rival, told = Rival(await market.customer("rival"), cheap), list[int]()

        async def allow(nano: int) -> None:
            told.append(nano)
            await rival()

        async with client.peer.ask(REQUEST, allow=allow) as answer:
            [piece async for piece in answer]
        assert answer.parts[0].deal.provider == dearer.peer
        assert told == [worst_nano(PRICES), worst_nano(DEARER)]


async def test_nothing_stays_allowed_while_no_place_is_free(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(slots=1))
        client = await market.customer()
        rival, told = Rival(await market.customer("rival"), seller), list[int]()

        async def allow(nano: int) -> None:
            told.append(nano)
            await rival()

        async with client.peer.ask(REQUEST, allow=allow) as answer:
            [piece async for piece in answer]
        assert told[:2] == [worst_nano(PRICES), 0]
        assert told[-1] == worst_nano(PRICES)
        assert 0 < answer.cost_nano <= worst_nano(PRICES)


async def test_an_audit_that_is_too_dear_keeps_no_place(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        async with open_auditor(
            client.peer,
            Reader(lambda: open_scripted(None), "scripted"),
            AuditBudget(share_percent=100, nano_per_day=1),
            track_record=TrackRecord(client.keeper, clock, client.diary),
            identity=signer(client.name),
            clock=clock,
            draw=lambda _: 0,
            trace=client.diary,
        ) as auditor:
            async with client.peer.ask(REQUEST) as answer:
                [piece async for piece in answer]
            await auditor.settled()
        (skipped,) = client.diary.of("audit_skipped")
        assert "spent on audits today" in skipped["why"]
        assert await places(client) == [1]
        assert seller.diary.kinds().count("served") == 1


class ContestedKeys(Keys):
    """Once a budget is reserved, a rival takes the place."""

    def __init__(self, folder: Path, rival: Rival) -> None:
        super().__init__(folder, lambda: NOON)
        self._rival = rival
        self.was_given_back = trio.Event()

    def spend(self, limits: Sequence[tuple[str, int | None]], day: int, nano: int) -> None:
        super().spend(limits, day, nano)
        trio.from_thread.run(self._rival)

    def give_back(self, names: Sequence[str], day: int, nano: int) -> None:
        super().give_back(names, day, nano)
        trio.from_thread.run_sync(self.was_given_back.set)


# In real time: a mock clock jumps while a thread works, and threads write the tallies.


async def test_a_keys_budget_is_asked_before_a_place_is_taken(tmp_path: Path) -> None:
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(slots=1))
        client, keys = await market.customer(), Keys(tmp_path, lambda: NOON)
        buying = Buying(client.peer, keys, day_max_nano=None, free=False)
        phone = Key("phone", Capabilities(budget_nano_per_day=1))
        with pytest.raises(Refused, match="this key has 1 left"):
            async with buying.ask(phone, Wishes(), REQUEST) as answer:
                [piece async for piece in answer]
        assert await places(client) == [1]
        assert keys.spent_nano("phone") == keys.spent_nano(EVERYBODY) == 0


async def test_a_keys_budget_is_whole_again_while_its_request_waits_for_a_place(tmp_path: Path) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(Scripted(slots=1)), await market.customer()
        keys = ContestedKeys(tmp_path, Rival(await market.customer("rival"), seller))
        buying = Buying(client.peer, keys, day_max_nano=None, free=False)
        phone = Key("phone", Capabilities(budget_nano_per_day=worst_nano(PRICES)))
        async with buying.ask(phone, Wishes(), REQUEST):
            with trio.fail_after(10):
                await keys.was_given_back.wait()
            assert keys.spent_nano("phone") == keys.spent_nano(EVERYBODY) == 0
