"""The protocol's page says what the code does."""

from __future__ import annotations

import re

import pytest

from docs import generate_protocol
from p2p.protocol import advert, negotiate, release, session


def test_the_page_is_up_to_date() -> None:
    page = generate_protocol.PAGE.read_text(encoding="utf-8")
    assert generate_protocol.filled(page) == page, "run: python docs/generate_protocol.py"


def test_every_part_is_on_the_page_once() -> None:
    page = generate_protocol.PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- generated: (\w+) -->", page)) == sorted(generate_protocol.PARTS)
    assert page.count("<!-- end -->") == len(generate_protocol.PARTS)


@pytest.mark.parametrize("module", [advert, negotiate, session, release])
def test_every_protocol_id_is_on_the_page(module: object) -> None:
    assert f"`{getattr(module, 'PROTOCOL', None)}`" in generate_protocol.PAGE.read_text(encoding="utf-8")


def test_a_part_that_is_out_of_date_is_noticed() -> None:
    page = generate_protocol.PAGE.read_text(encoding="utf-8")
    stale = page.replace("| `MAX_ROUNDS` | 4 |", "| `MAX_ROUNDS` | 5 |")
    assert stale != page
    assert generate_protocol.filled(stale) == page
