"""Records: to several readers, to a file, to counters."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from market import Diary, open_market, question
from ports import free_port
from trio.testing import MockClock

from p2p.errors import LocalError
from p2p.metrics import metrics
from p2p.recording import recording
from p2p.trace import HEARD, SAID, among, line

SECRET = "why is silk strong"


def test_each_of_several_is_told() -> None:
    one, other = Diary(), Diary()
    among(one, other)("served", tokens_in=1)
    assert one.records == other.records == [("served", {"tokens_in": 1})]


def test_a_file_has_a_line_for_each_record_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    for _ in range(2):  # it goes on where it was
        with recording(file) as trace:
            trace("agreed", peer="b", prices=(1, 2))
    first, second = map(json.loads, file.read_text().splitlines())
    assert {**first, "t_us": 0} == {"t_us": 0, "kind": "agreed", "peer": "b", "prices": [1, 2]}
    assert second["t_us"] >= first["t_us"] > 1_700_000_000_000_000
    assert list(first) == sorted(first)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_said_and_a_full_disk_ends_it_alone(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot write the trace"), recording(tmp_path / "no" / "folder"):
        pass
    with recording(Path("/dev/full")) as trace:
        trace("agreed", peer="b")
        trace("agreed", peer="b")


def test_counters_are_served_to_prometheus() -> None:
    address = f"127.0.0.1:{free_port()}"
    with metrics(address) as trace:
        trace(SAID, peer="a", message="Delta")
        trace(HEARD, peer="a", message="Payment")
        trace("refused", peer="a", reason="too_long", why="…")
        for _ in range(2):
            trace("served", peer="a", model="m", tokens_in=3, tokens_out=5, earned_nano=7)
        trace("settled", channel="c", settled_nano=14, fee_nano=2, why="…")
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        with pytest.raises(LocalError, match="cannot serve metrics"), metrics(address):
            pass
    for expected in (
        'bombyx_messages_total{message="Delta",way="out"} 1.0',
        'bombyx_messages_total{message="Payment",way="in"} 1.0',
        'bombyx_refusals_total{reason="too_long"} 1.0',
        'bombyx_answers_total{model="m"} 2.0',
        'bombyx_tokens_total{direction="out",model="m"} 10.0',
        'bombyx_earned_nano_total{model="m"} 14.0',
        "bombyx_settlement_fees_nano_total 2.0",
        'bombyx_records_total{kind="settled"} 1.0',
    ):
        assert expected in lines
    assert any(one.startswith("process_resident_memory_bytes") for one in lines)
    with metrics(address):
        pass  # the port was given back


@pytest.mark.parametrize("address", ["9464", "localhost:http", ":9464"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(LocalError, match="is not HOST:PORT"), metrics(address):
        pass


async def test_what_one_end_said_the_other_end_heard(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_market(tmp_path) as market:
        seller, client = await market.seller(), await market.customer()
        request = question(SECRET)
        deal = await client.peer.agree(await client.peer.find(request.model), request)
        async with client.peer.answer(deal, request) as answer:
            text = "".join([piece async for piece in answer])
    said, heard = (
        Counter(str(fields["message"]) for fields in diary.of(kind))
        for diary, kind in ((client.diary, SAID), (seller.diary, HEARD))
    )
    assert said == heard
    assert {"Pull", "Ask", "Accept", "Start", "Payment", "Close"} <= said.keys()
    told = b"".join(line({"kind": kind, **fields}) for kind, fields in client.diary.records + seller.diary.records)
    for private in (SECRET, *text.split()):
        assert len(private) < 6 or private.encode() not in told
