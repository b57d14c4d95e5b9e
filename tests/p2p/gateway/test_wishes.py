from __future__ import annotations

import json
from typing import Any

import pytest

from p2p.budget import Budget
from p2p.gateway.failures import Rejected
from p2p.gateway.wishes import TOP, Wishes, narrowed, wishes_of
from p2p.protocol.price import Prices


def body(**bombyx: Any) -> bytes:
    return json.dumps({"model": "m", "bombyx": bombyx}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b'{"model": "m"}', {"host": "x", "authorization": "Bearer x"}, Wishes()),
        (body(price_max_output=5, tier="attested"), {}, Wishes(price_max_output=5, tier="attested")),
        (b'{"tier": "attested", "preset": "fast", "bombyx": {"preset": "cheap"}}', {},
         Wishes(tier="attested", preset="cheap")),
        (body(), {"x-bombyx-price-max-output": "5", "x-bombyx-timeout-s": "1.5"},
         Wishes(price_max_output=5, timeout_s=1.5)),
        (body(preset="fast", cost_max_nano=9), {"x-bombyx-preset": "cheap"}, Wishes(preset="cheap", cost_max_nano=9)),
    ],
)  # fmt: skip
def test_what_is_wished_for(content: bytes, headers: dict[str, str], expected: Wishes) -> None:
    assert wishes_of(content, headers) == expected


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (body(price_max_ouput=5), {}),  # not spelt so: ignored it would cost money
        (body(price_max_output=-1), {}),
        (body(timeout_s=0), {}),
        (body(), {"x-bombyx-tier": "best"}),
        (body(), {"x-bombyx-anything": "1"}),
    ],
)
def test_what_is_no_wish(content: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        wishes_of(content, headers)


@pytest.mark.parametrize(
    ("budget", "wishes", "expected"),
    [
        (Budget(), [Wishes()], Budget()),
        (Budget(answer_max_nano=5), [Wishes(cost_max_nano=9)], Budget(answer_max_nano=5)),
        (Budget(answer_max_nano=5), [Wishes(cost_max_nano=3)], Budget(answer_max_nano=3)),
        (Budget(), [Wishes(price_max_output=7)], Budget(prices_max=Prices(TOP, TOP, 7))),
        (Budget(prices_max=Prices(4, 2, 9)), [Wishes(price_max_input=3), Wishes(price_max_output=8)],
         Budget(prices_max=Prices(3, 2, 8))),
        (Budget(), [Wishes(preset="private")], Budget(tier="attested")),
        (Budget(), [Wishes(preset="fast")], Budget(nano_per_second=100_000)),
        (Budget(tier="attested"), [Wishes(tier="open")], Budget(tier="attested")),  # never looser
    ],
)  # fmt: skip
def test_limits_become_tighter_only(budget: Budget, wishes: list[Wishes], expected: Budget) -> None:
    found = narrowed(budget, *wishes)
    names = ("prices_max", "answer_max_nano", "nano_per_second", "tier")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
