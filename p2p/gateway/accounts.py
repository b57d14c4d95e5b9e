"""What there is to look at beside answers: providers, channels, budget, earnings and receipts, as plain values.

The shapes are in docs/GATEWAY.md. Amounts are nano, prices nano for a million tokens, times unix seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from chain import backup
from chain.book import Book
from chain.keeper import BookKeeper
from chain.ledger import Ledger
from chain.records import Channel, Earning, of_day, open_records
from p2p.config import Config
from p2p.discovery import Found
from p2p.errors import Unavailable
from p2p.foreign import translated
from p2p.gateway.catalogue import Catalogue
from p2p.gateway.failures import invalid
from p2p.gateway.keys import EVERYBODY, Key, Keys
from p2p.home import ROLE_NAMES, Home
from p2p.network_file import NetworkFile
from p2p.peer import LightPeer
from p2p.protocol.market import PRESETS, STRANGER
from p2p.protocol.reputation import Evidence, standing, weigh
from p2p.purchase import transaction_json
from p2p.track_record import evidence_of

RECEIPTS_MAX = 500

Object = dict[str, Any]


@dataclass(frozen=True)
class Accounts:
    """One client's. Any method raises `Error`."""

    peer: LightPeer
    catalogue: Catalogue
    keeper: BookKeeper
    ledger: Ledger
    config: Config
    network: NetworkFile
    keys: Keys
    free: bool

    async def providers(self) -> Object:
        """Those that answer now, and what this home has seen of each."""
        found = await self.catalogue.providers()
        peers = [one.peer for one in found]
        with translated():
            known = await self.keeper.do(partial(evidence_of, peers=peers)) if peers else {}
        open_to, now = await self.peer.standbys(), time.time()
        return {"providers": [_provider(one, known.get(one.peer, ()), open_to, now) for one in found]}

    async def channels(self) -> Object:
        """Every channel there ever was, the newest first."""
        return {"channels": [_channel(one) for one in reversed(await self.peer.channels())]}

    async def close_channel(self, channel: str) -> Object:
        """Together with its provider. Raises `Rejected` for one that is not there."""
        known = {one.channel.hex(): one.channel for one in await self.peer.channels()}
        if channel not in known:
            raise invalid("there is no such channel", code="channel_not_found", status=404)
        return transaction_json(await self.peer.close_channel(known[channel]))

    async def budget(self) -> Object:
        """What may be spent, and what was."""
        ask, wallet = self.config.ask, self.config.wallet
        purse = Home(self.config, "payer").purse
        with translated():
            spent_nano = 0 if self.free else await trio.to_thread.run_sync(purse.spent_today_nano)
            earned = await self.keeper.do(Book.earnings)
        return {
            "network": self.network.mark.name,
            "free": self.free,
            "wallet": await self._wallet(),
            "deposits": {"day_max_nano": wallet.day_max_nano, "today_nano": spent_nano},
            "answers": {
                "answer_max_nano": ask.answer_max_nano,
                "today_nano": _today_nano(earned),
                "all_nano": sum(one.earned_nano for one in earned),
                "count": sum(one.answers for one in earned),
            },
            **await trio.to_thread.run_sync(self._tallies),
            "preset": ask.preset,
            "presets": {name: {"what": one.what, "tier": one.tier} for name, one in PRESETS.items()},
        }

    async def allowance(self, key: Key) -> Object:
        """What its holder may spend in a day, by the limit of which least is left, and what of it is spent today.

        Who may not see the accounts is told of the key's own limit alone.
        """
        limits = await trio.to_thread.run_sync(self._limits, key)
        if key.may.manage:
            with translated():
                earned = await self.keeper.do(Book.earnings)
            limits.append(("wallet", self.config.wallet.day_max_nano, _today_nano(earned)))
        limited = [(day_max - today, whose, day_max, today) for whose, day_max, today in limits if day_max is not None]
        whose, day_max_nano, today_nano = min(limited)[1:] if limited else (None, None, limits[0][2])
        return {
            "network": self.network.mark.name,
            "free": self.free,
            "limit": whose,
            "day_max_nano": day_max_nano,
            "today_nano": today_nano,
        }

    async def receipts(self, limit: int) -> Object:
        """The newest first."""
        with translated():
            kept = await self.keeper.do(Book.receipts)
        newest = list(reversed(kept))[: min(limit, RECEIPTS_MAX)]
        return {
            "receipts": [
                {
                    "session": one.session.hex(),
                    "provider": one.peer,
                    "model": one.model,
                    "cost_nano": one.cost_nano,
                    "at": one.at,
                    "channel": one.channel.hex(),
                    "receipt": one.signed.hex(),
                }
                for one in newest
            ]
        }

    async def earnings(self) -> Object:
        """Of the provider on the same home, if there is one."""
        book = self.config.home_path / ROLE_NAMES["payee"] / backup.BOOK_FILE
        with translated():
            return await trio.to_thread.run_sync(self._earnings, book)

    def _earnings(self, book: Path) -> Object:
        with open_records(book, "payee", self.network.chain_network) as records:
            earned, fees, channels = records.earnings(), records.fees(), records.channels()
        return {
            "provider_here": book.exists(),
            "models": msgspec.to_builtins(earned),
            "fees": msgspec.to_builtins(fees),
            "earned_nano": sum(one.earned_nano for one in earned),
            "settled_nano": sum(one.settled_nano for one in channels),
            "fee_nano": sum(one.fee_nano for one in fees),
        }

    def _limits(self, key: Key) -> list[tuple[str, int | None, int]]:
        """Whose each is, how much it lets through in a day, and how much it did today."""
        everybody = ("gateway", self.config.gateway.budget_nano_per_day, self.keys.spent_nano(EVERYBODY))
        own = [("key", key.may.budget_nano_per_day, self.keys.spent_nano(key.name))] if key.name else []
        return [*own, everybody] if key.may.manage else own

    def _tallies(self) -> Object:
        day_max_nano = self.config.gateway.budget_nano_per_day
        return {
            "gateway": {"day_max_nano": day_max_nano, "today_nano": self.keys.spent_nano(EVERYBODY)},
            "keys": [
                {
                    "name": key.name,
                    "day_max_nano": key.may.budget_nano_per_day,
                    "today_nano": self.keys.spent_nano(key.name),
                }
                for key in self.keys.all()
            ],
        }

    async def _wallet(self) -> Object | None:
        """Its balance is `null` while the chain cannot be asked."""
        if self.free:
            return None
        wallet = self.ledger.wallet
        try:
            with translated():
                balance_nano: int | None = await wallet.balance()
        except Unavailable:
            balance_nano = None
        return {"address": wallet.address, "balance_nano": balance_nano}


def _today_nano(earned: Sequence[Earning]) -> int:
    """What answers of this day, in UTC, cost."""
    return sum(one.earned_nano for one in of_day(earned, time.time()))


def _provider(found: Found, evidence: Collection[Evidence], open_to: Collection[str], now: float) -> Object:
    advert = found.advert
    seen = standing(weigh(list(evidence), now)) if evidence else STRANGER
    return {
        "peer": found.peer,
        "tier": "open",  # whatever it claims: nothing proves one yet
        "tier_claimed": advert.tier,
        "rtt_ms": found.rtt_ms,
        "free_tokens": advert.free_tokens,
        "deposit_min_nano": advert.channel.deposit_min_nano,
        "challenge_period_s": advert.channel.challenge_period_s,
        "channel_open": found.peer in open_to,
        "standing": seen._asdict(),
        "evidence": dict(Counter(one.kind.value for one in evidence)),
        "models": [
            {
                "id": offer.id,
                "family": offer.family,
                "quantisation": offer.quantisation,
                "digest": offer.digest,
                "context": offer.context,
                "price": msgspec.structs.asdict(offer.prices),
                "ttft_ms": offer.ttft_ms,
                "tokens_per_s": offer.tokens_per_s,
                "slots_free": offer.slots_free,
                "slots_total": offer.slots_total,
                "features": offer.features,
            }
            for offer in advert.models
        ],
    }


def _channel(one: Channel) -> Object:
    return {
        "channel": one.channel.hex(),
        "provider": one.peer,
        "state": one.state.name.lower(),
        "retired": one.retired,
        "deposited_nano": one.deposited_nano,
        "authorised_nano": one.authorised_nano,
        "delivered_nano": one.delivered_nano,
        "settled_nano": one.settled_nano,
        "challenge_period_s": one.terms.challenge_period_s,
    }
