"""Strategies by name, and those that a user installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from market import Diary

from p2p.config import AskConfig, ProvideConfig
from p2p.errors import LocalError
from p2p.protocol.negotiate import Turn
from p2p.protocol.price import Prices
from p2p.protocol.strategy import (
    AskForLess,
    ConcedingBuyer,
    ConcedingPrice,
    FixedPrice,
    Load,
    Tactic,
    TakeIt,
    UtilisationPrice,
    Volume,
)
from p2p.strategies import BUYER_GROUP, SELLER_GROUP, buyer_strategy, seller_strategy

LIST = Prices(1000, 500, 3000)
TURN = Turn(LIST, LIST, 1)
IDLE = Load(2, 2)

# As it would stand in a package of somebody's own.
OWN = """
from p2p.protocol.price import Prices
from p2p.protocol.strategy import Bid

class Night:
    def __init__(self, settings):
        self.prices = settings.prices
    def opening(self, load):
        return self.prices.scaled(1, 2)
    def answer(self, wanted, turn, load):
        return Bid(wanted) if load.free else Bid(turn.quoted, final=True)
    def standing(self, volume):
        return self.prices.scaled(1, 4 if volume.uses > 100 else 3)

class Mean:
    def __init__(self, settings):
        pass
    def counter(self, turn):
        return turn.quoted.scaled(1, 10)

class Broken:
    def __init__(self, settings):
        pass
    def opening(self, load):
        raise ZeroDivisionError("oops")
    def answer(self, wanted, turn, load):
        return Prices(-1, 0, 0), False
    def counter(self, turn):
        return "nothing"

def unusable(settings):
    raise KeyError("a setting")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_strategies.py").write_text(OWN)
    metadata = tmp_path / "own_strategies-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-strategies\nVersion: 1\n")
    lines = [f"[{SELLER_GROUP}]", "night = own_strategies:Night", "broken = own_strategies:Broken"]
    lines += ["unusable = own_strategies:unusable", "absent = own_strategies:Absent"]
    lines += [f"[{BUYER_GROUP}]", "mean = own_strategies:Mean", "broken = own_strategies:Broken"]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_strategies", raising=False)


def selling(**settings: Any) -> ProvideConfig:
    prices = {"price_input": 1000, "price_cached_input": 500, "price_output": 3000}
    return msgspec.convert(prices | settings, ProvideConfig)


def asking(**settings: Any) -> AskConfig:
    return msgspec.convert(settings, AskConfig)


def test_ours_are_made_of_the_settings() -> None:
    less = {"discount_percent": 20, "surge_percent": 30, "concede": "late"}
    assert seller_strategy(selling()) == UtilisationPrice(LIST, 0)
    bulk = {"bulk_discount_percent": 10}
    assert seller_strategy(selling(**bulk)) == UtilisationPrice(LIST, 0, bulk_discount_percent=10)
    assert seller_strategy(selling(strategy="fixed", **bulk)) == FixedPrice(LIST, bulk_discount_percent=10)
    assert selling(discount_percent=20, **bulk).prices_least_standing == Prices(800, 400, 2400)
    assert selling(**bulk).prices_least_standing == Prices(900, 450, 2700)
    assert seller_strategy(selling(**less)) == UtilisationPrice(LIST, 20, 30)
    assert seller_strategy(selling(strategy="fixed", **less)) == FixedPrice(LIST)
    conceding = ConcedingPrice(LIST, Prices(800, 400, 2400), Tactic.LATE)
    assert seller_strategy(selling(strategy="concession", **less)) == conceding
    assert buyer_strategy(asking()) == AskForLess(10)
    assert buyer_strategy(asking(counter_percent=0)) == TakeIt()
    assert buyer_strategy(asking(strategy="take")) == TakeIt()
    assert buyer_strategy(asking(strategy="concession", concede="early")) == ConcedingBuyer(10, Tactic.EARLY)


@pytest.mark.usefixtures("installed")
def test_a_users_own_is_found_by_its_entry_point() -> None:
    own = seller_strategy(selling(strategy="night"))
    assert own.opening(IDLE) == Prices(500, 250, 1500)
    assert own.answer(Prices(1, 1, 1), TURN, IDLE) == (Prices(1, 1, 1), False)
    assert own.answer(Prices(1, 1, 1), TURN, Load(0, 2)) == (LIST, True)
    assert own.standing(Volume(100, 10, 10, 60)) == Prices(334, 167, 1000)
    assert own.standing(Volume(101, 10, 10, 60)) == Prices(250, 125, 750)
    assert buyer_strategy(asking(strategy="mean")).counter(TURN) == Prices(100, 50, 300)


@pytest.mark.usefixtures("installed")
def test_one_that_fails_costs_the_haggling_and_not_the_node() -> None:
    diary = Diary()
    own = seller_strategy(selling(strategy="broken"), diary)
    assert own.opening(IDLE) == LIST
    assert own.answer(Prices(1, 1, 1), TURN, IDLE) == (LIST, True)
    assert own.standing(Volume(100, 10, 10, 60)) == LIST, "it has no price for many"
    assert buyer_strategy(asking(strategy="broken"), diary).counter(TURN) is None
    assert [record["why"].partition(":")[0] for record in diary.of("strategy_failed")] == [
        "ZeroDivisionError",
        "ValidationError",
        "AttributeError",
        "ValidationError",
    ]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nihgt", "there is no strategy 'nihgt': take absent, broken, concession, fixed, night, unusable, utilisation"),
        ("unusable", "the strategy unusable cannot be used: KeyError"),
        ("absent", "the strategy absent cannot be used: AttributeError"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(name: str, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        seller_strategy(selling(strategy=name))
    with pytest.raises(LocalError, match="take broken, concession, mean, once, take, or install one"):
        buyer_strategy(asking(strategy=name))
