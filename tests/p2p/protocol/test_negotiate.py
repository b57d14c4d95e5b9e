"""Agreeing on a price: turns, signatures and limits."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PAYER, PRICES, PROVIDER, make_quote
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2p.errors import LocalError, Refused, RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.negotiate import (
    ENDED,
    MAX_ROUNDS,
    MOVES,
    Accept,
    Accepted,
    Ask,
    Buyer,
    Counter,
    GiveBack,
    Offer,
    QuoteUses,
    Refusal,
    Seller,
    State,
    ToClient,
    ToProvider,
)
from p2p.protocol.price import Prices, Tokens, cost_nano
from p2p.protocol.wire import Message, Signed, sign

NOW = 1500.0
ASK = Ask(model="m", prompt_tokens=4000, max_tokens=1000, payer_key=PAYER.public_key, nonce=b"n" * 16)
LOW = Prices(1, 1, 1)


def quoted(**changes: object) -> Signed:
    return make_quote(**changes)[1]


def new_buyer() -> Buyer:
    return Buyer(
        network=NETWORK,
        client=peer_id_of(CLIENT.public_key),
        provider=peer_id_of(PROVIDER.public_key),
        verify=verify_by_peer,
    )


def buyer_with_quote(*, final: bool = False) -> Buyer:
    buyer = new_buyer()
    buyer.ask(ASK)
    buyer.receive(Offer(quote=quoted(), final=final), NOW)
    return buyer


def seller_with_quote(*, final: bool = False) -> Seller:
    seller = Seller()
    seller.receive(ASK)
    seller.offer(quoted(), final=final)
    return seller


def test_ask_quote_accept() -> None:
    buyer, seller = new_buyer(), Seller()
    seller.receive(buyer.ask(ASK))
    assert seller.asked == ASK
    assert {buyer.state, seller.state} == {State.ASKED}
    buyer.receive(seller.offer(quoted(), final=False), NOW)
    assert buyer.quote == make_quote()[0]
    assert buyer.signed == quoted()
    assert buyer.may_counter
    seller.receive(buyer.accept(NOW))
    buyer.receive(seller.confirm(hold_until=1530), NOW)
    assert {buyer.state, seller.state} == {State.AGREED}


def test_haggling_ends_with_the_fourth_quote() -> None:
    buyer, seller = new_buyer(), Seller()
    seller.receive(buyer.ask(ASK))
    finals = []
    while True:
        offer = seller.offer(quoted(issued_at=1000 + seller.rounds), final=False)
        finals.append(offer.final)
        buyer.receive(offer, NOW)
        if not buyer.may_counter:
            break
        seller.receive(buyer.counter(LOW))
    assert finals == [False, False, False, True]
    assert buyer.rounds == seller.rounds == MAX_ROUNDS
    with pytest.raises(LocalError):
        buyer.counter(LOW)
    with pytest.raises(RemoteError, match="out_of_turn"):
        seller.receive(Counter(prices=LOW))


def test_a_final_quote_ends_the_haggling_at_once() -> None:
    assert not buyer_with_quote(final=True).may_counter
    with pytest.raises(LocalError):
        buyer_with_quote(final=True).counter(LOW)
    with pytest.raises(RemoteError, match="out_of_turn"):
        seller_with_quote(final=True).receive(Counter(prices=LOW))


@pytest.mark.parametrize("after", [State.ASKED, State.ACCEPTING])
def test_the_provider_may_say_no(after: State) -> None:
    buyer, seller = new_buyer(), Seller()
    seller.receive(buyer.ask(ASK))
    if after is State.ACCEPTING:
        buyer.receive(seller.offer(quoted(), final=False), NOW)
        seller.receive(buyer.accept(NOW))
    refusal = seller.refuse(Refusal(reason="busy", retry_after_s=3))
    buyer.receive(refusal, NOW)
    assert buyer.state is seller.state is State.REFUSED
    assert buyer.refusal == refusal


MESSAGES: dict[type[Message], Message] = {
    Ask: ASK,
    Offer: Offer(quote=quoted()),
    Counter: Counter(prices=LOW),
    Accept: Accept(quote_id=quoted().id),
    Accepted: Accepted(quote_id=quoted().id, hold_until=1530),
    Refusal: Refusal(reason="busy"),
    GiveBack: GiveBack(quote_id=quoted().id),
}


def in_state(state: State) -> tuple[Buyer, Seller]:
    """A negotiation that has come to `state`."""
    buyer, seller = new_buyer(), Seller()
    if state is State.START:
        return buyer, seller
    if state is State.GIVEN_BACK:
        for party in (buyer, seller):
            party._follow(MESSAGES[GiveBack])
        return buyer, seller
    seller.receive(buyer.ask(ASK))
    if state is State.REFUSED:
        buyer.receive(seller.refuse(Refusal(reason="busy")), NOW)
    if state in {State.ASKED, State.REFUSED}:
        return buyer, seller
    buyer.receive(seller.offer(quoted(), final=False), NOW)
    if state is State.QUOTED:
        return buyer, seller
    seller.receive(buyer.accept(NOW))
    if state is State.AGREED:
        buyer.receive(seller.confirm(1530), NOW)
    return buyer, seller


@pytest.mark.parametrize(("state", "kind"), list(product(State, MESSAGES)))
def test_every_turn_is_in_the_table_or_breaks_the_protocol(state: State, kind: type[Message]) -> None:
    buyer, seller = in_state(state)
    assert buyer.state is seller.state is state
    to_client = kind in ToClient.__args__
    following = MOVES.get((state, kind))
    message = MESSAGES[kind]
    if following is None:
        with pytest.raises(RemoteError) as caught:
            buyer.receive(message, NOW) if to_client else seller.receive(message)  # type: ignore[arg-type]
        assert caught.value.code == "out_of_turn"
    else:
        buyer.receive(message, NOW) if to_client else seller.receive(message)  # type: ignore[arg-type]
        assert (buyer if to_client else seller).state is following


def test_the_table_knows_every_message_and_ends_where_it_should() -> None:
    assert {kind for _, kind in MOVES} == set(ToProvider.__args__) | set(ToClient.__args__)
    assert {state for state in State if not any(begin is state for begin, _ in MOVES)} == ENDED
    assert {State.AGREED, State.REFUSED, State.GIVEN_BACK} == ENDED


def test_speaking_out_of_turn_ourselves_is_our_own_fault() -> None:
    with pytest.raises(LocalError):
        new_buyer().accept(NOW)
    with pytest.raises(LocalError):
        new_buyer().counter(LOW)
    with pytest.raises(LocalError):
        buyer_with_quote().ask(ASK)
    with pytest.raises(LocalError):
        Seller().offer(quoted(), final=False)
    with pytest.raises(LocalError):
        Seller().refuse(Refusal(reason="busy"))
    with pytest.raises(LocalError):
        seller_with_quote().confirm(1530)


def test_an_expired_quote_cannot_be_accepted() -> None:
    buyer = buyer_with_quote()
    with pytest.raises(LocalError):
        buyer.accept(2000)
    assert buyer.accept(1999.9).quote_id == quoted().id


@pytest.mark.parametrize(
    ("quote", "code"),
    [
        (quoted(provider=peer_id_of(CLIENT.public_key)), "bad_signature"),
        (sign(make_quote(provider=peer_id_of(CLIENT.public_key))[0], CLIENT), "wrong_quote"),
        (sign(make_quote()[0], CLIENT), "bad_signature"),
        (quoted(client=peer_id_of(PROVIDER.public_key)), "wrong_quote"),
        (quoted(payer_key=b"k" * 32), "wrong_quote"),
        (quoted(model="cheaper"), "wrong_quote"),
        (quoted(nonce=b"m" * 16), "wrong_quote"),
        (quoted(tier="attested"), "wrong_quote"),
        (quoted(prompt_tokens=3999), "wrong_quote"),
        (quoted(max_tokens=999), "wrong_quote"),
        (quoted(valid_until=1500), "wrong_quote"),
        (quoted(uses=0), "malformed"),
        (quoted(uses=2), "wrong_quote"),
        (quoted(window_nano=0), "malformed"),
        (quoted(window_nano=1 << 63), "malformed"),
        (quoted(prices=Prices(-1, 0, 0)), "malformed"),
        (quoted(network="mainnet"), "wrong_network"),
        (Signed(b"junk", b"s" * 64), "malformed"),
    ],
)
def test_a_quote_that_is_not_what_was_asked_for_is_refused(quote: Signed, code: str) -> None:
    buyer = new_buyer()
    buyer.ask(ASK)
    with pytest.raises(RemoteError) as caught:
        buyer.receive(Offer(quote=quote), NOW)
    assert caught.value.code == code
    assert buyer.quote is None


@pytest.mark.parametrize(("uses", "fits"), [(1, False), (2, True), (9, True), (10, True), (11, False)])
def test_a_standing_quote_may_be_for_fewer_answers_than_were_asked_for(uses: int, fits: bool) -> None:
    buyer = new_buyer()
    buyer.ask(msgspec.structs.replace(ASK, uses=10, until=2000))
    if fits:
        buyer.receive(Offer(quote=quoted(uses=uses)), NOW)
        assert buyer.quote is not None
        assert buyer.quote.standing
    else:
        with pytest.raises(RemoteError, match="another number"):
            buyer.receive(Offer(quote=quoted(uses=uses)), NOW)


def test_asking_for_an_attested_machine_is_not_answered_by_an_open_one() -> None:
    buyer = new_buyer()
    buyer.ask(msgspec.structs.replace(ASK, tier="attested"))
    with pytest.raises(RemoteError, match="wrong_quote"):
        buyer.receive(Offer(quote=quoted()), NOW)


def test_accepting_or_confirming_another_quote_is_refused() -> None:
    with pytest.raises(RemoteError, match="wrong_quote"):
        seller_with_quote().receive(Accept(quote_id=b"q" * 32))
    buyer = buyer_with_quote()
    buyer.accept(NOW)
    with pytest.raises(RemoteError, match="wrong_quote"):
        buyer.receive(Accepted(quote_id=b"q" * 32, hold_until=1530), NOW)


def test_only_the_last_quote_can_be_accepted() -> None:
    seller = seller_with_quote()
    seller.receive(Counter(prices=LOW))
    seller.offer(quoted(prices=LOW), final=True)
    with pytest.raises(RemoteError, match="wrong_quote"):
        seller.receive(Accept(quote_id=quoted().id))


def test_the_worst_cost_is_that_of_every_token() -> None:
    quote, _ = make_quote()
    assert quote.worst_cost_nano == cost_nano(PRICES, Tokens(input=4000, output=1000))
    assert quote.cost_at_most_nano(10, 20) == cost_nano(PRICES, Tokens(input=10, output=20))
    assert quote.cost_at_most_nano(5000, 2000) == quote.worst_cost_nano


# Uses of a quote


def test_a_quote_is_good_for_its_uses_until_it_expires() -> None:
    quote, signed = make_quote(uses=2)
    uses = QuoteUses()
    uses.use(signed.id, quote, NOW)
    uses.use(signed.id, quote, NOW)
    with pytest.raises(Refused, match="used already"):
        uses.use(signed.id, quote, NOW)
    with pytest.raises(Refused, match="has expired"):
        uses.use(signed.id, quote, 2000)


def test_quotes_are_counted_apart_and_forgotten_once_expired() -> None:
    uses = QuoteUses()
    for nonce, valid_until in ((b"a" * 16, 1600), (b"b" * 16, 1700)):
        quote, signed = make_quote(nonce=nonce, valid_until=valid_until)
        uses.use(signed.id, quote, NOW)
    assert len(uses._used) == 2
    quote, signed = make_quote(nonce=b"c" * 16)
    uses.use(signed.id, quote, 1650)
    assert len(uses._used) == 2


# Both sides, any sequence of decisions


class Haggling(RuleBasedStateMachine):
    """Both sides always agree on the turn, and nobody quotes more than four times."""

    def __init__(self) -> None:
        super().__init__()
        self.buyer, self.seller = new_buyer(), Seller()
        self.now = 1000.0
        self.quotes = 0

    @precondition(lambda self: self.buyer.state is State.START)
    @rule()
    def ask(self) -> None:
        self.seller.receive(self.buyer.ask(ASK))

    @precondition(lambda self: self.seller.state is State.ASKED)
    @rule(price=st.integers(0, 1 << 40), final=st.booleans())
    def quote(self, price: int, final: bool) -> None:
        self.quotes += 1
        offer = self.seller.offer(quoted(prices=Prices(price, price, price), valid_until=5000), final=final)
        assert offer.final == (final or self.quotes == MAX_ROUNDS)
        self.buyer.receive(offer, self.now)

    @precondition(lambda self: self.buyer.state is State.QUOTED)
    @rule()
    def counter(self) -> None:
        if self.buyer.may_counter:
            self.seller.receive(self.buyer.counter(LOW))
        else:
            assert self.buyer.final
            with pytest.raises(LocalError):
                self.buyer.counter(LOW)

    @precondition(lambda self: self.buyer.state is State.QUOTED)
    @rule()
    def accept(self) -> None:
        self.seller.receive(self.buyer.accept(self.now))

    @precondition(lambda self: self.seller.state is State.ACCEPTING)
    @rule()
    def confirm(self) -> None:
        self.buyer.receive(self.seller.confirm(int(self.now) + 30), self.now)

    @precondition(lambda self: self.seller.state in {State.ASKED, State.ACCEPTING})
    @rule()
    def refuse(self) -> None:
        self.buyer.receive(self.seller.refuse(Refusal(reason="busy")), self.now)

    @rule(seconds=st.integers(0, 100))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def both_agree(self) -> None:
        assert self.buyer.state is self.seller.state
        assert self.buyer.rounds == self.seller.rounds == self.quotes <= MAX_ROUNDS
        assert self.buyer.signed == self.seller.signed


Haggling.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestHaggling = Haggling.TestCase
