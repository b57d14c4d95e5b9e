"""A host in a process of its own: Ctrl-C, and what it says on stderr."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from loopback import a_host, raw

from p2p.host import Host

PROGRAM = """
import trio
from p2p.host import Verdict
from p2p.net.libp2p_host import open_host

async def main():
    async with open_host(bytes(32), ["/ip4/127.0.0.1/tcp/0"], dht_server=True, network="test") as host:
        async with host.subscribe("topic", lambda payload, peer: Verdict.ACCEPT):
            print(host.addresses()[0], flush=True)
            await trio.sleep_forever()

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
async def test_ctrl_c_ends_the_process_at_once_and_in_silence(busy: bool) -> None:
    """A busy process is struck inside one of the library's tasks, an idle one in ours."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        address = (await process.stdout.receive_some()).decode().strip()
        async with a_host("a") as a:
            peer = await a.connect(address)
            await upset(a, peer)
            if not busy:
                await trio.sleep(0.5)
            process.send_signal(signal.SIGINT)
            with trio.fail_after(10):
                await process.wait()
        assert (await process.stdout.receive_some()).strip() == b"interrupted"
        assert await process.stderr.receive_some() == b""
        assert process.returncode == 0
    finally:
        process.kill()
        await process.stdout.aclose()
        await process.stderr.aclose()


async def upset(host: Host, peer: str) -> None:
    """Do to `peer` a few of the things that the library likes to log."""
    for junk in (b"", b"\xff" * 100):
        for protocol in ("/meshsub/1.1.0", "/bombyx/test/kad/1.0.0", "/ipfs/id/push/1.0.0"):
            stream = await raw(host).new_stream(ID.from_base58(peer), [TProtocol(protocol)])
            await stream.write(junk)
            await stream.reset()
