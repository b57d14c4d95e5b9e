from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from market import open_market, question
from trio.testing import MockClock

from inference.engine import Delta
from inference.gpu import Gpu
from inference.script import answer as script
from inference.scripted import Scripted
from p2p.errors import LocalError, Refused
from p2p.manners import STOPPING, Manners, Pause, Seen, read_window
from p2p.owner import Owner, is_ours, on_battery
from p2p.purchase import buy

NIGHT = Manners((read_window("22:00-07:00"), read_window("12:00-13:00")))
HOUR_S = 3600


@pytest.mark.parametrize(
    ("hour", "for_h"), [(22, None), (3, None), (7, 5), (11.5, 0.5), (12.5, None), (13, 9), (21.75, 0.25)]
)
def test_outside_of_its_hours_a_provider_rests_until_the_next(hour: float, for_h: float | None) -> None:
    pause = NIGHT.pause(Seen(int(hour * HOUR_S)))
    assert (pause and pause.for_s) == (None if for_h is None else for_h * HOUR_S)


@given(begin=st.integers(0, 1439), end=st.integers(0, 1439), second=st.integers(0, 86_399))
def test_after_the_time_that_is_told_it_serves(begin: int, end: int, second: int) -> None:
    hours = read_window(f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")
    pause = Manners((hours,)).pause(Seen(second))
    if pause is not None:
        assert pause.for_s is not None
        assert pause.for_s > 0
        assert Manners((hours,)).pause(Seen((second + pause.for_s) % 86_400)) is None


@pytest.mark.parametrize("text", ["22-7", "24:00-01:00", "22:00-07:60", "22:00", "", "22:00-07:00 "])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LocalError, match="write it as 22:00-07:00"):
        read_window(text)


def test_what_has_no_known_end_is_told_first_and_only_if_the_owner_minds() -> None:
    seen = Seen(8 * HOUR_S, on_battery=True, gpu_in_use=True)
    assert Manners().pause(seen) is None
    for manners, reason in (
        (Manners(NIGHT.windows, on_battery=True, for_gpu=True), "on_battery"),
        (Manners(NIGHT.windows, for_gpu=True), "gpu_in_use"),
        (NIGHT, "out_of_hours"),
    ):
        pause = manners.pause(seen)
        assert pause is not None
        assert pause.reason == reason


def supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_text(content + "\n")


def test_a_machine_on_battery_is_known_by_its_mains_or_its_battery(tmp_path: Path) -> None:
    assert not on_battery(tmp_path)
    supply(tmp_path, "mouse", type="Battery", status="Discharging", scope="Device")
    assert not on_battery(tmp_path)
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", scope="System")
    assert on_battery(tmp_path)
    supply(tmp_path, "AC", type="Mains", online="1")
    assert not on_battery(tmp_path)
    supply(tmp_path, "AC", type="Mains", online="0")
    assert on_battery(tmp_path)


def test_a_process_that_descends_from_us_is_ours() -> None:
    assert is_ours(os.getpid())
    assert is_ours(os.getpid(), us=os.getppid())
    assert not is_ours(os.getppid())
    assert not is_ours(1 << 30)


def at(hour: int) -> time.struct_time:
    return time.struct_time((2027, 1, 31, hour, 0, 0, 6, 31, 0))


async def test_the_owner_is_looked_at_again_and_each_change_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    told: list[str] = []
    changed = trio.Event()
    hour, pids = 8, frozenset[int]()

    def trace(kind: str, /, **fields: object) -> None:
        told.append(f"{kind} {fields.get('reason', '')}".strip())
        changed.set()

    async def change() -> None:
        nonlocal changed
        changed = trio.Event()
        await changed.wait()

    manners = Manners(NIGHT.windows, on_battery=True, for_gpu=True)
    owner = Owner(
        manners,
        trace,
        root=tmp_path,
        local_time=lambda: at(hour),
        look_at_gpus=lambda: (Gpu("card", 10, 5, 30.0, 0, pids),),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(owner.watch)
        assert owner.pause() == Pause("out_of_hours", "the provider serves at other hours", 4 * HOUR_S)
        hour = 12
        await change()
        assert owner.pause() is None
        pids = frozenset({1 << 30})
        await change()
        supply(tmp_path, "BAT0", type="Battery", status="Discharging")
        await change()
        owner.stop()
        assert owner.pause() is STOPPING
        nursery.cancel_scope.cancel()
    assert told == ["paused out_of_hours", "resumed", "paused gpu_in_use", "paused on_battery"]


async def test_while_it_rests_a_provider_refuses_with_the_time_and_what_is_under_way_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    pauses: list[Pause] = []
    request = question(max_tokens=40)
    async with open_market(tmp_path) as market:
        seller = await market.seller(Scripted(tokens_per_s=10), pause=lambda: pauses[-1] if pauses else None)
        client, late = await market.customer(), await market.customer("late")
        pieces: list[str] = []
        began = trio.Event()

        async def ask() -> None:
            def piece(text: str) -> None:
                pieces.append(text)
                began.set()

            await buy(client.peer, request, piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await began.wait()
            assert seller.provider.advert()[0].models[0].slots_free > 0
            pauses.append(Pause("out_of_hours", "the provider serves at other hours", 4 * HOUR_S))
            assert seller.provider.advert()[0].models[0].slots_free == 0
            with pytest.raises(Refused) as refused:
                await buy(late.peer, request, lambda _: None)
            assert (refused.value.reason, refused.value.retry_after_s) == ("out_of_hours", 4 * HOUR_S)
            pauses.append(STOPPING)
            with trio.fail_after(60):
                await seller.provider.drained()
        assert "".join(pieces) == "".join(item.text for item in script(request) if isinstance(item, Delta))
