"""One stream between two processes on loopback: our Noise and Yamux, those of libp2p 0.8.1, and js-libp2p's.

    PYTHONPATH=. python tests/bench/bench_transport.py [--rounds N]

The rounds alternate; medians are printed, beside what ChaCha20-Poly1305 alone could seal. Ends with 1 if ours is not
at least `FRAMES_BETTER` times the library's in small frames, and `BULK_BETTER` times in bulk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from p2p.net.libp2p_host import open_host

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "chain"))
import javascript  # noqa: E402

INTEROP = HERE.parent / "interop"
ANY_PORT = "/ip4/127.0.0.1/tcp/0"
SINK = "/bench/sink/1"  # the number of bytes in 8 bytes and the bytes; answered by one byte
PING = "/bench/ping/1"  # a byte each way
FRAME_BYTES, FRAMES = 100, 10_000
CHUNK_BYTES, CHUNKS = 65_536, 400
OPENS = 50
FRAMES_BETTER, BULK_BETTER = 5, 2
STOCK, OURS, JS = "libp2p 0.8.1", "ours", "js-libp2p"


class Result(NamedTuple):
    """Of one round. CPU is in microseconds for each small frame."""

    connect_ms: float
    open_and_rtt_ms: float
    frames_per_s: float
    megabytes_per_s: float
    sender_cpu_us: float
    receiver_cpu_us: float


NOT_MEASURED = float("nan")


# The two ends, as a program gets them: ours through the seam, the library's as it is


class Ours:
    def __init__(self, host: Any) -> None:
        self._host = host

    def serve(self, protocol: str, handler: Callable[[Any], Any]) -> None:
        self._host.serve(protocol, handler)

    def address(self) -> str:
        return str(self._host.addresses()[0])

    async def connect(self, address: str) -> str:
        return str(await self._host.connect(address))

    async def open(self, peer: str, protocol: str) -> Any:
        return await self._host.open(peer, protocol)


class Stock:
    def __init__(self, host: Any) -> None:
        self._host = host

    def serve(self, protocol: str, handler: Callable[[Any], Any]) -> None:
        self._host.set_stream_handler(TProtocol(protocol), handler)

    def address(self) -> str:
        return str(self._host.get_addrs()[0])

    async def connect(self, address: str) -> Any:
        info = info_from_p2p_addr(Multiaddr(address))
        await self._host.connect(info)
        return info.peer_id

    async def open(self, peer: Any, protocol: str) -> Any:
        return await self._host.new_stream(peer, [TProtocol(protocol)])


@asynccontextmanager
async def host(kind: str) -> AsyncIterator[Ours | Stock]:
    if kind == OURS:
        seed = create_new_key_pair().private_key.to_bytes()
        async with open_host(seed, [ANY_PORT], dht_server=False, network="bench") as one:
            yield Ours(one)
        return
    key = create_new_key_pair()
    stock = new_host(
        key_pair=key,
        sec_opt={NOISE: StockNoise(key, noise_privkey=create_x25519().private_key)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        listen_addrs=[Multiaddr(ANY_PORT)],
        connection_config=ConnectionConfig(low_watermark=0, high_watermark=100, min_connections=0),
    )
    async with stock.run([Multiaddr(ANY_PORT)]):
        yield Stock(stock)


async def read_exactly(stream: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await stream.read(size - len(data))
    return bytes(data)


async def serve_ping(stream: Any) -> None:
    await stream.write(await stream.read(1))
    await stream.close()


async def serve_sink(stream: Any) -> None:
    left = int.from_bytes(await read_exactly(stream, 8), "big")
    while left:
        left -= len(await stream.read(min(left, CHUNK_BYTES)))
    await stream.write(b"!")
    await stream.close()


async def serve(kind: str) -> None:
    """Print where it listens and who it is, and serve until the input ends."""
    async with host(kind) as one:
        one.serve(SINK, serve_sink)
        one.serve(PING, serve_ping)
        print(one.address(), flush=True)  # noqa: T201
        await trio.lowlevel.wait_readable(sys.stdin)


# What is measured


async def seconds(call: Callable[[], Any]) -> float:
    started_at = trio.current_time()
    await call()
    return trio.current_time() - started_at


async def push(one: Ours | Stock, peer: Any, piece: bytes, count: int) -> float:
    """Seconds to write `count` pieces and hear that all arrived."""
    stream = await one.open(peer, SINK)
    await stream.write((len(piece) * count).to_bytes(8, "big"))

    async def run() -> None:
        for _ in range(count):
            await stream.write(piece)
        await read_exactly(stream, 1)

    return await seconds(run)


def cpu_s(pid: int) -> float:
    """Processor time of another process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100  # clock ticks, a hundred a second on every Linux


async def measure(kind: str, address: str, server: int) -> Result:
    async with host(kind) as one:
        peers = []

        async def connect() -> None:
            peers.append(await one.connect(address))

        async def ping() -> None:
            stream = await one.open(peers[0], PING)
            await stream.write(b"x")
            await read_exactly(stream, 1)
            await stream.close()

        connect_s = await seconds(connect)
        await trio.sleep(0.3)  # for identify, both ways
        pings = [await seconds(ping) for _ in range(OPENS)]
        before = time.process_time(), cpu_s(server)
        frames_s = await push(one, peers[0], bytes(FRAME_BYTES), FRAMES)
        sender_s, receiver_s = time.process_time() - before[0], cpu_s(server) - before[1]
        bulk_s = await push(one, peers[0], bytes(CHUNK_BYTES), CHUNKS)
    return Result(
        connect_s * 1e3,
        statistics.median(pings) * 1e3,
        FRAMES / frames_s,
        CHUNK_BYTES * CHUNKS / bulk_s / 1e6,
        sender_s / FRAMES * 1e6,
        receiver_s / FRAMES * 1e6,
    )


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A process that prints its address and serves until its input ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip(), process.pid
        process.stdin.close()


def output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def one_round(kind: str) -> Result:
    """In two fresh processes."""
    if kind == JS:
        return one_round_of_js()
    me = [sys.executable, __file__]
    with serving([*me, "serve", kind]) as (address, pid):
        return Result(*json.loads(output([*me, "measure", kind, address, str(pid)])))


def one_round_of_js() -> Result:
    node = [str(javascript.NODE), str(INTEROP / "rate.mjs")]
    with serving([*node, "serve"]) as (address, _):
        frames_s, bulk_s = (
            float(output([*node, "push", address, str(size), str(count)]))
            for size, count in ((FRAME_BYTES, FRAMES), (CHUNK_BYTES, CHUNKS))
        )
    rates = FRAMES / frames_s, CHUNK_BYTES * CHUNKS / bulk_s / 1e6
    return Result(NOT_MEASURED, NOT_MEASURED, *rates, NOT_MEASURED, NOT_MEASURED)


def sealed_per_s(size: int, count: int) -> float:
    """Messages of `size` bytes that the cipher alone seals, on one core."""
    cipher, data, nonce = ChaCha20Poly1305(bytes(32)), bytes(size), bytes(12)
    started_at = time.perf_counter()
    for _ in range(count):
        cipher.encrypt(nonce, data, b"")
    return count / (time.perf_counter() - started_at)


# The table


def table(results: dict[str, list[Result]], cipher: tuple[float, float]) -> Sequence[str]:
    medians = {kind: Result(*map(statistics.median, zip(*rounds, strict=True))) for kind, rounds in results.items()}
    heads = [*medians, "cipher alone", "ours / libp2p 0.8.1"]
    rows = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in Result._fields:
        cells = [getattr(result, name) for result in medians.values()]
        alone = {"frames_per_s": cipher[0], "megabytes_per_s": cipher[1] * CHUNK_BYTES / 1e6}.get(name, NOT_MEASURED)
        ratio = getattr(medians[OURS], name) / getattr(medians[STOCK], name)
        rows.append(f"| {name} | {' | '.join(map(shown, [*cells, alone]))} | {ratio:.2f} |")
    return rows


def shown(number: float) -> str:
    return "" if number != number else f"{number:,.1f}"


def main(rounds: int) -> int:
    kinds = [STOCK, OURS]
    missing = javascript.unavailable(INTEROP)
    if not missing:
        kinds.append(JS)
    results: dict[str, list[Result]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            results[kind].append(one_round(kind))
    cipher = sealed_per_s(FRAME_BYTES, 50_000), sealed_per_s(CHUNK_BYTES, 2_000)
    lines = [*table(results, cipher), "", f"Medians of {rounds} alternating rounds."]
    if missing:
        lines.append(f"js-libp2p was not measured: {missing}.")
    better = {
        "small frames": ratio(results, "frames_per_s") >= FRAMES_BETTER,
        "bulk": ratio(results, "megabytes_per_s") >= BULK_BETTER,
    }
    lines += [f"NOT GOOD ENOUGH: {what}" for what, good in better.items() if not good]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(not all(better.values()))


def ratio(results: dict[str, list[Result]], name: str) -> float:
    """Ours by the library's, medians."""
    ours, stock = (statistics.median(getattr(one, name) for one in results[kind]) for kind in (OURS, STOCK))
    return float(ours / stock)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", kind]:
            trio.run(serve, kind)
        case ["measure", kind, address, server]:
            sys.stdout.write(json.dumps(trio.run(measure, kind, address, int(server))))
        case _:
            parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
            parser.add_argument("--rounds", type=int, default=5)
            sys.exit(main(parser.parse_args().rounds))
