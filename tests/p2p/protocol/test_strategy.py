"""Who names which price."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.price import Prices
from p2p.protocol.strategy import AskForLess, BuyerStrategy, FixedPrice, SellerStrategy, TakeIt, UtilisationPrice

LIST = Prices(1000, 500, 3000)


def test_a_fixed_price_stays_and_ends_the_haggling() -> None:
    fixed: SellerStrategy = FixedPrice(LIST)
    assert fixed.opening(free=4, total=4) == LIST
    assert fixed.answer(Prices(0, 0, 0), free=4, total=4) == (LIST, True)


@pytest.mark.parametrize(
    ("free", "total", "floor"),
    [
        (0, 4, LIST),
        (4, 4, Prices(800, 400, 2400)),
        (2, 4, Prices(900, 450, 2700)),
        (1, 3, Prices(934, 467, 2800)),
        (9, 4, Prices(800, 400, 2400)),
        (0, 0, LIST),
        (3, 0, LIST),
    ],
)
def test_free_slots_make_room_below_the_list_price(free: int, total: int, floor: Prices) -> None:
    selling = UtilisationPrice(LIST, discount_percent=20)
    assert selling.floor(free=free, total=total) == floor
    assert selling.opening(free=free, total=total) == LIST
    assert selling.answer(floor, free=free, total=total) == (floor, False)
    too_low = Prices(floor.input - 1, floor.cached_input, floor.output)
    assert selling.answer(too_low, free=free, total=total) == (floor, True)


@given(
    st.builds(Prices, *[st.integers(0, 1 << 40)] * 3),
    st.builds(Prices, *[st.integers(0, 1 << 40)] * 3),
    st.integers(0, 100),
    st.integers(0, 64),
    st.integers(0, 64),
)
def test_no_counter_gets_below_the_floor(
    list_prices: Prices, counter: Prices, discount: int, free: int, total: int
) -> None:
    selling = UtilisationPrice(list_prices, discount)
    prices, final = selling.answer(counter, free=free, total=total)
    floor = selling.floor(free=free, total=total)
    assert list_prices.cover(floor)
    assert prices.cover(floor)
    assert final == (not counter.cover(floor))


def test_buyers() -> None:
    taking: BuyerStrategy = TakeIt()
    asking: BuyerStrategy = AskForLess(10)
    assert taking.counter(LIST) is None
    assert asking.counter(LIST) == Prices(900, 450, 2700)
    assert asking.counter(Prices(1, 0, 11)) == Prices(1, 0, 10)
