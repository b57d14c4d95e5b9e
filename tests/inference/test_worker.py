from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path

import holding
import pytest
import trio

from inference import worker
from inference.engine import Capacity, Delta, Finished, Message, Request
from inference.errors import EngineDied, EngineError, ModelMissing
from inference.frames import encode
from inference.link import Health, Ready, Value
from inference.llamacpp import GgufFile, LlamaCpp
from inference.script import answer
from inference.scripted import SCRIPTED_MODEL, Scripted
from inference.worker import Worker, open_worker

FAST = Scripted(slots=4, ttft_s=0.01, tokens_per_s=1000)
SLOW = Scripted(slots=2, ttft_s=0.01, tokens_per_s=20)


def ask(content: str = "one two", max_tokens: int = 20) -> Request:
    return Request(model=SCRIPTED_MODEL.id, messages=(Message("user", content),), max_tokens=max_tokens)


async def collect(engine: Worker, request: Request) -> list[Delta | Finished]:
    async with engine.generate(request) as items:
        return [item async for item in items]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a process whose reaper is slow has ended all the same


async def ends(pid: int) -> None:
    with trio.fail_after(5):
        while is_running(pid):  # noqa: ASYNC110 - a process that is not our child has no event to wait for
            await trio.sleep(0.02)


def pid_of(engine: Worker) -> int:
    assert engine.pid is not None
    return engine.pid


async def test_a_hundred_answers_at_once_are_not_mixed_up() -> None:
    async def client(number: int) -> None:
        request = ask(f"number {number}", max_tokens=1 + number)
        assert await collect(engine, request) == list(answer(request))

    async with open_worker(FAST) as engine, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(client, number)


async def test_a_slow_reader_holds_up_nobody_and_loses_nothing() -> None:
    async with open_worker(FAST) as engine, engine.generate(ask("slow", 64)) as items:
        for number in range(8):
            assert len(await collect(engine, ask(f"{number}"))) == 21
        assert [item async for item in items] == list(answer(ask("slow", 64)))


async def test_leaving_cancels_in_the_worker() -> None:
    async with open_worker(SLOW) as engine:
        async with engine.generate(ask("first", 64)) as first, engine.generate(ask("second", 64)) as second:
            await anext(first)
            await anext(second)
            assert engine.capacity() == Capacity(free=0, total=2)
            with trio.move_on_after(0.3) as queued:  # an answer would take seconds
                await collect(engine, ask("third", 1))
            assert queued.cancelled_caught
        with trio.fail_after(1):
            assert len(await collect(engine, ask("fourth", 1))) == 2
            assert engine.capacity() == Capacity(free=2, total=2)


async def test_a_killed_worker_fails_its_requests_and_the_next_one_restarts_it() -> None:
    failed: list[int] = []

    async def client(number: int) -> None:
        with pytest.raises(EngineDied):
            await collect(engine, ask(f"{number}", 64))
        failed.append(number)

    async with open_worker(SLOW) as engine:
        old = pid_of(engine)
        async with trio.open_nursery() as nursery:
            for number in range(5):  # two run, three wait
                nursery.start_soon(client, number)
            await trio.sleep(0.3)
            assert engine.capacity() == Capacity(free=0, total=2)
            os.kill(old, signal.SIGKILL)
        assert sorted(failed) == list(range(5))
        assert engine.capacity() == Capacity(free=2, total=2)
        assert await collect(engine, ask(max_tokens=2)) == list(answer(ask(max_tokens=2)))
        assert pid_of(engine) != old
        assert not is_running(old)


async def test_killed_with_eight_requests_running_all_fail_the_worker_is_back_and_the_loop_is_never_held_up() -> None:
    failed: list[int] = []

    async def client(number: int) -> None:
        with pytest.raises(EngineDied, match="the engine's process ended"):
            await collect(engine, ask(f"{number}", 64))
        failed.append(number)

    async with open_worker(Scripted(slots=8, ttft_s=0.01, tokens_per_s=20)) as engine:
        with holding.steps() as held_s:
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(client, number)
                with trio.fail_after(10):
                    while engine.capacity().free:  # noqa: ASYNC110 - how many run has no event
                        await trio.sleep(0.01)
                os.kill(pid_of(engine), signal.SIGKILL)
            with trio.fail_after(30):  # seconds on a machine that has time for us
                await collect(engine, ask(max_tokens=2))
    assert sorted(failed) == list(range(8))
    assert statistics.quantiles(held_s, n=100)[98] < 0.05


async def test_a_request_that_meets_a_worker_just_dead_fails_at_once() -> None:
    async with open_worker(FAST) as engine:
        child = await engine.start()
        os.kill(child.process.pid, signal.SIGKILL)
        while engine.pid is not None:  # noqa: ASYNC110 - the owner's view of a death has no event
            await trio.sleep(0.01)
        with pytest.raises(EngineDied), child.job(Health, limit=1):
            pass


async def test_a_worker_that_keeps_dying_is_left_alone_until_it_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PATIENCE_S", 0.3)
    async with open_worker(FAST) as engine:
        await collect(engine, ask())
        for _ in range(3):  # waits of 0.1, 0.2 and 0.4 s
            await engine.health()
            pid = pid_of(engine)
            os.kill(pid, signal.SIGKILL)
            while engine.pid == pid:  # noqa: ASYNC110 - the owner's view of a death has no event
                await trio.sleep(0.01)
        assert engine.capacity().free == 0
        with pytest.raises(EngineError, match="keeps dying"):
            await collect(engine, ask())
        await trio.sleep(0.15)
        await collect(engine, ask())
        await engine.health()


async def test_a_terminals_interrupt_is_not_the_workers() -> None:
    async with open_worker(SLOW) as engine:
        assert os.getpgid(pid_of(engine)) != os.getpgid(0)
        async with engine.generate(ask(max_tokens=5)) as items:
            await anext(items)
            os.kill(pid_of(engine), signal.SIGINT)
            assert len([item async for item in items]) == 5


async def test_closing_ends_the_process_quickly_even_in_the_middle_of_an_answer() -> None:
    with trio.fail_after(4):
        async with open_worker(Scripted(stall_after=1)) as engine:
            pid = pid_of(engine)
            async with engine.generate(ask()) as items:
                await anext(items)
                os.kill(pid, signal.SIGSTOP)  # it cannot even leave by itself
    assert not is_running(pid)


async def test_a_start_that_fails_says_why() -> None:
    with pytest.raises(ModelMissing, match=r"/no/such\.gguf: No such file"):
        await open_worker(LlamaCpp(model=GgufFile("/no/such.gguf", "a/b", "llama"))).__aenter__()


async def test_a_file_that_is_no_model_fails_as_an_engine_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineError, match="cannot load"):
        await open_worker(LlamaCpp(model=GgufFile(str(path), "a/b", "llama"))).__aenter__()


def impostor(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Start `code` in the worker's place: a real process that is no good."""
    monkeypatch.setattr(worker, "_PROGRAM", ["-c", textwrap.dedent(code)])


@pytest.mark.parametrize(
    ("code", "error", "why"),
    [
        ("pass", EngineDied, "ended while it started"),
        ("raise SystemExit(3)", EngineDied, "ended while it started"),
        ("import os; os.write(1, b'Hello, I am a log line')", EngineDied, "too large"),
        ("import os; os.write(1, bytes([0, 0, 0, 2, 1, 2]))", EngineDied, "no message"),
        ("import time; time.sleep(60)", EngineError, "did not start within 1 s"),
    ],
)
async def test_a_bad_start_is_an_error_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, code: str, error: type[EngineError], why: str
) -> None:
    impostor(monkeypatch, code)
    with trio.fail_after(6), pytest.raises(error, match=why):
        await open_worker(FAST, start_timeout_s=1).__aenter__()


@pytest.mark.parametrize(
    "reply",
    [b"garbage, and a lot of it", encode(Value(1, 5)), encode(Value(999, 5)), encode(Ready((), 0))],
    ids=["garbage", "of the wrong kind", "for nobody", "twice ready"],
)
async def test_garbage_in_the_middle_fails_the_requests_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    ready = encode(Ready((SCRIPTED_MODEL,), 1))
    impostor(
        monkeypatch,
        f"""
        import os, time
        os.read(0, 65536)
        os.write(1, {ready!r})
        os.read(0, 65536)
        os.write(1, {reply!r})
        time.sleep(60)
        """,
    )
    async with open_worker(FAST) as engine:
        pid = pid_of(engine)
        with pytest.raises(EngineDied):
            await collect(engine, ask())
        await ends(pid)


async def test_a_worker_that_says_more_than_it_was_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor(
        monkeypatch,
        f"""
        import os, time
        from inference.frames import *
        from inference.link import *
        os.read(0, 65536)
        os.write(1, {encode(Ready((SCRIPTED_MODEL,), 1))!r})
        os.read(0, 65536)
        while True:
            os.write(1, encode(Piece(1, Delta("a", 0))))
        """,
    )
    async with open_worker(FAST) as engine, engine.generate(ask(max_tokens=10)) as items:
        await ends(pid_of(engine))
        assert [await anext(items) for _ in range(13)] == [Delta("a", 0)] * 13
        with pytest.raises(EngineDied, match="more than it was asked"):
            await anext(items)


OWNER = """
import sys, trio
from inference.engine import Message, Request
from inference.llamacpp import LlamaCpp
from inference.scripted import Scripted
from inference.worker import open_worker

async def main():
    async with open_worker({spec}) as engine:
        request = Request(model=engine.models()[0].id, messages=(Message("user", "Tell a story."),), max_tokens=400)
        async with engine.generate(request) as items:
            await anext(items)
            print(engine.pid, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize(
    "spec",
    ["Scripted()", "Scripted(stall_after=1)", pytest.param("LlamaCpp(slots=1, context=512)", marks=pytest.mark.slow)],
)
async def test_the_worker_ends_when_its_owner_is_killed(spec: str) -> None:
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-c", OWNER.format(spec=spec)], stdout=subprocess.PIPE, cwd=Path(worker.__file__).parent.parent
    )
    assert owner.stdout is not None
    async with owner.stdout:
        pid = int(await owner.stdout.receive_some())
        assert is_running(pid)
        owner.kill()
        await owner.wait()
        await ends(pid)


async def test_the_kernel_ends_a_worker_whose_interpreter_is_held_up() -> None:
    code = """
    from inference.child import ended_by_kernel
    with ended_by_kernel(0):
        print("armed", flush=True)
        sum(range(10**15))  # never lets go of the GIL, as loading a model does
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(worker.__file__).parent.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdout:
        await process.stdout.receive_some()
        await process.stdin.aclose()
        with trio.move_on_after(5):
            await process.wait()
        process.kill()
        assert await process.wait() == -signal.SIGIO
