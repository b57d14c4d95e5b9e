"""A client that buys many short answers, some at a time: `python -m shopper ask FLAGS`, which is `p2p.node` otherwise.

Prints a line of JSON for each, a `takings.Bought`. SHOPPER has its `Orders`.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

import msgspec
import trio
from takings import Bought, Part

from inference.engine import Engine, Message, Request
from inference.link import Spec
from inference.scripted import SCRIPTED_MODEL
from inference.worker import open_worker
from p2p import node, wiring
from p2p.answer import Answer
from p2p.console import Session
from p2p.errors import Error
from p2p.peer import LightPeer

PURSE_FILLS = 3  # by the faucet: a channel to everybody, and some more for those who have most of the custom
WORDS = ("why", "how", "silk", "moth", "thread", "river", "leaf", "loom", "weaver", "cocoon", "mulberry", "spindle")


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers, of which sizes, and how many of them at a time; `engine` counts what came.

    They are bought on so many `visits`: whoever leaves the market has had the audits that were due.
    """

    answers: int
    visits: int
    at_once: int
    seed: int
    engine: Spec
    prompt_words: tuple[int, int] = (6, 20)
    answer_tokens: tuple[int, int] = (8, 24)

    def requests(self, model: str) -> Iterator[Request]:
        """No two are the same."""
        chance = random.Random(self.seed)
        for number in range(self.answers):
            words = " ".join(chance.choices(WORDS, k=chance.randint(*self.prompt_words)))
            asked = (Message("user", f"{number} {words}"),)
            yield Request(model=model, messages=asked, max_tokens=chance.randint(*self.answer_tokens))


async def shop(session: Session) -> None:
    """In place of the command `ask`."""
    orders = msgspec.json.decode(os.environ["SHOPPER"], type=Orders)
    requests = enumerate(orders.requests(session.config.ask.model))

    async with open_worker(orders.engine) as engine:
        for visit in range(orders.visits):
            async with wiring.open_client(session, session.network()) as (mine, peer):
                for _ in range(PURSE_FILLS if visit == 0 else 0):
                    await wiring.fund(mine.network, mine.ledger.wallet.address)
                wanted = islice(requests, orders.answers // orders.visits)
                async with trio.open_nursery() as nursery:
                    for _ in range(orders.at_once):
                        nursery.start_soon(_buy_one_after_the_other, peer, engine, wanted)


async def _buy_one_after_the_other(peer: LightPeer, engine: Engine, wanted: Iterator[tuple[int, Request]]) -> None:
    for number, request in wanted:
        bought = await _bought(peer, engine, number, request)
        sys.stdout.buffer.write(msgspec.json.encode(bought) + b"\n")
        sys.stdout.flush()


async def _bought(peer: LightPeer, engine: Engine, number: int, request: Request) -> Bought:
    began_at, why_not = time.monotonic(), ""
    given: list[Answer] = []
    try:
        async with peer.ask(request) as answer:
            given = answer.parts
            async for _ in answer:
                pass
    except Error as error:
        why_not = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began_at
    parts = tuple([part async for part in _parts(request, given, engine)])
    return Bought(number=number, seconds=seconds, why_not=why_not, parts=parts)


async def _parts(request: Request, given: Sequence[Answer], engine: Engine) -> AsyncIterator[Part]:
    """What was counted, and what our own engine counts."""
    asked = request
    for part in given:
        before = await engine.count(asked)
        tokens = 0
        if part.text:
            answered = asked.rest(part.text, 0)
            tokens = await engine.count(answered) - before - _turn_tokens(engine, asked)
            asked = answered
        yield Part(
            provider=part.deal.provider,
            prompt_tokens=part.prompt_tokens,
            completion_tokens=part.completion_tokens,
            cost_nano=part.cost_nano,
            true_prompt_tokens=before,
            true_completion_tokens=tokens,
        )


def _turn_tokens(engine: Engine, asked: Request) -> int:
    """What it takes to begin an answer: where a token is a word, one that a prompt does not have yet."""
    (model,) = engine.models()
    return int(model.id == SCRIPTED_MODEL.id and not asked.continues)


if __name__ == "__main__":
    node.COMMANDS["ask"] = shop
    node.main()
