"""Whose word counts when several servers are asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio

from chain.errors import LedgerUnavailable, NetworkMismatch
from chain.panel import DROPPED_FOR_S, PATIENCE_S, Panel, Untrue


@dataclass(eq=False)
class Voice:
    """A server that says one thing, or fails, or hangs."""

    name: str
    says: int | Exception | None
    owner: str = ""
    heard: int = 0

    def __post_init__(self) -> None:
        self.owner = self.owner or self.name

    async def ask(self) -> int:
        self.heard += 1
        if self.says is None:
            await trio.sleep_forever()
        if isinstance(self.says, Exception):
            raise self.says
        assert self.says is not None
        return self.says


@dataclass
class Room:
    """A panel and what it told of those it dropped."""

    voices: Sequence[Voice]
    needed: int
    dropped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.panel = Panel(self.voices, self.needed, lambda name, why: self.dropped.append(f"{name}: {why}"))

    async def agreed(self, spread: int = 0) -> list[int]:
        return await self.panel.agreed(Voice.ask, lambda a, b: abs(a - b) <= spread)


def room(*says: int | Exception | None, needed: int = 2) -> Room:
    return Room([Voice("abcdef"[place], word) for place, word in enumerate(says)], needed)


GONE = LedgerUnavailable("gone")
STRANGER = NetworkMismatch("another network")
LIE = "others say otherwise"


@pytest.mark.parametrize(
    ("says", "needed", "told", "asked", "dropped"),
    [
        ((1,), 1, 1, "a", []),
        ((1, 2, 3), 1, 1, "a", []),
        ((1, 1, 2), 2, 1, "ab", []),
        ((2, 1, 1), 2, 1, "abc", [f"a: {LIE}"]),
        ((1, 2, 1), 2, 1, "abc", [f"b: {LIE}"]),
        ((3, 2, 1, 1), 2, 1, "abcd", [f"a: {LIE}", f"b: {LIE}"]),
        ((GONE, 1, 1), 2, 1, "abc", []),
        ((STRANGER, 1, 1), 2, 1, "abc", ["a: it speaks for another network"]),
        ((Untrue("a false proof"), 1, 1), 2, 1, "abc", ["a: a false proof"]),
        ((2, 1, GONE, 1, 5), 2, 1, "abcd", [f"a: {LIE}"]),
    ],
)
async def test_what_enough_servers_say_is_believed(
    says: tuple[int | Exception, ...], needed: int, told: int, asked: str, dropped: list[str]
) -> None:
    here = room(*says, needed=needed)
    assert await here.agreed() == [told] * needed
    assert "".join(voice.name for voice in here.voices if voice.heard) == asked
    assert sorted(here.dropped) == dropped


@pytest.mark.parametrize(
    ("says", "error", "message"),
    [
        ((1, 2), LedgerUnavailable, "do not agree, and none is believed: a, b"),
        ((1, 2, GONE), LedgerUnavailable, "do not agree"),
        ((1, GONE), LedgerUnavailable, "1 more lite-servers must agree .b: gone"),
        ((GONE, GONE), LedgerUnavailable, "no lite-server answered .a: gone; b: gone"),
        ((STRANGER, STRANGER), NetworkMismatch, "another network"),
        ((STRANGER, GONE), LedgerUnavailable, "no lite-server answered"),
        ((STRANGER, 1), LedgerUnavailable, "1 more"),
        ((Untrue("no"), Untrue("no")), LedgerUnavailable, "a: no"),
    ],
)
async def test_where_too_few_agree_nothing_is_believed(
    says: tuple[int | Exception, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await room(*says).agreed()


async def test_two_ways_to_one_server_are_one_voice() -> None:
    here = Room([Voice("a", 1, owner="x"), Voice("b", 1, owner="x"), Voice("c", 1)], 2)
    assert await here.agreed() == [1, 1]
    assert [voice.heard for voice in here.voices] == [1, 0, 1]
    with pytest.raises(LedgerUnavailable, match="1 more"):
        await Room(here.voices[:2], 2).agreed()


async def test_the_second_way_to_a_server_is_taken_where_the_first_is_blocked() -> None:
    here = Room([Voice("a", GONE, owner="x"), Voice("b", 1, owner="x")], 1)
    assert await here.agreed() == [1]


async def test_small_differences_may_be_allowed() -> None:
    here = room(100, 103, 90, 103)
    assert sorted(await here.agreed(spread=5)) == [100, 103]
    here.voices[0].says = 50
    assert await here.agreed(spread=5) == [103, 103]
    assert sorted(here.dropped) == [f"a: {LIE}", f"c: {LIE}"]


async def test_a_server_that_fails_is_asked_last_from_then_on() -> None:
    here = room(GONE, 1, 1)
    await here.agreed()
    await here.agreed()
    assert here.voices[0].heard == 1


async def test_a_server_that_lied_is_asked_again_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    here = room(2, 1, 1)
    await here.agreed()
    here.voices[0].says = 1
    await here.agreed()
    assert here.voices[0].heard == 1
    here.voices[1].says = GONE
    with pytest.raises(LedgerUnavailable, match="1 more"):
        await here.agreed()
    await trio.sleep(DROPPED_FOR_S)
    assert await here.agreed() == [1, 1]


async def test_servers_that_hang_cost_only_so_much_time(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    with pytest.raises(LedgerUnavailable):
        await room(None, None, None).agreed()
    assert trio.current_time() - started == PATIENCE_S


async def test_one_server_is_enough_for_what_proves_itself() -> None:
    here = room(GONE, Untrue("a false proof"), 3, 4)
    assert await here.panel.first(Voice.ask) == 3
    assert here.dropped == ["b: a false proof"]
    assert here.voices[3].heard == 0


async def test_a_message_is_handed_to_several_and_one_that_takes_it_is_enough() -> None:
    assert await room(1, 2, 3).panel.each(Voice.ask) in ([1, 2], [2, 1])
    assert await room(GONE, 2).panel.each(Voice.ask) == [2]
    with pytest.raises(LedgerUnavailable):
        await room(GONE, GONE).panel.each(Voice.ask)
