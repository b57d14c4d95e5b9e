"""Who names which price."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.protocol.negotiate import MAX_ROUNDS, Turn
from p2p.protocol.price import Prices
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

LIST = Prices(1000, 500, 3000)
NOTHING = Prices(0, 0, 0)
FIRST = Turn(LIST, LIST, 1)
IDLE = Load(4, 4)
ANY = st.builds(Prices, *[st.integers(0, 1 << 40)] * 3)


@pytest.mark.parametrize(
    "seller",
    [
        FixedPrice(LIST, bulk_discount_percent=15),
        UtilisationPrice(LIST, 50, 20, bulk_discount_percent=15),
        ConcedingPrice(LIST, NOTHING, bulk_discount_percent=15),
    ],
)
def test_many_answers_are_sold_below_the_list(seller: SellerStrategy) -> None:
    assert seller.standing(Volume(1000, 200, 100, 86_400)) == Prices(850, 425, 2550)


def test_a_fixed_price_stays_and_ends_the_haggling() -> None:
    fixed: SellerStrategy = FixedPrice(LIST)
    assert fixed.opening(IDLE) == LIST
    assert fixed.answer(NOTHING, FIRST, IDLE) == (LIST, True)


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
    selling, load = UtilisationPrice(LIST, discount_percent=20), Load(free, total)
    assert selling.floor(load) == floor
    assert selling.opening(load) == LIST
    assert selling.answer(floor, FIRST, load) == (floor, False)
    too_low = Prices(floor.input - 1, floor.cached_input, floor.output)
    assert selling.answer(too_low, FIRST, load) == (floor, True)


@pytest.mark.parametrize(
    ("load", "opening", "floor"),
    [
        (Load(0, 2, 1), Prices(1250, 625, 3750), Prices(1250, 625, 3750)),
        (Load(0, 2, 2), Prices(1500, 750, 4500), Prices(1500, 750, 4500)),
        (Load(0, 2, 9), Prices(1500, 750, 4500), Prices(1500, 750, 4500)),
        (Load(1, 2, 1), Prices(1250, 625, 3750), Prices(1150, 575, 3450)),
        (Load(2, 2, 0), LIST, Prices(800, 400, 2400)),
    ],
)
def test_a_queue_makes_it_dearer(load: Load, opening: Prices, floor: Prices) -> None:
    selling = UtilisationPrice(LIST, discount_percent=20, surge_percent=50)
    assert (selling.opening(load), selling.floor(load)) == (opening, floor)


@given(ANY, ANY, st.integers(0, 100), st.builds(Load, *[st.integers(0, 64)] * 2))
def test_no_counter_gets_below_the_floor(list_prices: Prices, counter: Prices, discount: int, load: Load) -> None:
    selling = UtilisationPrice(list_prices, discount)
    prices, final = selling.answer(counter, Turn(list_prices, list_prices, 1), load)
    floor = selling.floor(load)
    assert list_prices.cover(floor)
    assert prices.cover(floor)
    assert final == (not counter.cover(floor))


def test_buyers() -> None:
    taking: BuyerStrategy = TakeIt()
    assert taking.counter(FIRST) is None
    asking: BuyerStrategy = AskForLess(10)
    assert asking.counter(FIRST) == Prices(900, 450, 2700)
    assert asking.counter(Turn(LIST, LIST, 2)) is None, "it asks once"


@pytest.mark.parametrize(
    ("tactic", "given_up"),
    [(Tactic.EARLY, [0, 703, 962, 1000]), (Tactic.EVENLY, [0, 333, 666, 1000]), (Tactic.LATE, [0, 37, 296, 1000])],
)
def test_a_tactic_gives_up_nothing_at_first_and_all_in_the_end(tactic: Tactic, given_up: list[int]) -> None:
    shares = [tactic.share(step, 3) for step in (0, 1, 2, 3)]
    assert [1000 * part // whole for part, whole in shares] == given_up
    assert tactic.share(9, 3) == tactic.share(3, 3)


def test_a_seller_concedes_from_the_list_price_to_its_least() -> None:
    least = Prices(700, 350, 2100)
    selling: SellerStrategy = ConcedingPrice(LIST, least)
    assert selling.opening(IDLE) == LIST
    steps = [selling.answer(NOTHING, Turn(LIST, LIST, rounds), IDLE) for rounds in range(1, MAX_ROUNDS)]
    assert steps == [Bid(Prices(900, 450, 2700)), Bid(Prices(800, 400, 2400)), Bid(least)]
    assert selling.answer(Prices(800, 400, 2500), Turn(LIST, LIST, 2), IDLE) == Bid(Prices(800, 400, 2500))


def test_a_buyer_concedes_from_below_the_first_quote_up_to_it() -> None:
    buying: BuyerStrategy = ConcedingBuyer(30, Tactic.LATE)
    steps = [buying.counter(Turn(LIST, LIST, rounds)) for rounds in range(1, MAX_ROUNDS)]
    assert steps == [Prices(700, 350, 2100), Prices(712, 356, 2134), Prices(789, 395, 2367)]
    assert buying.counter(Turn(LIST, Prices(712, 356, 2134), 2)) is None, "it would have offered as much"
    assert ConcedingBuyer(0).counter(FIRST) is None


@given(ANY, ANY, st.integers(0, 90), st.sampled_from(Tactic), st.sampled_from(Tactic))
def test_steps_never_go_back(one: Prices, other: Prices, percent: int, sells: Tactic, buys: Tactic) -> None:
    list_prices, least = one.at_least(other), one.at_most(other)
    selling, buying = ConcedingPrice(list_prices, least, sells), ConcedingBuyer(percent, buys)
    turns = [Turn(list_prices, list_prices, rounds) for rounds in range(1, MAX_ROUNDS)]
    bids = [selling.opening(IDLE), *(selling.answer(NOTHING, turn, IDLE).prices for turn in turns)]
    assert bids[-1].cover(least)
    assert all(before.cover(after) for before, after in pairwise(bids))
    wanted = [named for turn in turns if (named := buying.counter(turn)) is not None]
    assert all(after.cover(before) and list_prices.cover(after) for before, after in pairwise(wanted))
