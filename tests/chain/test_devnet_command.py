"""`python -m chain.devnet` as a process: how it starts, what it says, and that it always ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from pytoniq import LiteClient
from pytoniq_core import Address
from trio_asyncio import aio_as_trio, open_loop

from chain.devnet.control import ControlFailed, open_control

COMMAND = [sys.executable, "-m", "chain.devnet"]
DEADLINE_S = 30
GRAM = 10**9
SOMEONE = "0:" + "07" * 32

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "chain.devnet", "--json", "--until-stdin-closes"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@asynccontextmanager
async def running(*flags: str, stdin: int = subprocess.DEVNULL) -> AsyncIterator[tuple[trio.Process, bytes]]:
    """A devnet that is up, and what it had said by then. Ended by force if the test has not ended it."""
    with trio.fail_after(DEADLINE_S):
        process = await trio.lowlevel.open_process(COMMAND + list(flags), stdin=stdin, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with process.stdout:
                said = b""
                while b"Ctrl-C" not in said and not said.startswith(b"{"):
                    said += await process.stdout.receive_some()
                yield process, said
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if process.stdin is not None:
                await process.stdin.aclose()


async def refused(*flags: str) -> str:
    """The one line that a devnet said as it would not start."""
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(
            COMMAND + list(flags), stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False
        )
    assert done.returncode == 2
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    return line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_writes_a_config_that_clients_take_and_ends_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "ton.json"
    async with running("--json", "--config-out", str(file)) as (process, said):
        config = json.loads(file.read_text())
        assert json.loads(said) == config
        assert config["bombyx"]["name"] == "devnet"
        assert config["bombyx"]["global_id"] == -239
        async with open_loop(), open_control(config["bombyx"]["control"]) as controls:
            client = LiteClient.from_config(config, trust_level=2)
            await aio_as_trio(client.connect)()
            then = await controls.advance(1000)
            assert (await aio_as_trio(client.get_time)())["now"] >= then
            await aio_as_trio(client.close)()
        process.send_signal(number)
        assert await process.wait() == 0


@pytest.mark.slow
async def test_it_tells_a_person_where_it_listens() -> None:
    async with running() as (_, said):
        assert b"127.0.0.1:" in said
        assert b"control" in said


@pytest.mark.slow
async def test_it_ends_when_its_standard_input_does() -> None:
    async with running("--json", "--until-stdin-closes", stdin=subprocess.PIPE) as (process, _):
        assert process.stdin is not None
        await process.stdin.aclose()
        assert await process.wait() == 0


@pytest.mark.slow
async def test_it_does_not_outlive_a_parent_that_was_killed() -> None:
    with trio.fail_after(DEADLINE_S):
        parent = await trio.lowlevel.open_process([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
        assert parent.stdout is not None
        async with parent.stdout:
            devnet = int(await parent.stdout.receive_some())
            parent.kill()
            await parent.wait()
            while _lives(devnet):  # noqa: ASYNC110 - it is no child of ours
                await trio.sleep(0.05)


def _lives(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--bogus"], "--bogus"),
        (["--port", "99999"], "0 to 65535"),
        (["--host", "localhost"], "IPv4"),
        (["--config-out", "no/such/folder/ton.json"], "cannot write no/such/folder/ton.json"),
        (["--until-stdin-closes"], "pipe"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_line(flags: list[str], says: str) -> None:
    assert says in await refused(*flags)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--port", "--control-port"])
async def test_a_taken_port_is_refused_with_what_to_do(flag: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        assert await refused(flag, str(port)) == (
            f"chain.devnet: port {port} is taken: give another to {flag}, or 0 for any free one"
        )


# --- with a state file


async def given(control: str, amount_nano: int) -> int:
    async with open_control(control) as controls:
        return await controls.faucet(SOMEONE, amount_nano)


@pytest.mark.slow
async def test_a_devnet_that_was_killed_goes_on_with_all_that_it_had_confirmed(tmp_path: Path) -> None:
    """Killed ten times at moments of its own while money is being given: no confirmed gift is ever lost."""
    state = str(tmp_path / "devnet.state")
    confirmed, key = 0, None
    for round_ in range(10):
        async with running("--json", "--state", state) as (process, said):
            config = json.loads(said)
            assert key in (None, config["liteservers"][0]["id"])
            key = config["liteservers"][0]["id"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_kill_after, process, 0.01 * round_)
                try:
                    while True:
                        assert await given(config["bombyx"]["control"], GRAM) >= confirmed * 999 * GRAM // 1000
                        confirmed += 1
                except ControlFailed:
                    pass
            assert await process.wait() == -signal.SIGKILL
    async with running("--json", "--state", state) as (_, said):
        assert await given(json.loads(said)["bombyx"]["control"], 1) >= confirmed * 999 * GRAM // 1000 > 0


async def _kill_after(process: trio.Process, seconds: float) -> None:
    await trio.sleep(seconds)
    process.kill()


@pytest.mark.slow
async def test_a_client_goes_on_with_a_devnet_that_was_started_again(tmp_path: Path) -> None:
    """Under the same key and port, and the chain's clock stays ahead."""
    flags = ("--json", "--state", str(tmp_path / "devnet.state"))
    async with running(*flags) as (process, said):
        config = json.loads(said)
        async with open_control(config["bombyx"]["control"]) as controls:
            then = await controls.advance(86400)
            await controls.faucet(SOMEONE, GRAM)
        process.kill()
        await process.wait()
    port = str(config["liteservers"][0]["port"])
    async with running(*flags, "--port", port) as (process, said), open_loop():
        client = LiteClient.from_config(config, trust_level=2)
        await aio_as_trio(client.connect)()
        assert (await aio_as_trio(client.get_time)())["now"] >= then
        assert (await aio_as_trio(client.get_account_state)(Address(SOMEONE))).balance == GRAM
        (taken,) = await aio_as_trio(client.get_transactions)(Address(SOMEONE), 10)
        assert taken.in_msg.info.value_coins == GRAM
        await aio_as_trio(client.close)()


@pytest.mark.slow
async def test_a_state_file_that_is_damaged_or_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    state = tmp_path / "devnet.state"
    async with running("--json", "--state", str(state)) as (process, _):
        assert await refused("--state", str(state)) == f"chain.devnet: {state} is in use"
        process.terminate()
        assert await process.wait() == 0
    state.write_bytes(state.read_bytes()[:5000])
    assert "damaged" in await refused("--state", str(state))
    state.write_text("not a state file" * 100)
    assert "damaged, or not a devnet's" in await refused("--state", str(state))
