"""Answers that hold more than prose, bought and paid over the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from market import DEAR, Customer, open_market, question
from msgspec import structs
from trio.testing import MockClock

from inference.engine import Message, Request, Tool
from inference.records import Call, Embedding, Logprobs, RecordReader
from inference.scripted import SCRIPTED_MODEL, Scripted
from p2p.errors import EngineError, Refused
from p2p.protocol.price import Tokens, cost_nano
from p2p.purchase import Purchase, buy

SCHEMA = json.dumps({"type": "object", "properties": {"city": {"const": "Paris"}}, "required": ["city"]})
WEATHER = structs.replace(question("weather in Paris", 20), tools=(Tool("weather", "", SCHEMA),))
TEXTS = tuple(Message("user", text) for text in ("silk", "moth " * 40, "stone"))


async def bought(client: Customer, request: Request) -> Purchase:
    purchase = await buy(client.peer, request, lambda _: None)
    receipt = purchase.answer.receipt
    assert receipt is not None
    assert purchase.cost_nano == cost_nano(receipt.prices, receipt.tokens) > 0
    assert receipt.tokens == Tokens(input=purchase.prompt_tokens, output=purchase.completion_tokens)
    return purchase


async def test_calls_schemas_logprobs_and_embeddings_are_paid_as_any_answer_is(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_market(tmp_path) as market:
        await market.seller()
        client = await market.customer()
        called = await bought(client, WEATHER)
        (call,) = RecordReader().feed(called.text)
        assert isinstance(call, Call)
        assert (call.name, json.loads(call.text)) == ("weather", {"city": "Paris"})
        held = await bought(client, structs.replace(WEATHER, tools=(), schema=SCHEMA))
        assert json.loads(held.text) == {"city": "Paris"}
        told = RecordReader().feed((await bought(client, structs.replace(WEATHER, tools=(), top_logprobs=20))).text)
        assert sum(len(one.logprobs) for one in told if isinstance(one, Logprobs)) == 20
        embedded = await bought(client, structs.replace(WEATHER, tools=(), embed=True, messages=TEXTS, max_tokens=1))
        assert (embedded.prompt_tokens, embedded.completion_tokens) == (42, 0)
        assert [type(one) for one in RecordReader().feed(embedded.text)] == [Embedding] * 3


async def test_only_those_are_asked_who_can(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_market(tmp_path) as market:
        plain = Scripted(model=structs.replace(SCRIPTED_MODEL, features=()))
        await market.seller(plain, name="plain")
        client = await market.customer()
        with pytest.raises(Refused, match="lacks a feature"):
            await bought(client, structs.replace(WEATHER, tools=(), embed=True))
        able = await market.seller(name="able")
        assert (await bought(client, WEATHER)).answer.deal.provider == able.peer


@pytest.mark.parametrize("after", [0, 1])
async def test_another_goes_on_only_where_nothing_has_come(
    after: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A grammar would begin anew in the middle of the text."""
    async with open_market(tmp_path) as market:
        await market.seller(Scripted(fail_after=after), name="failing")
        other = await market.seller(name="other", prices=DEAR)
        client = await market.customer()
        held = structs.replace(WEATHER, tools=(), schema=SCHEMA)
        if after:
            with pytest.raises(EngineError):
                await bought(client, held)
            assert client.diary.of("failover") == []
        else:
            purchase = await buy(client.peer, held, lambda _: None)
            assert purchase.answer.deal.provider == other.peer
            assert json.loads(purchase.text) == {"city": "Paris"}
