"""What a provider promises ahead: never more than it may, in all, to one client or to strangers, whatever happens."""

from __future__ import annotations

from fractions import Fraction
from itertools import count

import msgspec
import pytest
from back_to_back import PAYER, make_quote
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2p.errors import Refused
from p2p.protocol.negotiate import Ask, Quote
from p2p.protocol.standing import (
    CLIENT_PART,
    QUOTES_OF_STRANGERS,
    QUOTES_PER_CLIENT,
    STRANGERS_PART,
    StandingLimits,
    StandingQuotes,
)
from p2p.protocol.strategy import Volume

NOW = 1000
HALF = StandingLimits(percent=50, max_s=86_400)


def quote(client: str = "c", *, uses: int = 10, term_s: int = 1000, answer_s: int = 4) -> Quote:
    """Its answers take so long each, at most."""
    made, _ = make_quote(ttft_ms=0, tokens_per_s=1, max_tokens=answer_s, issued_at=NOW, valid_until=NOW + term_s)
    return msgspec.structs.replace(made, client=client, uses=uses)


def ask(until: int, uses: int = 10) -> Ask:
    return Ask(
        model="m", prompt_tokens=1, max_tokens=1, payer_key=PAYER.public_key, nonce=bytes(8), uses=uses, until=until
    )


@pytest.mark.parametrize(
    ("until", "limits", "term_s"),
    [(NOW + 60, HALF, 60), (NOW + 10**9, HALF, 86_400), (NOW + 60, StandingLimits(50, 30), 30)],
)
def test_it_binds_for_as_long_as_is_wanted_and_the_provider_allows(
    until: int, limits: StandingLimits, term_s: int
) -> None:
    assert StandingQuotes(limits).volume(ask(until), NOW + 0.9) == Volume(10, 1, 1, term_s)


@pytest.mark.parametrize(
    ("until", "limits"),
    [
        (NOW, HALF),
        (0, HALF),
        (NOW + 60, StandingLimits()),
        (NOW + 60, StandingLimits(50, 0)),
        (NOW + 60, StandingLimits(0, 9)),
    ],
)
def test_none_is_given_for_no_time_or_against_the_owners_will(until: int, limits: StandingLimits) -> None:
    with pytest.raises(Refused) as caught:
        StandingQuotes(limits).volume(ask(until), NOW)
    assert caught.value.reason == "no_standing_quote"


@pytest.mark.parametrize(
    ("given", "funded", "client", "room"),
    [
        # Half of 4 slots for 1000 s is 500 answers of 4 s in all, 250 for one client, 125 for all strangers.
        ((), {"c"}, "c", 250),
        ((), (), "c", 125),
        ((("d", 250),), {"c", "d"}, "c", 250),
        ((("d", 250), ("e", 200)), {"c", "d", "e"}, "c", 50),
        ((("c", 200),), {"c"}, "c", 50),
        ((("d", 100),), (), "c", 25),
        ((("d", 125),), (), "c", 0),
        ((("d", 125),), {"c"}, "c", 250),
        ((("d", 250),), {"d"}, "c", 125),
        ((("d", 200),), (), "c", 0),  # its channel is gone since
    ],
)
def test_what_there_is_room_for(given: tuple[tuple[str, int], ...], funded: set[str], client: str, room: int) -> None:
    quotes = StandingQuotes(HALF)
    for number, (holder, uses) in enumerate(given):
        quotes.give(bytes([number]), quote(holder), uses)
    assert quotes.room(client, quote(client), slots=4, funded=funded, now=NOW) == room


def test_a_use_makes_room_and_so_does_time() -> None:
    quotes = StandingQuotes(HALF)
    quotes.give(b"q", quote(), 125)
    assert quotes.room("d", quote("d"), slots=4, funded=(), now=NOW) == 0
    quotes.use(b"q")
    assert quotes.room("d", quote("d"), slots=4, funded=(), now=NOW) == 1
    assert quotes.room("d", quote("d"), slots=4, funded=(), now=NOW + 1000) == 125


def test_it_is_good_for_its_uses_until_it_is_over() -> None:
    quotes = StandingQuotes(HALF)
    quotes.give(b"q", quote(), 2)
    for left in (2, 1):
        quotes.require(b"q", NOW)
        assert quotes.left(b"q") == left
        quotes.use(b"q")
    assert quotes.left(b"q") == 0
    for quote_id, now in ((b"q", NOW), (b"other", NOW)):
        with pytest.raises(Refused) as caught:
            quotes.require(quote_id, now)
        assert caught.value.reason == "quote_used"
    quotes.give(b"late", quote(), 2)
    quotes.require(b"late", NOW + 999)
    with pytest.raises(Refused, match="is over"):
        quotes.require(b"late", NOW + 1000)


@pytest.mark.parametrize(
    ("number", "clients", "funded"), [(QUOTES_PER_CLIENT, 1, {"0"}), (QUOTES_OF_STRANGERS, 100, ())]
)
def test_however_small_they_are_there_are_not_many(number: int, clients: int, funded: set[str]) -> None:
    quotes, small = StandingQuotes(HALF), quote("0", term_s=10**6)
    for one in range(number):
        assert quotes.room("0" if clients == 1 else "new", small, slots=4, funded=funded, now=NOW) > 0
        quotes.give(one.to_bytes(2, "big"), msgspec.structs.replace(small, client=str(one % clients)), 2)
    assert quotes.room("0" if clients == 1 else "new", small, slots=4, funded=funded, now=NOW) == 0


class Promising(RuleBasedStateMachine):
    """Clients with and without channels take what there is room for, use it, or let it lapse."""

    def __init__(self) -> None:
        super().__init__()
        self.quotes = StandingQuotes(HALF)
        self.now = NOW
        self.names = count()
        self.mine: dict[bytes, tuple[Quote, int]] = {}  # what the test reckons that is given, with its uses left

    @rule(
        client=st.sampled_from("abXY"),
        term_s=st.integers(1, 10_000),
        answer_s=st.integers(1, 500),
        uses=st.integers(2, 5000),
    )
    def take(self, client: str, term_s: int, answer_s: int, uses: int) -> None:
        wanted = quote(client, term_s=term_s, answer_s=answer_s)
        wanted = msgspec.structs.replace(wanted, issued_at=self.now, valid_until=self.now + term_s)
        room = self.quotes.room(client, wanted, slots=4, funded={"X", "Y"}, now=self.now)
        if taken := min(room, uses):
            name = next(self.names).to_bytes(4, "big")
            self.quotes.give(name, wanted, taken)
            self.mine[name] = wanted, taken

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        if self.mine:
            name = data.draw(st.sampled_from(sorted(self.mine)))
            wanted, left = self.mine[name]
            self.quotes.require(name, self.now)
            self.quotes.use(name)
            del self.mine[name]
            if left > 1:
                self.mine[name] = wanted, left - 1

    @rule(seconds=st.integers(0, 5000))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.mine = {name: one for name, one in self.mine.items() if one[0].valid_until > self.now}

    @invariant()
    def no_more_is_promised_than_may_be(self) -> None:
        assert {name: self.quotes.left(name) for name in self.mine} == {n: left for n, (_, left) in self.mine.items()}
        for clients, part in (("abXY", 1), ("ab", STRANGERS_PART), *((one, CLIENT_PART) for one in "abXY")):
            slots = sum(
                Fraction(left * one.longest_ms, 1000 * (one.valid_until - one.issued_at))
                for one, left in self.mine.values()
                if one.client in clients
            )
            assert slots <= Fraction(4 * 50, 100 * part)


Promising.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestPromising = Promising.TestCase
