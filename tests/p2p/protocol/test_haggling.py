"""Whole negotiations between a client's core and a provider's, whatever their strategies are."""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PAYEE, PAYER, PROVIDER
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from inference.engine import Capacity, ModelInfo
from p2p.errors import Refused, RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.haggling import Haggling
from p2p.protocol.negotiate import (
    MAX_ROUNDS,
    QUOTE_LIFETIME_S,
    Accept,
    Ask,
    Buyer,
    Counter,
    Offer,
    Seller,
    State,
    ToClient,
    Turn,
)
from p2p.protocol.price import Prices
from p2p.protocol.sales import PriceList, Sales, Speed
from p2p.protocol.strategy import (
    AskForLess,
    Bid,
    BuyerStrategy,
    ConcedingBuyer,
    ConcedingPrice,
    FixedPrice,
    Load,
    SellerStrategy,
    Tactic,
    TakeIt,
    UtilisationPrice,
    Volume,
)
from p2p.protocol.wire import Signed, encode

NOW = 1000.0
TWO = Capacity(2, 2)
BUYER, SELLER = peer_id_of(CLIENT.public_key), peer_id_of(PROVIDER.public_key)
MODEL = ModelInfo(id="m", family="fam", quantisation="q4", digest="d", context=100)
ASK = Ask(model="m", prompt_tokens=40, max_tokens=50, payer_key=PAYER.public_key, nonce=b"n" * 16)
LIST = Prices(1000, 500, 3000)

PRICES = st.builds(Prices, *[st.integers(0, 1 << 20)] * 3)
SEEDS = st.integers(0, 1 << 32)
STRATEGIES = st.sampled_from([0, 1, 2, 3, 3, 3])  # the last, which is mad, most of all


class Mad:
    """Names any price at any time, up to twice the list's: the worst that somebody could bring. The seed decides."""

    def __init__(self, seed: int, list_prices: Prices) -> None:
        self._chance = random.Random(seed)
        self._list_prices = list_prices

    def opening(self, load: Load) -> Prices:
        return self._any()

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        return Bid(self._any(), final=self._chance.random() < 0.2)

    def standing(self, volume: Volume) -> Prices:
        return self._any()

    def counter(self, turn: Turn) -> Prices | None:
        return self._any() if self._chance.random() < 0.8 else None

    def _any(self) -> Prices:
        return Prices(*(self._chance.randint(0, 2 * price) for price in msgspec.structs.astuple(self._list_prices)))


@dataclass(frozen=True)
class Setting:
    """Both sides, as they can be made again and again."""

    list_prices: Prices
    least: Prices
    prices_max: Prices
    seed: int
    sells: int
    buys: int
    tactic: Tactic
    percent: int
    capacity: Capacity

    def seller(self) -> SellerStrategy:
        return (
            FixedPrice(self.list_prices),
            UtilisationPrice(self.list_prices, self.percent, self.percent),
            ConcedingPrice(self.list_prices, self.least, self.tactic),
            Mad(self.seed, self.list_prices),
        )[self.sells]

    def buyer(self) -> BuyerStrategy:
        return (
            TakeIt(),
            AskForLess(self.percent),
            ConcedingBuyer(self.percent, self.tactic),
            Mad(self.seed + 1, self.list_prices),
        )[self.buys]


@st.composite
def a_setting(draw: st.DrawFn) -> Setting:
    list_prices, total = draw(PRICES), draw(st.integers(1, 8))
    percent = draw(st.integers(0, 100))
    return Setting(
        list_prices=list_prices,
        least=list_prices.scaled(100 - percent, 100),
        prices_max=draw(st.one_of(PRICES, st.just(list_prices), st.just(list_prices.scaled(2, 1)))),
        seed=draw(SEEDS),
        sells=draw(STRATEGIES),
        buys=draw(STRATEGIES),
        tactic=draw(st.sampled_from(Tactic)),
        percent=draw(st.integers(0, 90)),
        capacity=Capacity(draw(st.integers(1, total)), total),
    )


def sales_of(strategy: SellerStrategy, least: Prices) -> Sales:
    return Sales(
        network=NETWORK,
        signer=PROVIDER,
        verify=verify_by_peer,
        peer=SELLER,
        models=[MODEL],
        speed=lambda _, prompt_tokens: Speed(10 * prompt_tokens, 50),
        rtt_ms=lambda _: 100,
        price_list=PriceList(strategy, 1 << 40, least),
        channel=ChannelOffer(payee="0:0", payee_key=PAYEE.public_key, deposit_min_nano=1, challenge_period_s=3600),
    )


class Talk:
    """One negotiation, message by message."""

    def __init__(self, sales: Sales, capacity: Capacity = TWO) -> None:
        self._sales, self._capacity = sales, capacity
        self.buyer = Buyer(network=NETWORK, client=BUYER, provider=SELLER, verify=verify_by_peer)
        self.seller = Seller()
        self.said: list[bytes] = []

    def exchange(self, message: Ask | Counter | Accept) -> ToClient:
        reply = self._sales.answer(self.seller, message, BUYER, self._capacity, NOW)
        self.said += [encode(message), encode(reply)]
        self.buyer.receive(reply, NOW)
        return reply

    def run(self, strategy: BuyerStrategy, prices_max: Prices | None = None) -> str:
        """To its end: `agreed`, or the reason of the no."""
        self.exchange(self.buyer.ask(ASK))
        if self.buyer.refusal is not None:
            return self.buyer.refusal.reason
        haggling = Haggling(self.buyer, strategy, prices_max)
        while self.buyer.state is State.QUOTED:
            try:
                self.exchange(haggling.say(NOW))
            except Refused as no:
                return no.reason
        return "agreed"


def talk_it_over(setting: Setting) -> tuple[Talk, str]:
    talk = Talk(sales_of(setting.seller(), setting.least), setting.capacity)
    return talk, talk.run(setting.buyer(), setting.prices_max)


@settings(max_examples=100, deadline=None)
@given(a_setting())
def test_it_ends_within_four_rounds_inside_both_limits_and_the_same_way_again(setting: Setting) -> None:
    talk, outcome = talk_it_over(setting)
    assert talk.seller.rounds <= MAX_ROUNDS
    assert talk.buyer.state is talk.seller.state
    if outcome == "agreed":
        assert talk.buyer.state is State.AGREED
        assert talk.buyer.quote is not None
        assert setting.prices_max.cover(talk.buyer.quote.prices)
        assert talk.buyer.quote.prices.cover(setting.least)
    else:
        assert outcome == "price"
    again, same = talk_it_over(setting)
    assert (again.said, same) == (talk.said, outcome), "the same inputs and seed say the same bytes"


@settings(max_examples=50, deadline=None)
@given(a_setting(), st.data())
def test_a_replayed_altered_or_late_quote_is_refused(setting: Setting, data: st.DataObject) -> None:
    sales = sales_of(setting.seller(), setting.least)
    talk = Talk(sales, setting.capacity)
    assume(talk.run(setting.buyer()) == "agreed")
    quote, signed = talk.buyer.quote, talk.buyer.signed
    assert quote is not None
    assert signed is not None

    body, signature = _altered(signed.body, data), _altered(signed.signature, data)
    cheaper = encode(msgspec.structs.replace(quote, prices=Prices(0, 0, 0), ttft_ms=1))
    for altered in (Signed(body, signed.signature), Signed(signed.body, signature), Signed(cheaper, signed.signature)):
        with pytest.raises(RemoteError):
            sales.redeem(altered, BUYER, setting.capacity, NOW)
        with pytest.raises(RemoteError):
            _buyer_that_asked().receive(Offer(quote=altered), NOW)
    with pytest.raises(Refused, match="expired"):
        sales.redeem(signed, BUYER, setting.capacity, NOW + QUOTE_LIFETIME_S)
    with pytest.raises(RemoteError, match="expired"):
        _buyer_that_asked().receive(Offer(quote=signed), NOW + QUOTE_LIFETIME_S)
    with pytest.raises(RemoteError, match="another peer"):
        sales.redeem(signed, SELLER, setting.capacity, NOW)

    assert sales.redeem(signed, BUYER, setting.capacity, NOW)[0] == quote
    with pytest.raises(Refused, match="used already"):
        sales.redeem(signed, BUYER, setting.capacity, NOW)
    later = _buyer_that_asked(nonce=b"m" * 16)
    with pytest.raises(RemoteError, match="wrong_quote"):
        later.receive(Offer(quote=signed), NOW)


def _altered(original: bytes, data: st.DataObject) -> bytes:
    """One byte of it."""
    at, flip = data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(1, 255))
    return bytes([*original[:at], original[at] ^ flip, *original[at + 1 :]])


def _buyer_that_asked(nonce: bytes = ASK.nonce) -> Buyer:
    buyer = Buyer(network=NETWORK, client=BUYER, provider=SELLER, verify=verify_by_peer)
    buyer.ask(msgspec.structs.replace(ASK, nonce=nonce))
    return buyer


def test_a_counter_asks_no_more_than_is_quoted_of_any_price() -> None:
    class Muddled:
        def counter(self, turn: Turn) -> Prices | None:
            return Prices(2000, 0, 3000) if turn.rounds == 1 else None

    talk = Talk(sales_of(FixedPrice(LIST), LIST))
    talk.exchange(talk.buyer.ask(ASK))
    counter = Haggling(talk.buyer, Muddled()).say(NOW)
    assert isinstance(counter, Counter)
    assert counter.prices == Prices(1000, 0, 3000)


def test_a_quote_that_expired_meanwhile_or_is_above_the_cap_is_not_taken() -> None:
    talk = Talk(sales_of(FixedPrice(LIST), LIST))
    talk.exchange(talk.buyer.ask(ASK))
    with pytest.raises(Refused, match="expired"):
        Haggling(talk.buyer, TakeIt()).say(NOW + QUOTE_LIFETIME_S)
    with pytest.raises(Refused) as caught:
        Haggling(talk.buyer, TakeIt(), prices_max=Prices(999, 500, 3000)).say(NOW)
    assert (caught.value.reason, caught.value.prices) == ("price", LIST)
    assert isinstance(Haggling(talk.buyer, TakeIt(), prices_max=LIST).say(NOW), Accept)
