"""A client that buys many short answers, some at a time: `python -m shopper ask FLAGS`, which is `p2p.node` otherwise.

Prints a line of JSON for each, a `takings.Bought`. SHOPPER has its `Orders`.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec
import trio
from takings import Bought, Part

from inference.engine import Message, Request
from inference.script import count_tokens
from p2p import node, wiring
from p2p.answer import Answer
from p2p.console import Session
from p2p.errors import Error
from p2p.peer import LightPeer

WORDS = ("why", "how", "silk", "moth", "thread", "river", "leaf", "loom", "weaver", "cocoon", "mulberry", "spindle")


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers, of which sizes, and how many of them at a time."""

    answers: int
    at_once: int
    seed: int
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

    async with wiring.open_client(session, session.network()) as (mine, peer):
        await wiring.fund(mine.network, mine.ledger.wallet.address)

        async def buy_one_after_the_other() -> None:
            for number, request in requests:
                bought = await _bought(peer, number, request)
                sys.stdout.buffer.write(msgspec.json.encode(bought) + b"\n")
                sys.stdout.flush()

        async with trio.open_nursery() as nursery:
            for _ in range(orders.at_once):
                nursery.start_soon(buy_one_after_the_other)


async def _bought(peer: LightPeer, number: int, request: Request) -> Bought:
    began_at, why_not = time.monotonic(), ""
    parts: list[Answer] = []
    texts: defaultdict[int, str] = defaultdict(str)  # by the part that each came in
    try:
        async with peer.ask(request) as answer:
            parts = answer.parts
            async for piece in answer:
                texts[len(parts) - 1] += piece
    except Error as error:
        why_not = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began_at
    return Bought(number=number, seconds=seconds, why_not=why_not, parts=tuple(_parts(request, parts, texts)))


def _parts(request: Request, parts: list[Answer], texts: Mapping[int, str]) -> Iterator[Part]:
    said = ""
    for at, part in enumerate(parts):
        prompt = request.rest(said, 0) if said else request
        yield Part(
            provider=part.deal.provider,
            prompt_tokens=part.prompt_tokens,
            completion_tokens=part.completion_tokens,
            cost_nano=part.cost_nano,
            true_prompt_tokens=count_tokens(prompt.messages),
            true_completion_tokens=len(texts[at].split()),
        )
        said += texts[at]


if __name__ == "__main__":
    node.COMMANDS["ask"] = shop
    node.main()
