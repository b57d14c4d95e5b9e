"""Who holds which conversation."""

from __future__ import annotations

from inference.engine import Message
from p2p.protocol.conversations import MAX_CONVERSATIONS, Conversations

SYSTEM = Message("system", "be brief")
FIRST = (SYSTEM, Message("user", "why is silk strong"))
SECOND = (*FIRST, Message("assistant", "it is protein"), Message("user", "which one"))
THIRD = (*SECOND, Message("assistant", "fibroin"), Message("user", "who found it"))


def test_a_request_that_goes_on_from_another_belongs_to_who_answered_that() -> None:
    known = Conversations()
    assert known.holder(FIRST) is None
    known.answered(FIRST, "one")
    assert known.holder(FIRST) == known.holder(SECOND) == known.holder(THIRD) == "one"
    known.answered(SECOND, "two")
    assert (known.holder(FIRST), known.holder(SECOND), known.holder(THIRD)) == ("one", "two", "two")
    known.answered(SECOND, "three")
    assert known.holder(THIRD) == "three"


def test_another_request_belongs_to_nobody() -> None:
    known = Conversations()
    known.answered(SECOND, "one")
    assert known.holder(FIRST) is None
    assert known.holder((SYSTEM, Message("user", "why is silk strong?"), *SECOND[2:])) is None
    assert known.holder((Message("system", "be briefwhy"), *SECOND[1:])) is None
    assert known.holder(()) is None
    known.answered((), "one")
    assert known.holder(()) is None


def test_room_is_bounded_and_the_oldest_goes() -> None:
    known = Conversations()
    for number in range(MAX_CONVERSATIONS + 1):
        known.answered((Message("user", str(number)),), "one")
    assert known.holder((Message("user", "0"),)) is None
    assert known.holder((Message("user", "1"),)) == "one"
