"""For applications: a light peer in a few lines, under Trio. `p2p.embed_portal` has the same for other programs.

    async with Client() as client:
        print((await client.complete("What is silk?")).text)

        async with client.chat("Tell me of silk.") as reply:
            async for piece in reply:
                print(piece, end="")
        print(reply.cost_nano)

It joins the network of the home's network file, and pays from the home's wallet within what `ask` is configured to
spend. Everything raises `p2p.errors.Error`; see docs/GATEWAY.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from chain.book import Book
from chain.records import Receipt, of_day
from inference.engine import Message, Request
from inference.records import Embedding, RecordReader
from p2p.config import Config, load
from p2p.errors import LocalError
from p2p.failover import LastingAnswer
from p2p.foreign import translated
from p2p.network_file import read_network
from p2p.peer import LightPeer
from p2p.protocol.price import Prices
from p2p.terminal import Terminal
from p2p.trace import Trace, silent
from p2p.wiring import Node, is_free, open_client

SUMMARISE = "Summarise the text that the user gives you in at most {words} words. Answer with the summary alone."
DRAFT = "Write what the user asks for. Answer with the text alone, without any remark about it."

Conversation = str | Sequence[Message]
"""One question, or the turns so far."""


@dataclass(frozen=True)
class Offer:
    """What a provider asks and promises before it is asked for a binding quote. Prices are nano per million tokens."""

    provider: str
    model: str
    prices: Prices
    ttft_ms: int
    tokens_per_s: int
    rtt_ms: int
    slots_free: int
    context: int


@dataclass(frozen=True)
class Spending:
    """What answers cost, and what there is to pay with, in nano."""

    today_nano: int
    all_nano: int
    in_channels_nano: int  # deposited, and not signed away
    answer_max_nano: int | None  # that one answer may cost


class Reply:
    """Iterate over it for the text, piece by piece. What it says of the answer is true so far, and whole at the end."""

    def __init__(self, answer: LastingAnswer) -> None:
        self._answer = answer
        self._pieces: list[str] = []

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = await self._answer.__anext__()
        self._pieces.append(piece)
        return piece

    @property
    def text(self) -> str:
        """What came."""
        return "".join(self._pieces)

    @property
    def cost_nano(self) -> int:
        """At all providers together."""
        return self._answer.cost_nano

    @property
    def prompt_tokens(self) -> int:
        """As they were counted and paid, in all parts."""
        return sum(part.prompt_tokens for part in self._answer.parts)

    @property
    def completion_tokens(self) -> int:
        """In all parts."""
        return self._answer.completion_tokens

    @property
    def provider(self) -> str | None:
        """The peer id of whoever answers, after a failover the last one's; `None` before anybody does."""
        return self._answer.parts[-1].deal.provider if self._answer.parts else None

    @property
    def failovers(self) -> int:
        """How often another provider had to go on."""
        return max(0, len(self._answer.parts) - 1)

    @property
    def receipt(self) -> str | None:
        """The last part's, by the id under which `receipts` has it; `None` before the end."""
        receipt = self._answer.parts[-1].receipt if self._answer.parts else None
        return None if receipt is None else receipt.session.hex()


@dataclass(frozen=True)
class _Means:
    """See `p2p.wiring.Means`."""

    config: Config
    trace: Trace
    terminal: Terminal


class Client:
    """A light peer for an application under Trio: an async context manager, opened once and used by all tasks.

    Any method raises `LocalError` for a mistake of ours, `Refused` where nobody wants to on our terms, `PaymentError`
    where money is in the way, and `Unavailable` where nobody answers.
    """

    def __init__(self, config: Config | None = None, *, trace: Trace = silent) -> None:
        """`config` as `p2p.config.load` makes one; without it, what the environment's BOMBYX_* variables say."""
        self._config = load(None, os.environ, {}) if config is None else config
        self._trace = trace
        self._stack = AsyncExitStack()
        self._opened: tuple[Node, LightPeer] | None = None
        self._free = False

    async def __aenter__(self) -> Self:
        means = _Means(self._config, self._trace, Terminal(os.environ))
        network = read_network(self._config.network_path)
        self._free = is_free(self._config, network)
        self._opened = await self._stack.enter_async_context(open_client(means, network, free=self._free))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    @property
    def peer(self) -> LightPeer:
        """All that the network has to offer."""
        return self._open[1]

    @asynccontextmanager
    async def chat(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        cost_max_nano: int | None = None,
    ) -> AsyncIterator[Reply]:
        """An answer as it comes. Leaving the context early ends it, and what came is paid.

        What is not said here is as `ask` is configured. `cost_max_nano` is the most that this answer may cost.
        """
        ask, budget = self._config.ask, self.peer.budget
        if cost_max_nano is not None:
            budget = replace(budget, answer_max_nano=cost_max_nano)
        messages = (Message("user", conversation),) if isinstance(conversation, str) else tuple(conversation)
        request = Request(
            model=model or ask.model,
            messages=messages,
            max_tokens=max_tokens or ask.max_tokens,
            temperature=ask.temperature if temperature is None else temperature,
            seed=ask.seed if seed is None else seed,
        )
        async with self.peer.ask(request, free=self._free, budget=budget) as answer:
            yield Reply(answer)

    async def complete(
        self,
        conversation: Conversation,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        cost_max_nano: int | None = None,
    ) -> Reply:
        """The whole answer, as `chat` gives it piece by piece."""
        chat = self.chat(
            conversation,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            cost_max_nano=cost_max_nano,
        )
        async with chat as reply:
            async for _ in reply:
                pass
        return reply

    async def summarize(self, text: str, *, words: int = 100, cost_max_nano: int | None = None) -> Reply:
        """What `text` says, in about so many words at most."""
        asked = (Message("system", SUMMARISE.format(words=words)), Message("user", text))
        return await self.complete(asked, max_tokens=3 * words, cost_max_nano=cost_max_nano)

    async def draft(self, instruction: str, context: str = "", *, cost_max_nano: int | None = None) -> Reply:
        """A text by an `instruction`, such as "decline politely"; `context` is what it is about, such as a letter."""
        asked = "\n\n".join(part for part in (instruction, context) if part)
        return await self.complete((Message("system", DRAFT), Message("user", asked)), cost_max_nano=cost_max_nano)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Sequence[Sequence[float]]:
        """A vector for each text, by a model that has the feature."""
        asked = tuple(Message("user", text) for text in texts)
        request = Request(model=model or self._config.ask.model, messages=asked, max_tokens=1, embed=True)
        reader, found = RecordReader(), []
        async with self.peer.ask(request, free=self._free) as answer:
            async for text in answer:
                with translated():
                    found += [one.vector for one in reader.feed(text) if isinstance(one, Embedding)]
        return found

    async def quotes(self, model: str | None = None) -> Sequence[Offer]:
        """What providers of `model`, or of any, ask for now, the cheapest first."""
        found = await self.peer.find(model)
        offers = [
            Offer(
                provider=one.peer,
                model=offer.id,
                prices=offer.prices,
                ttft_ms=offer.ttft_ms,
                tokens_per_s=offer.tokens_per_s,
                rtt_ms=one.rtt_ms,
                slots_free=offer.slots_free,
                context=offer.context,
            )
            for one in found
            for offer in one.advert.models
            if model in (None, offer.id)
        ]
        return sorted(offers, key=lambda offer: (offer.model, offer.prices.output, offer.prices.input, offer.provider))

    async def budget(self) -> Spending:
        """What was spent, and what is left to spend without another deposit."""
        with translated():
            paid = await self._open[0].keeper.do(Book.earnings)
        return Spending(
            today_nano=sum(one.earned_nano for one in of_day(paid, time.time())),
            all_nano=sum(one.earned_nano for one in paid),
            in_channels_nano=sum(one.free_nano for one in await self.peer.channels() if one.usable),
            answer_max_nano=self.peer.budget.answer_max_nano,
        )

    async def receipts(self) -> Sequence[Receipt]:
        """Of every answer that was ever paid from this home, oldest first."""
        with translated():
            return await self._open[0].keeper.do(Book.receipts)

    @property
    def _open(self) -> tuple[Node, LightPeer]:
        if self._opened is None:
            raise LocalError("the client is not open: `async with Client() as client`")
        return self._opened
