"""One question from beginning to end, and what is to be said about it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chain.ledger import Transaction
from inference.engine import Request
from p2p.answer import Answer, Timing
from p2p.buying import Deal
from p2p.discovery import Found
from p2p.host import PeerPath
from p2p.peer import LightPeer
from p2p.protocol.price import Prices
from p2p.ranking import as_json
from p2p.story import gram, per_million, short


@dataclass(frozen=True)
class Purchase:
    """An answer that was given and paid, in one part or, where providers failed, in several."""

    text: str
    found: Sequence[Found]
    parts: Sequence[Answer]
    path: PeerPath | None  # by which the last provider was reached in the end

    @property
    def answer(self) -> Answer:
        """The last part."""
        return self.parts[-1]

    @property
    def prompt_tokens(self) -> int:
        """Of all parts: what is gone on from is read anew."""
        return sum(part.prompt_tokens for part in self.parts)

    @property
    def completion_tokens(self) -> int:
        """Of all parts."""
        return sum(part.completion_tokens for part in self.parts)

    @property
    def cost_nano(self) -> int:
        """What this answer cost at all providers together."""
        return sum(part.cost_nano for part in self.parts)

    @property
    def timing(self) -> Timing:
        """To the first token of all, and over the time in which tokens came."""
        speaking = [part for part in self.parts if part.completion_tokens]
        if not speaking:
            return self.answer.timing
        seconds = sum(part.completion_tokens / part.timing.tokens_per_s for part in speaking)
        return Timing(speaking[0].timing.ttft_ms, self.completion_tokens / seconds)

    @property
    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        deal, timing = self.answer.deal, self.timing
        return {
            "answer": self.text,
            "provider": deal.provider,
            "client": deal.quote.client,
            "path": self.path,
            "providers_found": len(self.found),
            "model": deal.quote.model,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "parts": [_part(part) for part in self.parts],
            "price": _price(deal.quote.prices),
            "quoted_first": _price(deal.first_prices),
            "agreed": _price(deal.quote.prices),
            "window_nano": deal.quote.window_nano,
            "free": deal.quote.free,
            "cost_nano": self.cost_nano,
            "authorised_nano": self.answer.authorised_nano,
            "delivered_nano": self.answer.delivered_nano,
            "channel": _channel(self.answer),
            "why": deal.why,
            "ranking": as_json(deal),
            "ttft_ms": timing.ttft_ms,
            "tokens_per_s": round(timing.tokens_per_s, 1),
        }

    def rows(self) -> list[tuple[str, str]]:
        """For a person."""
        timing = self.timing
        several = self.parts if len(self.parts) > 1 else ()
        return [
            *((f"part by {short(part.deal.provider)}", _part_row(part)) for part in several),
            ("tokens", f"{self.prompt_tokens} in, {self.completion_tokens} out"),
            *self._money(),
            ("first token", f"{timing.ttft_ms} ms"),
            ("speed", f"{timing.tokens_per_s:.1f} tokens/s"),
        ]

    def _money(self) -> list[tuple[str, str]]:
        """What was agreed and paid; of an answer that others gave a part of for money, also where the last was free."""
        answer, prices = self.answer, self.answer.deal.quote.prices
        if answer.unpaid:
            given = ", out of what the provider gives to newcomers" if answer.deal.quote.free else ""
            return [("price", f"free{given}"), ("cost", amount(self.cost_nano))]
        return [
            ("price", per_million(prices.input, prices.output)),
            ("cost", amount(self.cost_nano)),
            ("authorised", f"{amount(answer.authorised_nano)} on this channel in all"),
            ("delivered", f"{amount(answer.delivered_nano)} on this channel in all"),
        ]


async def buy(
    peer: LightPeer,
    request: Request,
    piece: Callable[[str], None],
    *,
    free: bool = False,
    agreed: Callable[[Deal], None] = lambda _: None,
) -> Purchase:
    """Find, agree, pay, except for what is to be `free`. `agreed` gets each deal, then `piece` what comes of it.

    Raises what `LightPeer` raises.
    """
    text = []
    async with peer.ask(request, free=free, agreed=agreed) as answer:
        async for some in answer:
            text.append(some)
            piece(some)
    return Purchase("".join(text), answer.found, answer.parts, peer.path(answer.parts[-1].deal.provider))


def amount(nano: int) -> str:
    """Both ways in which amounts are written."""
    return f"{gram(nano)} ({nano:,} nano)"


def transaction_json(transaction: Transaction) -> dict[str, Any]:
    """For `--json`."""
    return {
        "op": transaction.op,
        "hash": transaction.hash,
        "fee_nano": transaction.fee_nano,
        "exit_code": transaction.exit_code,
        "balance_nano": transaction.balance_nano,
    }


def _part(part: Answer) -> dict[str, Any]:
    return {
        "provider": part.deal.provider,
        "channel": _channel(part),
        "free": part.deal.quote.free,
        "prompt_tokens": part.prompt_tokens,
        "completion_tokens": part.completion_tokens,
        "cost_nano": part.cost_nano,
        "receipt": part.receipt is not None,
    }


def _channel(part: Answer) -> str | None:
    return None if part.unpaid else part.channel.hex()


def _part_row(part: Answer) -> str:
    receipt = "" if part.receipt else "; no receipt"
    return f"{part.prompt_tokens} in, {part.completion_tokens} out, {amount(part.cost_nano)}{receipt}"


def _price(prices: Prices) -> dict[str, int]:
    return {"input": prices.input, "output": prices.output}
