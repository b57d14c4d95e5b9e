"""Three peers on one loopback interface: one of another network, one that announces itself, one that looks for it.

Run in a network namespace of its own; prints what the third one found, as JSON.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys

import trio

from p2p.errors import LocalError
from p2p.net.mdns import on_lan

LOOPBACK = "127.0.0.1"
HERE = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWHere"
ELSEWHERE = "/ip4/127.0.0.1/tcp/4002/p2p/12D3KooWElsewhere"
_SIOCSIFFLAGS, _IFF_UP, _IFF_LOOPBACK, _IFF_MULTICAST = 0x8914, 0x1, 0x8, 0x1000  # linux/sockios.h, linux/if.h


def bring_loopback_up() -> None:
    """A new network namespace has it, switched off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_LOOPBACK | _IFF_MULTICAST))


async def find() -> str:
    sent, seen = trio.open_memory_channel[str](8)
    async with (
        on_lan(LOOPBACK, network="other", addresses=[ELSEWHERE], found=lambda _: None),
        on_lan(LOOPBACK, network="ours", addresses=[HERE], found=lambda _: None),
        on_lan(LOOPBACK, network="ours", addresses=[], found=sent.send_nowait),
    ):
        return await seen.receive()


async def use_an_interface_that_is_not_there() -> str:
    try:
        async with on_lan("192.0.2.1", network="ours", addresses=[], found=lambda _: None):
            return "it was used"
    except LocalError as error:
        return str(error)


async def main() -> None:
    with trio.fail_after(30):
        seen = {"found": [await find()], "refused": await use_an_interface_that_is_not_there()}
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    bring_loopback_up()
    trio.run(main)
