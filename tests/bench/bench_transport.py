"""Our Noise and Yamux beside those of libp2p 0.8.1, in one run on loopback.

Run as `PYTHONPATH=. python tests/bench/bench_transport.py`.

Both ends share this process and its core, so the ratio is what counts. The rounds alternate; medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import libp2p.network.swarm as swarm
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from p2p.net import guards, noise
from p2p.net.muxer import MuxedStream
from p2p.net.stream import Libp2pStream

ANY_PORT = Multiaddr("/ip4/127.0.0.1/tcp/0")
SINK = TProtocol("/bench/sink/1")
PING = TProtocol("/bench/ping/1")
FRAME_BYTES, FRAMES = 100, 5_000
CHUNK_BYTES, CHUNKS = 65_536, 300
OPENS = 100
STOCK_DIAL_DELAY_S = 0.25  # guards.guard_process() would take it away from both


class Result(NamedTuple):
    connect_ms: float
    open_and_rtt_ms: float
    frames_per_s: float
    megabytes_per_s: float


def make_host(*, ours: bool) -> Any:
    key = create_new_key_pair()
    stock = StockNoise(key, noise_privkey=create_x25519().private_key)
    host = new_host(
        key_pair=key,
        sec_opt={NOISE: noise.NoiseTransport(key) if ours else stock},
        muxer_opt={TProtocol(YAMUX): Yamux},
        listen_addrs=[ANY_PORT],
        connection_config=guards.connection_config(),
    )
    if ours:
        guards.guard(host)
    swarm._HAPPY_EYEBALLS_DELAY = 0.0 if ours else STOCK_DIAL_DELAY_S
    return host


def as_used(net_stream: Any) -> Any:
    """The stream as a program gets it: ours through the seam, the library's as it is."""
    return Libp2pStream(net_stream) if isinstance(net_stream.muxed_stream, MuxedStream) else net_stream


async def open_stream(a: Any, peer: Any, protocol: TProtocol) -> Any:
    return as_used(await a.new_stream(peer, [protocol]))


async def read_exactly(stream: Any, size: int) -> None:
    while size:
        size -= len(await stream.read(size))


async def serve_ping(stream: Any) -> None:
    await stream.write(await stream.read(1))
    await stream.close()


async def serve_sink(stream: Any) -> None:
    """Read the number of bytes that is announced in 8 bytes, then say so."""
    announced = int.from_bytes(await stream.read(8), "big")
    await read_exactly(stream, announced)
    await stream.write(b"!")
    await stream.close()


@asynccontextmanager
async def hosts(*, ours: bool) -> AsyncIterator[tuple[Any, Any]]:
    a, b = make_host(ours=ours), make_host(ours=ours)
    for protocol, handler in ((SINK, serve_sink), (PING, serve_ping)):
        b.set_stream_handler(protocol, lambda net_stream, handler=handler: handler(as_used(net_stream)))
    async with a.run([ANY_PORT]), b.run([ANY_PORT]):
        yield a, b
        await a.get_network().close()


async def seconds(call: Callable[[], Any]) -> float:
    started_at = trio.current_time()
    await call()
    return trio.current_time() - started_at


async def push(a: Any, peer: Any, piece: bytes, count: int) -> float:
    """Seconds to write `count` pieces and hear that all arrived."""
    stream = await open_stream(a, peer, SINK)
    await stream.write((len(piece) * count).to_bytes(8, "big"))

    async def run() -> None:
        for _ in range(count):
            await stream.write(piece)
        await read_exactly(stream, 1)

    return await seconds(run)


async def measure(*, ours: bool) -> Result:
    async with hosts(ours=ours) as (a, b):
        peer = b.get_id()
        connect = await seconds(lambda: a.connect(PeerInfo(peer, b.get_transport_addrs())))
        await trio.sleep(0.3)  # for identify, both ways

        async def ping() -> None:
            stream = await open_stream(a, peer, PING)
            await stream.write(b"x")
            await read_exactly(stream, 1)
            await stream.close()

        pings = [await seconds(ping) for _ in range(OPENS)]
        frames = await push(a, peer, bytes(FRAME_BYTES), FRAMES)
        bulk = await push(a, peer, bytes(CHUNK_BYTES), CHUNKS)
        return Result(connect * 1e3, statistics.median(pings) * 1e3, FRAMES / frames, CHUNK_BYTES * CHUNKS / bulk / 1e6)


async def main(rounds: int) -> None:
    results: dict[bool, list[Result]] = {False: [], True: []}
    for _ in range(rounds):
        for kind, measured in results.items():
            measured.append(await measure(ours=kind))
    stock, ours = (
        Result(*(statistics.median(column) for column in zip(*measured, strict=True)))
        for measured in (results[False], results[True])
    )
    rows = [f"{'':18}{'stock':>12}{'ours':>12}{'better by':>12}"]
    for name, old, new in zip(Result._fields, stock, ours, strict=True):
        ratio = old / new if name.endswith("_ms") else new / old
        rows.append(f"{name:18}{old:12,.2f}{new:12,.2f}{ratio:11.1f}x")
    sys.stdout.write("\n".join(rows) + f"\nmedians of {rounds} alternating rounds\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    trio.run(main, parser.parse_args().rounds)
