"""What a new stream is for is said at once."""

from __future__ import annotations

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_client import MULTISELECT_PROTOCOL_ID
from loopback import ECHO, a_host, echo, raw
from trio.testing import MockClock

from p2p.errors import Unavailable
from p2p.net.selecting import SelectAtOnce

ASKED = TProtocol("/asked/1")


class Other:
    """Answers so, once everything was said that it waits for; then it has ended, or says nothing more."""

    def __init__(self, *answers: str, after: int = 2, ends: bool = True) -> None:
        self.heard: list[str] = []
        self._answers = list(answers)
        self._after = after
        self._ends = ends

    async def write(self, msg_str: str) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(msg_str)

    async def read(self) -> str:
        await trio.lowlevel.checkpoint()
        if len(self.heard) < self._after or not (self._answers or self._ends):
            await trio.sleep_forever()
        if not self._answers:
            raise MultiselectCommunicatorError("it ended")
        return self._answers.pop(0)


async def test_it_is_said_before_anything_is_answered(autojump_clock: MockClock) -> None:
    other = Other(MULTISELECT_PROTOCOL_ID, ASKED)
    assert await SelectAtOnce().select_one_of([ASKED], other) == ASKED
    assert other.heard == [MULTISELECT_PROTOCOL_ID, ASKED]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Other(MULTISELECT_PROTOCOL_ID, "na"), "says 'na'"),
        (Other("/http/1"), "says '/http/1'"),
        (Other("x" * 1000), "says 'x{90,99}$"),
        (Other(MULTISELECT_PROTOCOL_ID), "it ended"),
        (Other(MULTISELECT_PROTOCOL_ID, ends=False), "no answer within 30 s"),
    ],
)
async def test_what_comes_instead_is_told(other: Other, why: str, autojump_clock: MockClock) -> None:
    with pytest.raises(MultiselectClientError, match=why):
        await SelectAtOnce().select_one_of([ASKED], other)


async def test_of_several_one_is_asked_for_after_the_other(autojump_clock: MockClock) -> None:
    other = Other(MULTISELECT_PROTOCOL_ID, "na", ASKED, after=1)
    assert await SelectAtOnce().select_one_of([TProtocol("/unknown/1"), ASKED], other) == ASKED
    assert other.heard == [MULTISELECT_PROTOCOL_ID, "/unknown/1", ASKED]


async def test_hosts_do_so() -> None:
    async with a_host("one") as one, a_host("two") as two:
        assert isinstance(raw(one).multiselect_client, SelectAtOnce)
        two.serve(ECHO, echo)
        await one.connect(two.addresses()[0])
        stream = await one.open(two.peer, ECHO)
        await stream.write(b"hello")
        assert await stream.read(100) == b"hello"
        with pytest.raises(Unavailable, match="cannot open /unknown/1"):
            await one.open(two.peer, "/unknown/1")
