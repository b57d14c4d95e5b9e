"""One question from beginning to end, and what is to be said about it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chain.ledger import Transaction
from inference.engine import Request
from p2p.answer import Answer
from p2p.buying import Deal
from p2p.discovery import Found
from p2p.host import PeerPath
from p2p.patience import patiently
from p2p.peer import LightPeer
from p2p.protocol.price import Prices
from p2p.ranking import as_json
from p2p.story import gram, per_million

BUSY_PATIENCE_S = 60.0  # while every slot is in use


@dataclass(frozen=True)
class Purchase:
    """An answer that was given and paid."""

    text: str
    found: Sequence[Found]
    answer: Answer
    path: PeerPath | None  # by which the provider was reached in the end

    @property
    def cost_nano(self) -> int:
        """What this answer cost, as both signed for it."""
        assert self.answer.receipt is not None, "an answer that ended well has one"
        return self.answer.receipt.session_total_nano

    @property
    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        deal, timing = self.answer.deal, self.answer.timing
        return {
            "answer": self.text,
            "provider": deal.provider,
            "client": deal.quote.client,
            "path": self.path,
            "providers_found": len(self.found),
            "model": deal.quote.model,
            "usage": {
                "prompt_tokens": self.answer.prompt_tokens,
                "completion_tokens": self.answer.completion_tokens,
            },
            "price": _price(deal.quote.prices),
            "quoted_first": _price(deal.first_prices),
            "agreed": _price(deal.quote.prices),
            "window_nano": deal.quote.window_nano,
            "cost_nano": self.cost_nano,
            "authorised_nano": self.answer.authorised_nano,
            "delivered_nano": self.answer.delivered_nano,
            "channel": self.answer.channel.hex(),
            "why": deal.why,
            "ranking": as_json(deal),
            "ttft_ms": timing.ttft_ms,
            "tokens_per_s": round(timing.tokens_per_s, 1),
        }

    def rows(self) -> list[tuple[str, str]]:
        """For a person."""
        deal, timing = self.answer.deal, self.answer.timing
        return [
            ("tokens", f"{self.answer.prompt_tokens} in, {self.answer.completion_tokens} out"),
            ("price", per_million(deal.quote.prices.input, deal.quote.prices.output)),
            ("cost", amount(self.cost_nano)),
            ("authorised", f"{amount(self.answer.authorised_nano)} on this channel in all"),
            ("delivered", f"{amount(self.answer.delivered_nano)} on this channel in all"),
            ("first token", f"{timing.ttft_ms} ms"),
            ("speed", f"{timing.tokens_per_s:.1f} tokens/s"),
        ]


async def buy(
    peer: LightPeer,
    request: Request,
    piece: Callable[[str], None],
    *,
    agreed: Callable[[Deal], None] = lambda _: None,
) -> Purchase:
    """Find, agree, pay; `piece` gets the answer as it comes, once `agreed` was told. Raises what `LightPeer` raises."""
    found = await peer.find(request.model)
    deal = await patiently(lambda: peer.agree(found, request), BUSY_PATIENCE_S)
    agreed(deal)
    text = []
    async with peer.answer(deal, request) as answer:
        async for part in answer:
            text.append(part)
            piece(part)
    return Purchase("".join(text), found, answer, peer.path(deal.provider))


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


def _price(prices: Prices) -> dict[str, int]:
    return {"input": prices.input, "output": prices.output}
