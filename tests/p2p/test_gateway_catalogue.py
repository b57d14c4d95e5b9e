"""What a gateway knows to be on offer, in a market that changes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from market import MODEL, open_market
from trio.testing import MockClock

from inference.scripted import SCRIPTED_MODEL, Scripted
from p2p.discovery import SEARCH_KEPT_S
from p2p.errors import Unavailable
from p2p.gateway.catalogue import FRESH_S, Catalogue
from p2p.gateway.failures import Rejected

OTHER = msgspec.structs.replace(SCRIPTED_MODEL, id="bombyx/other")


async def test_a_look_serves_for_some_seconds_and_nobody_is_looked_for_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        catalogue = Catalogue(client.peer)
        assert await catalogue.providers() == ()
        with pytest.raises(Unavailable, match="no provider answers"):
            await catalogue.require(MODEL)
        one = await market.seller(name="one")
        (offer,) = await catalogue.require(MODEL)
        assert offer.id == MODEL
        await market.kill(one)
        assert [*await catalogue.models()] == [MODEL], "it was there just now"
        await trio.sleep(FRESH_S)
        assert await catalogue.models() == {}


async def test_a_model_that_was_not_seen_is_looked_for_by_its_name(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        client = await market.customer()
        await market.seller(name="one")
        catalogue = Catalogue(client.peer)
        assert [*await catalogue.models()] == [MODEL]
        with pytest.raises(Rejected, match="bombyx/other"):
            await catalogue.require(OTHER.id)
        async with trio.open_nursery() as nursery:
            began_at = trio.current_time()
            nursery.start_soon(market.seller, Scripted(model=OTHER))
            await trio.sleep(FRESH_S / 2)
            (offer,) = await catalogue.require(OTHER.id)
            assert offer.id == OTHER.id
            assert [*await catalogue.models()] == [MODEL], "a look at everybody is as it was"
            assert trio.current_time() - began_at < FRESH_S
        await trio.sleep(SEARCH_KEPT_S)
        assert [*await catalogue.models()] == sorted([OTHER.id, MODEL])
