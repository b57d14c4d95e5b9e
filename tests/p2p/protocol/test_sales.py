"""What a provider quotes and keeps to: a real buyer on the other side, no network and no clock."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PAYEE, PAYER, PRICES, PROVIDER, make_quote

from inference.engine import Capacity, ModelInfo
from p2p.errors import Refused, RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.allowance import Left
from p2p.protocol.negotiate import QUOTE_LIFETIME_S, Ask, Buyer, Refusal, Seller, State, Turn
from p2p.protocol.places import HELD_RETRY_S, HOLD_S
from p2p.protocol.price import Prices
from p2p.protocol.sales import PriceList, Sales, Speed
from p2p.protocol.standing import StandingLimits
from p2p.protocol.strategy import Bid, FixedPrice, Load, UtilisationPrice, Volume
from p2p.protocol.unpaid import NO_KEY
from p2p.protocol.wire import Signed, sign

NOW = 1000.0
FREE, FULL = Capacity(2, 2), Capacity(0, 2)
PLENTY = Left(1000, 1000, 1000)
MODEL = ModelInfo(id="m", family="fam", quantisation="q4", digest="d", context=100)
BUYER, SELLER = peer_id_of(CLIENT.public_key), peer_id_of(PROVIDER.public_key)


def new_sales(price_list: PriceList | None = None, *, funded: Collection[str] = ()) -> Sales:
    return Sales(
        network=NETWORK,
        signer=PROVIDER,
        verify=verify_by_peer,
        peer=SELLER,
        models=[MODEL],
        speed=lambda _, prompt_tokens: Speed(10 * prompt_tokens, 50),
        rtt_ms=lambda client: 100 if client == BUYER else 1000,
        price_list=price_list or PriceList(UtilisationPrice(PRICES, 50, surge_percent=20), 1 << 40),
        channel=ChannelOffer(payee="0:0", payee_key=PAYEE.public_key, deposit_min_nano=1, challenge_period_s=3600),
        funded=lambda: funded,
    )


class Talk:
    """One negotiation."""

    def __init__(self, sales: Sales) -> None:
        self._sales = sales
        self._seller = Seller()
        self.buyer = Buyer(network=NETWORK, client=BUYER, provider=SELLER, verify=verify_by_peer)

    def ask(self, *, model: str = "m", prompt_tokens: int = 40, nonce: int = 1, capacity: Capacity = FREE) -> None:
        nonce_bytes = nonce.to_bytes(16, "big")
        ask = Ask(
            model=model, prompt_tokens=prompt_tokens, max_tokens=50, payer_key=PAYER.public_key, nonce=nonce_bytes
        )
        self.start(ask, capacity)

    def start(self, ask: Ask, capacity: Capacity) -> None:
        self.buyer.receive(self._sales.answer(self._seller, self.buyer.ask(ask), BUYER, capacity, NOW), NOW)

    def counter(self, percent: int, capacity: Capacity) -> None:
        message = self.buyer.counter(PRICES.scaled(percent, 100))
        self.buyer.receive(self._sales.answer(self._seller, message, BUYER, capacity, NOW), NOW)

    def accept(self, capacity: Capacity = FREE) -> Refusal | None:
        message = self.buyer.accept(NOW)
        self.buyer.receive(self._sales.answer(self._seller, message, BUYER, capacity, NOW), NOW)
        return self.buyer.refusal

    @property
    def signed(self) -> Signed:
        assert self.buyer.signed is not None
        return self.buyer.signed


def agreed(sales: Sales, nonce: int) -> Signed:
    talk = Talk(sales)
    talk.ask(nonce=nonce)
    assert talk.accept() is None
    assert talk.buyer.state is State.AGREED
    return talk.signed


def test_a_quote_promises_the_speed_for_its_prompt_and_a_window_for_the_way_to_its_client() -> None:
    talk = Talk(new_sales())
    talk.ask(prompt_tokens=40)
    quote = talk.buyer.quote
    assert quote is not None
    assert (quote.ttft_ms, quote.tokens_per_s) == (400, 50)
    assert quote.window_nano == 64 * 300, "two round trips of 100 ms at 50 tokens/s are fewer than 64 tokens"
    (offer,) = new_sales().offers(FREE, NOW, prompt_tokens=7)
    assert (offer.ttft_ms, offer.slots_free, offer.slots_total) == (70, 2, 2)


def test_the_price_follows_the_slots_that_are_free_now() -> None:
    for capacity, percent in ((FREE, 50), (Capacity(1, 2), 75)):
        talk = Talk(new_sales())
        talk.ask()
        talk.counter(10, capacity)
        assert talk.buyer.quote is not None
        assert talk.buyer.quote.prices == PRICES.scaled(percent, 100)


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"model": "other"}, "no_such_model"),
        ({"prompt_tokens": 51}, "too_long"),
        ({"capacity": FULL}, "busy"),
    ],
)
def test_what_cannot_be_served_is_not_quoted(wish: dict[str, object], reason: str) -> None:
    talk = Talk(new_sales())
    talk.ask(**wish)  # type: ignore[arg-type]
    assert talk.buyer.refusal is not None
    assert talk.buyer.refusal.reason == reason


def test_a_place_is_promised_for_a_while_and_taken_once() -> None:
    sales = new_sales()
    first, second = agreed(sales, 1), agreed(sales, 2)
    (offer,) = sales.offers(FREE, NOW)
    assert offer.slots_free == 0
    late = Talk(sales)
    late.ask(nonce=3, capacity=Capacity(3, 3))
    refusal = late.accept(Capacity(3, 3))
    assert refusal is not None
    assert refusal.reason == "busy", "two are promised to it already"
    assert refusal.retry_after_s == HELD_RETRY_S, "it has but to take them"
    assert sales.redeem(first, BUYER, FULL, NOW)[1] == MODEL
    with pytest.raises(Refused, match="used already"):
        sales.redeem(first, BUYER, FREE, NOW)
    with pytest.raises(Refused, match="in use or promised"):
        sales.redeem(second, BUYER, FULL, NOW + HOLD_S)


def test_only_our_own_quotes_are_redeemed_for_their_client_in_their_time() -> None:
    sales = new_sales()
    quote, _ = make_quote()
    for wrong, by in ((sign(quote, CLIENT), "bad_signature"), (make_quote(provider=BUYER)[1], "bad_signature")):
        with pytest.raises(RemoteError) as caught:
            sales.redeem(wrong, BUYER, FREE, NOW)
        assert caught.value.code == by
    with pytest.raises(RemoteError, match="another peer"):
        sales.redeem(agreed(sales, 1), SELLER, FREE, NOW)
    with pytest.raises(Refused, match="any more"):
        sales.redeem(make_quote(model="gone")[1], BUYER, FREE, NOW)
    with pytest.raises(Refused, match="expired"):
        sales.redeem(agreed(sales, 2), BUYER, FREE, NOW + QUOTE_LIFETIME_S)


def test_a_busy_provider_says_when_and_at_what_price_it_would_run_and_who_waits_makes_it_dearer() -> None:
    sales = new_sales()
    for nonce in (1, 2):
        sales.redeem(agreed(sales, nonce), BUYER, FREE, NOW)
    sent_away = Talk(sales)
    sent_away.ask(nonce=3, capacity=FULL)
    no = sent_away.buyer.refusal
    assert no is not None
    assert (no.reason, no.retry_after_s, no.prices) == ("busy", 2, PRICES), "0.4 s to the first of 50 tokens at 50/s"
    (offer,) = sales.offers(FULL, NOW)
    assert offer.prices == PRICES.scaled(110, 100), "one waits for two slots"
    back = Talk(sales)
    back.ask(nonce=4, capacity=Capacity(1, 2))
    assert back.buyer.quote is not None
    assert back.buyer.quote.prices == PRICES, "it does not wait any more"


def test_a_used_or_expired_quote_is_refused_with_the_price_of_today() -> None:
    sales = new_sales()
    signed = agreed(sales, 1)
    sales.redeem(signed, BUYER, FREE, NOW)
    for now, reason in ((NOW, "quote_used"), (NOW + QUOTE_LIFETIME_S, "quote_expired")):
        with pytest.raises(Refused) as caught:
            sales.redeem(signed, BUYER, FREE, now)
        assert (caught.value.reason, caught.value.prices) == (reason, PRICES)


BULK = PriceList(
    FixedPrice(PRICES, bulk_discount_percent=30), 1 << 40, PRICES, PRICES.scaled(80, 100), StandingLimits(50, 3600)
)
WISH = Ask(
    model="m",
    prompt_tokens=40,
    max_tokens=50,
    payer_key=PAYER.public_key,
    nonce=bytes(16),
    uses=5000,
    until=int(NOW) + 7200,
)


def standing(sales: Sales, wish: Ask = WISH, capacity: Capacity = FREE) -> Talk:
    talk = Talk(sales)
    talk.start(wish, capacity)
    return talk


def test_many_answers_get_a_quote_of_their_own_without_a_slot_and_without_haggling() -> None:
    talk = standing(new_sales(BULK), capacity=FULL)
    quote = talk.buyer.quote
    assert quote is not None
    assert quote.prices == PRICES.scaled(80, 100), "30 % less were below the owner's least"
    assert quote.valid_until == NOW + 3600
    assert quote.uses == 642, "one answer takes 1.4 s, and strangers may have a quarter of half of two slots"
    assert talk.buyer.final
    assert talk.accept(FULL) is None, "it takes no place"


def test_a_standing_quote_is_good_for_its_uses_once_it_is_accepted_and_a_busy_moment_takes_none() -> None:
    sales = new_sales(BULK)
    talk = standing(sales, msgspec.structs.replace(WISH, uses=3))
    with pytest.raises(Refused, match="never accepted"):
        sales.redeem(talk.signed, BUYER, FREE, NOW)
    assert talk.accept() is None
    with pytest.raises(Refused, match="in use or promised"):
        sales.redeem(talk.signed, BUYER, FULL, NOW)
    for _ in range(3):
        assert sales.redeem(talk.signed, BUYER, FREE, NOW + 3599)[0].standing
    with pytest.raises(Refused) as caught:
        sales.redeem(talk.signed, BUYER, FREE, NOW)
    assert (caught.value.reason, caught.value.prices) == ("quote_used", PRICES)


def test_what_was_quoted_to_several_is_promised_to_those_who_accept_first() -> None:
    sales = new_sales(BULK)
    first, second = standing(sales), standing(sales)
    assert first.accept() is None
    refusal = second.accept()
    assert refusal is not None
    assert (refusal.reason, refusal.prices) == ("standing_full", PRICES.scaled(80, 100))
    assert standing(sales).buyer.refusal == refusal
    assert standing(new_sales()).buyer.refusal is not None, "nothing is promised ahead unless the owner says so"


def test_who_has_a_channel_is_no_stranger() -> None:
    quote = standing(new_sales(BULK, funded={BUYER})).buyer.quote
    assert quote is not None
    assert quote.uses == 1285


class Fickle:
    """A strategy that knows no limits."""

    def __init__(self, *answers: Prices) -> None:
        self._answers = iter(answers)

    def opening(self, load: Load) -> Prices:
        return next(self._answers)

    def answer(self, wanted: Prices, turn: Turn, load: Load) -> Bid:
        return Bid(next(self._answers))

    def standing(self, volume: Volume) -> Prices:
        return next(self._answers)


def test_no_strategy_sells_below_its_owners_least_or_goes_up() -> None:
    least = PRICES.scaled(80, 100)
    low, high = PRICES.scaled(1, 100), PRICES.scaled(900, 100)
    for answers, quoted in (((low,), (least,)), ((PRICES, high, low), (PRICES, PRICES, least))):
        talk = Talk(new_sales(PriceList(Fickle(*answers), 1 << 40, least)))
        talk.ask()
        seen = [talk.buyer.quote]
        for _ in answers[1:]:
            talk.counter(50, FREE)
            seen.append(talk.buyer.quote)
        assert [quote.prices for quote in seen if quote] == list(quoted)


class FreeTalk(Talk):
    """A newcomer's, who may still be given so much."""

    def __init__(self, sales: Sales, left: Left = PLENTY) -> None:
        super().__init__(sales)
        self._left = left

    def ask_for_free(self, capacity: Capacity, nonce: int = 1) -> None:
        nonce_bytes = nonce.to_bytes(16, "big")
        ask = Ask(
            model="m", prompt_tokens=40, max_tokens=50, payer_key=NO_KEY, nonce=nonce_bytes, tier="open", free=True
        )
        self.buyer.receive(self._sales.answer(self._seller, self.buyer.ask(ask), BUYER, capacity, NOW, self._left), NOW)


def given(sales: Sales, capacity: Capacity, nonce: int) -> Signed:
    talk = FreeTalk(sales)
    talk.ask_for_free(capacity, nonce)
    assert talk.accept(capacity) is None
    return talk.signed


def test_what_is_given_away_has_no_price_no_haggling_and_no_place_that_is_kept() -> None:
    sales, talk = new_sales(), FreeTalk(new_sales())
    talk.ask_for_free(FREE)
    assert talk.buyer.quote is not None
    assert (talk.buyer.quote.free, talk.buyer.quote.unpaid, talk.buyer.final) == (True, True, True)
    given(sales, FREE, 1)
    (offer,) = sales.offers(FREE, NOW)
    assert offer.slots_free == 2


def test_what_is_left_is_what_may_be_given() -> None:
    for tokens, refused in ((89, "no_allowance"), (90, None)):
        talk = FreeTalk(new_sales(), Left(tokens, tokens, tokens))
        talk.ask_for_free(FREE)
        assert (talk.buyer.refusal.reason if talk.buyer.refusal else None) == refused


def test_free_answers_have_half_of_the_slots_as_long_as_they_are_idle() -> None:
    sales, four = new_sales(), Capacity(4, 4)
    quotes = [given(sales, four, nonce) for nonce in (1, 2, 3, 4)]
    with pytest.raises(Refused, match="no slot is idle"):
        sales.redeem(quotes[0], BUYER, FULL, NOW)
    for quote in quotes[1:3]:
        sales.redeem(quote, BUYER, four, NOW)
    with pytest.raises(Refused, match="no slot is idle"):
        sales.redeem(quotes[3], BUYER, four, NOW)
    sales.ended(quotes[1].id)
    sales.redeem(given(sales, four, 5), BUYER, four, NOW)


def test_nothing_is_given_while_somebody_who_pays_waits_and_who_wants_it_free_does_not_count_as_waiting() -> None:
    sales = new_sales()
    talk = FreeTalk(sales)
    talk.ask_for_free(FULL)
    assert talk.buyer.refusal is not None
    assert talk.buyer.refusal.reason == "busy"
    given(sales, FREE, 1)
    waits = Talk(sales)
    waits.ask(capacity=FULL)
    assert waits.buyer.refusal is not None
    talk = FreeTalk(sales)
    talk.ask_for_free(FREE)
    assert talk.buyer.refusal is not None
    assert talk.buyer.refusal.reason == "busy"
