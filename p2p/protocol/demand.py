"""Core: what an application wants over time, for which it asks for standing quotes, and says so if it likes."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from p2p.errors import RemoteError
from p2p.protocol.advert import CLOCK_TOLERANCE_S, MAX_ADDRESSES, MAX_LIFETIME_S, Tier
from p2p.protocol.advert_book import MIN_RENEWAL_S
from p2p.protocol.allowance import DAY_S
from p2p.protocol.negotiate import Ask, Nonce
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.wire import Bytes32, Name, Nat, PeerVerifier, Signed, SignedBody, Size, open_signed

PROTOCOL = "/bombyx/interest/1"
MAX_DEMAND_BYTES = 4096
MAX_DEMANDS = 4096
# Single requests are larger than their mean: a quote covers those up to so many times that, and room for a template.
TIMES_THE_MEAN = 4
TEMPLATE_TOKENS = 256


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """So many requests a day to a model, or to each model of a family; token counts are means."""

    model: Name = ""
    family: Name = ""
    per_day: Size
    input_tokens: Size
    output_tokens: Size
    prices_max: Prices | None = None
    tier: Tier = "open"
    until: Nat  # unix seconds

    @property
    def tokens(self) -> Tokens:
        """Of one request."""
        return Tokens(input=self.input_tokens, output=self.output_tokens)

    def fits(self, model: str, family: str) -> bool:
        """Whether that is one of the models that are wanted."""
        return model == self.model if self.model else family == self.family

    def sizes(self, context: int) -> tuple[int, int]:
        """The largest prompt and answer that a quote should cover, for a model that holds `context` tokens."""
        prompt = TIMES_THE_MEAN * self.input_tokens + TEMPLATE_TOKENS
        answer = TIMES_THE_MEAN * self.output_tokens
        if prompt + answer > context:
            answer = max(1, context * answer // (prompt + answer))
            prompt = max(1, context - answer)
        return prompt, answer

    def ask(self, model: str, context: int, *, payer_key: Bytes32, nonce: Nonce, now: float) -> Ask:
        """For what is wanted of the next day, or until the end: nobody promises more for much longer."""
        until = min(self.until, int(now) + DAY_S)
        prompt_tokens, max_tokens = self.sizes(context)
        return Ask(
            model=model,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            payer_key=payer_key,
            nonce=nonce,
            tier=self.tier,
            uses=max(2, -(-self.per_day * (until - int(now)) // DAY_S)),
            until=until,
        )


class Demand(SignedBody, frozen=True, kw_only=True, tag="bombyx/demand/1"):
    """What a client wants, and where providers may tell it that they have it."""

    client: Name
    addresses: tuple[Name, ...]
    family: Name  # that the models are of
    seq: Nat
    issued_at: Nat
    expires_at: Nat
    wanted: Wanted


def open_demand(signed: Signed, *, network: str, now: float, verify: PeerVerifier) -> Demand:
    """A checked demand of the client that it names. Raises `RemoteError`.

    Its code is `untimely` for one that is expired, or from a clock ahead of ours: whoever passed it on may be honest.
    """
    if len(signed.body) > MAX_DEMAND_BYTES:
        raise RemoteError("bad_demand", "over the size limit")
    demand = open_signed(signed, Demand, by=lambda body: body.client, network=network, verify=verify)
    if not 0 < demand.expires_at - demand.issued_at <= MAX_LIFETIME_S:
        raise RemoteError("bad_demand", "a lifetime outside the limit")
    if demand.wanted.family not in ("", demand.family) or len(demand.addresses) > MAX_ADDRESSES:
        raise RemoteError("bad_demand", "for another family, or with too many addresses")
    if demand.issued_at > now + CLOCK_TOLERANCE_S:
        raise RemoteError("untimely", "issued in the future")
    if demand.expires_at <= now:
        raise RemoteError("untimely", "expired")
    return demand


class _Heard(NamedTuple):
    seq: int
    at: float
    expires_at: int
    source: str


class DemandBook:
    """Which demands are news, in room that is shared out among the peers that passed them on.

    A stranger can sign demands without end; when room is short, what came through the heaviest source is forgotten.
    """

    def __init__(self, *, network: str, verify: PeerVerifier, limit: int = MAX_DEMANDS) -> None:
        self._network = network
        self._verify = verify
        self._limit = limit
        self._heard: dict[str, _Heard] = {}  # by client, the oldest first

    def __len__(self) -> int:
        return len(self._heard)

    def add(self, signed: Signed, now: float, *, source: str) -> Demand | None:
        """A demand that `source` passed on, if it is news: newer than the last of its client, and not too soon after.

        Raises `RemoteError`.
        """
        demand = open_demand(signed, network=self._network, now=now, verify=self._verify)
        known = self._heard.get(demand.client)
        if known is not None and (demand.seq <= known.seq or now < known.at + MIN_RENEWAL_S):
            return None
        self._heard.pop(demand.client, None)
        self._heard[demand.client] = _Heard(demand.seq, now, demand.expires_at, source)
        if len(self._heard) > self._limit:
            self._make_room(now)
        return demand

    def _make_room(self, now: float) -> None:
        self._heard = {client: one for client, one in self._heard.items() if one.expires_at > now}
        while len(self._heard) > self._limit:
            ((heaviest, _),) = Counter(one.source for one in self._heard.values()).most_common(1)
            del self._heard[next(client for client, one in self._heard.items() if one.source == heaviest)]
