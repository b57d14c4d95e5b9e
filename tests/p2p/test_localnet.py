"""Child processes: ready or explained, followed, and ended whatever they think of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from p2p.errors import Unavailable
from p2p.localnet import Child, Record


@asynccontextmanager
async def a_child(directory: Path, program: str) -> AsyncIterator[Child]:
    log = directory / "child.log"
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-u", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    child = Child("child", process, log)
    try:
        yield child
    finally:
        await child.end()
    assert process.returncode is not None


async def test_a_child_is_ready_followed_and_ended(tmp_path: Path) -> None:
    said = 'import sys; print(\'{"event": "ready", "n": 1}\'); print(\'{"n": 2}\', end=\'\'); print(\'\\n{"n": 3}\')'
    heard: list[Record] = []

    def note(record: Record) -> None:
        heard.append(record)
        if len(heard) == 2:
            patience.cancel()

    async with a_child(tmp_path, f"{said}; sys.stdin.read()") as child:
        await child.wait_ready()
        assert child.ready == {"event": "ready", "n": 1}
        with trio.move_on_after(5) as patience:
            await child.follow(lambda _, record: note(record))
    assert [record["n"] for record in heard] == [2, 3]


async def test_what_happens_before_a_child_is_ready_is_not_taken_for_it(tmp_path: Path) -> None:
    said = """import sys; print('{"event": "reachable"}'); print('{"event": "ready", "n": 1}', flush=True)"""
    async with a_child(tmp_path, f"{said}; sys.stdin.read()") as child:
        await child.wait_ready()
        assert child.ready == {"event": "ready", "n": 1}


async def test_a_child_that_dies_is_quoted(tmp_path: Path) -> None:
    async with a_child(tmp_path, "raise SystemExit('out of luck')") as child:
        with pytest.raises(Unavailable, match="child did not start: out of luck"):
            await child.wait_ready()
    failure = (
        """import sys; print("bombyx: no luck", file=sys.stderr); print('{"error": "no luck"}'); sys.stdin.read()"""
    )
    async with a_child(tmp_path, failure) as child:
        with pytest.raises(Unavailable, match="child did not start: bombyx: no luck"):
            await child.wait_ready()
    async with a_child(tmp_path, "") as child:
        with pytest.raises(Unavailable, match="it said nothing"):
            await child.wait_ready()


async def test_a_child_that_babbles_is_no_child_of_ours(tmp_path: Path) -> None:
    async with a_child(tmp_path, "print('hello')") as child:
        with pytest.raises(Unavailable, match="no record"):
            await child.wait_ready()


async def test_a_child_that_does_not_start_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p.localnet.START_TIMEOUT_S", 0.2)
    async with a_child(tmp_path, "import sys; sys.stdin.read()") as child:
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await child.wait_ready()


async def test_a_child_that_does_not_want_to_end_is_made_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.localnet.END_TIMEOUT_S", 0.2)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}'); time.sleep(60)"
    async with a_child(tmp_path, stubborn) as child:
        await child.wait_ready()
        started = trio.current_time()
    assert trio.current_time() - started < 10
