"""What is demanded over time, and which published demands are passed on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PROVIDER
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chain.keys import Ed25519Signer
from p2p.errors import RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import CLOCK_TOLERANCE_S, MAX_ADDRESSES, MAX_LIFETIME_S
from p2p.protocol.advert_book import MIN_RENEWAL_S
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import TEMPLATE_TOKENS, Demand, DemandBook, Wanted, open_demand
from p2p.protocol.negotiate import Ask
from p2p.protocol.wire import Signed, sign

NOW = 1000
WANTED = Wanted(model="m", per_day=1000, input_tokens=100, output_tokens=50, until=10 * DAY_S)


def demand(signer: Ed25519Signer = CLIENT, **changes: Any) -> Signed:
    known = Demand(
        network=NETWORK,
        client=peer_id_of(signer.public_key),
        addresses=("/ip4/127.0.0.1/tcp/1",),
        family="f",
        seq=1,
        issued_at=NOW,
        expires_at=NOW + MAX_LIFETIME_S,
        wanted=WANTED,
    )
    return sign(msgspec.structs.replace(known, **changes), signer)


def a_book(limit: int = 100) -> DemandBook:
    return DemandBook(network=NETWORK, verify=verify_by_peer, limit=limit)


@pytest.mark.parametrize(
    ("now", "context", "uses", "until", "sizes"),
    [
        (0, 1000, 1000, DAY_S, (400 + TEMPLATE_TOKENS, 200)),
        (9.5 * DAY_S, 1000, 500, 10 * DAY_S, (400 + TEMPLATE_TOKENS, 200)),
        (10 * DAY_S - 1, 1000, 2, 10 * DAY_S, (400 + TEMPLATE_TOKENS, 200)),  # of one there is no standing quote
        (0, 100, 1000, DAY_S, (77, 23)),
        (0, 2, 1000, DAY_S, (1, 1)),
    ],
)
def test_what_is_asked_for_is_a_days_worth_and_fits_the_model(
    now: float, context: int, uses: int, until: int, sizes: tuple[int, int]
) -> None:
    ask: Ask = WANTED.ask("m", context, payer_key=bytes(32), nonce=bytes(16), now=now)
    assert (ask.uses, ask.until, ask.prompt_tokens, ask.max_tokens) == (uses, until, *sizes)
    assert (WANTED.tokens.input, WANTED.tokens.output) == (100, 50)


def test_a_demand_is_opened_as_it_was_signed() -> None:
    signed = demand()
    opened = open_demand(signed, network=NETWORK, now=NOW, verify=verify_by_peer)
    assert sign(opened, CLIENT) == signed
    assert opened.wanted == WANTED


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (demand(network="mainnet"), "wrong_network"),
        (demand(client=peer_id_of(PROVIDER.public_key)), "bad_signature"),
        (demand(expires_at=NOW), "bad_demand"),
        (demand(expires_at=NOW + MAX_LIFETIME_S + 1), "bad_demand"),
        (demand(addresses=("/x",) * (MAX_ADDRESSES + 1)), "bad_demand"),
        (demand(addresses=("/" + "x" * 250,) * MAX_ADDRESSES, family="g" * 250), "bad_demand"),
        (demand(wanted=msgspec.structs.replace(WANTED, family="g")), "bad_demand"),
        (demand(issued_at=NOW + CLOCK_TOLERANCE_S + 1, expires_at=NOW + MAX_LIFETIME_S), "untimely"),
        (demand(issued_at=NOW - 10, expires_at=NOW), "untimely"),
        (Signed(b"junk", bytes(64)), "malformed"),
    ],
)
def test_what_is_no_demand_is_not_believed(signed: Signed, code: str) -> None:
    book = a_book()
    with pytest.raises(RemoteError) as caught:
        book.add(signed, NOW, source="a")
    assert (caught.value.code, len(book)) == (code, 0)


def test_only_what_is_newer_and_not_too_soon_is_news() -> None:
    book = a_book()
    assert book.add(demand(), NOW, source="a") is not None
    assert book.add(demand(), NOW + MIN_RENEWAL_S, source="b") is None
    assert book.add(demand(seq=2), NOW + MIN_RENEWAL_S - 1, source="a") is None
    assert book.add(demand(seq=2), NOW + MIN_RENEWAL_S, source="a") is not None
    assert book.add(demand(PROVIDER), NOW + MIN_RENEWAL_S, source="a") is not None
    assert len(book) == 2


STRANGERS = [Ed25519Signer(bytes([number]) * 32) for number in range(12)]


def test_a_flood_through_one_peer_displaces_what_came_through_it_and_nothing_else() -> None:
    book = a_book(limit=6)
    assert book.add(demand(CLIENT), NOW, source="honest") is not None
    for stranger in STRANGERS:
        assert book.add(demand(stranger), NOW + 1, source="flood") is not None
    assert len(book) == 6
    assert book.add(demand(CLIENT), NOW + 100, source="honest") is None, "it is still known"
    assert book.add(demand(STRANGERS[0]), NOW + 100, source="flood") is not None, "this one is not"
    late = NOW + MAX_LIFETIME_S
    assert book.add(demand(PROVIDER, issued_at=late, expires_at=late + 1), late, source="flood") is not None
    assert len(book) == 1, "what has expired goes first"


class Gossiping(RuleBasedStateMachine):
    """Whatever is passed on by whomever, the book stays small, and no client's `seq` is taken twice or goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.book = a_book(limit=5)
        self.now = NOW
        self.taken: dict[str, int] = {}

    @rule(who=st.sampled_from(STRANGERS[:4]), seq=st.integers(0, 5), source=st.sampled_from("ab"))
    def pass_on(self, who: Ed25519Signer, seq: int, source: str) -> None:
        issued_at = self.now
        found = self.book.add(
            demand(who, seq=seq, issued_at=issued_at, expires_at=issued_at + MAX_LIFETIME_S), self.now, source=source
        )
        if found is not None:
            assert seq > self.taken.get(found.client, -1)
            self.taken[found.client] = seq

    @rule(seconds=st.integers(0, 20))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def it_is_small(self) -> None:
        assert len(self.book) <= 5


Gossiping.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestGossiping = Gossiping.TestCase
