"""What `make proof` measures at a distance, without the distance: what goes over real libp2p before a prompt does."""

from __future__ import annotations

from pathlib import Path

import pytest
from distance import measure

from p2p.protocol import advert, negotiate, session


@pytest.mark.slow
async def test_with_a_standing_quote_a_session_is_all_that_is_opened(tmp_path: Path) -> None:
    found = await measure(tmp_path, answers=2, rtt_s=0)
    assert {one.streams for one in found["standing"]} == {(session.PROTOCOL,)}
    assert {one.streams for one in found["agreed on just after another"]} == {(negotiate.PROTOCOL, session.PROTOCOL)}
    assert {one.streams for one in found["agreed on"]} == {(advert.PROTOCOL, negotiate.PROTOCOL, session.PROTOCOL)}
