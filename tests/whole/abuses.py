"""What strangers do to a node, told by lines on standard input: `python -m abuses NETWORK SEED ADDRESS…`

Each line names an abuse, a count, and for how many seconds to hold on to what only hangs around; the answer is one line
of JSON when it is over. Every loop is bounded, in what it does and in what it does at once. All of it comes from
addresses of this machine that nobody else here uses.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import trio
from google.protobuf.message import Message as Protobuf
from intruder import (
    ACK,
    DATA,
    GONE,
    MULTISTREAM,
    NOISE,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Intruder,
    Target,
    chunk,
    intrude,
    knock,
    line,
    varint,
)
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import PUBSUB_SIGNING_PREFIX

from chain.keys import Ed25519Signer
from p2p.keys import peer_id_of
from p2p.protocol import advert, negotiate, release, session
from p2p.protocol.advert import MAX_LIFETIME_S, Advert, ChannelOffer, ModelOffer
from p2p.protocol.price import Prices
from p2p.protocol.wire import Signed, encode, sign

AT_ONCE = 32
FLOOD_LIFE_S = 60  # of an advert that nobody needs
SOURCES = tuple(f"127.66.0.{number}" for number in range(1, 5))
PROTOCOLS = (advert.PROTOCOL, negotiate.PROTOCOL, session.PROTOCOL, release.PROTOCOL)
GOSSIP = "/meshsub/1.1.0"


@dataclass
class Abuser:
    """One who has a go at some nodes of a network. `now` is unix time."""

    network: str
    targets: Sequence[Target]
    now: Callable[[], float]
    dice: random.Random
    hold_s: float = 0.0
    refused: int = 0  # connections that did not come about, or were cut off

    @property
    def protocols(self) -> tuple[str, ...]:
        """Everything that a node may serve."""
        own = (f"/bombyx/{self.network}/kad/1.0.0", GOSSIP, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0")
        return (*PROTOCOLS, *own)

    async def each(self, count: int, do: Callable[[int, Target, str], Awaitable[None]], at_once: int = AT_ONCE) -> None:
        """`do` it so many times, to all targets from all sources by turns."""
        left = iter(range(count))

        async def some() -> None:
            for number in left:
                target = self.targets[number % len(self.targets)]
                try:
                    await do(number, target, SOURCES[number % len(SOURCES)])
                except (*GONE, trio.TooSlowError):
                    self.refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(min(count, at_once)):
                nursery.start_soon(some)

    async def visit(self, count: int, do: Callable[[Intruder], Awaitable[None]], at_once: int = AT_ONCE) -> None:
        """The same over connections that were let in, each by somebody else."""

        async def one(_number: int, target: Target, source: str) -> None:
            async with intrude(target, source, self.dice.randbytes(32)) as intruder, trio.open_nursery() as nursery:
                nursery.start_soon(intruder.listen)
                try:
                    await do(intruder)
                except (*GONE, trio.TooSlowError):
                    self.refused += 1  # cut off in the middle of it
                nursery.cancel_scope.cancel()

        await self.each(count, one, at_once)


async def garbage(abuser: Abuser, count: int) -> None:
    """Random bytes, half of them where a handshake is expected."""

    async def one(number: int, target: Target, source: str) -> None:
        prefix = line(MULTISTREAM) + line(NOISE) if number % 2 else b""
        async with await knock(target, source) as stream:
            await stream.send_all(prefix + abuser.dice.randbytes(abuser.dice.choice([1, 20, 5000])))

    await abuser.each(count, one)


async def half_handshakes(abuser: Abuser, count: int) -> None:
    """Connections that stop at some point of the handshake and stay, as many at once as are let."""
    hello = line(MULTISTREAM)
    stages = (
        b"",
        hello,
        hello[:5],
        hello + line(NOISE),
        hello + line(NOISE) + b"\x00\x20",
        hello + line(NOISE) + b"\xff\xff",
    )

    async def one(number: int, target: Target, source: str) -> None:
        async with await knock(target, source) as stream:
            await stream.send_all(stages[number % len(stages)])
            with trio.move_on_after(abuser.hold_s):
                while await stream.receive_some(1000):
                    pass

    await abuser.each(count, one, at_once=1000)


async def connections(abuser: Abuser, count: int) -> None:
    """Connections that come and go; every tenth shakes hands."""

    async def one(number: int, target: Target, source: str) -> None:
        if number % 10:
            async with await knock(target, source):
                return
        async with intrude(target, source, abuser.dice.randbytes(32)) as intruder:
            await intruder.open("/ipfs/ping/1.0.0", bytes(32))

    await abuser.each(count, one)


async def streams(abuser: Abuser, count: int) -> None:
    """Very many streams over a few connections: silent ones, half agreed ones, and ones full of data."""

    async def one(intruder: Intruder) -> None:
        for number in range(max(1, count // 4)):
            kind = number % 4
            if kind == 0:
                await intruder.open()
            elif kind == 1:
                await intruder.open(said=line(MULTISTREAM)[:7])
            elif kind == 2:
                await intruder.open(abuser.protocols[number % len(abuser.protocols)])
            else:
                await intruder.open("/unheard/of/1", bytes(2000))
        await trio.sleep(abuser.hold_s)

    await abuser.visit(4 * len(abuser.targets), one)


async def huge_frames(abuser: Abuser, count: int) -> None:
    """Lengths over every limit, with and without what they promise."""
    huge = 0xFFFF_FFFF

    async def one(intruder: Intruder) -> None:
        protocol = abuser.dice.choice(abuser.protocols)
        match abuser.dice.randrange(6):
            case 0:
                await intruder.send(DATA, SYN, 1, huge, bytes(50_000))
            case 1:
                await intruder.say(await intruder.open(protocol), bytes(600_000))
            case 2:
                await intruder.open(protocol, varint(1 << 21) + bytes(1000))
                await intruder.open(protocol, b"\xff" * 1000)
            case 3:
                await intruder.open(said=varint(1 << 40) + bytes(1000))
            case 4:
                await intruder.say(await intruder.open(protocol), varint((1 << 20) - 1) + bytes(250_000))
            case _:
                for stream in range(1, 200, 2):
                    await intruder.send(WINDOW_UPDATE, SYN, stream, huge)
        await trio.sleep(0.2)

    await abuser.visit(count, one)


def nested(depth: int, dice: random.Random) -> bytes:
    """MessagePack of that depth, whole or not."""
    opened = b"".join(dice.choice([b"\x91", b"\x81\xa1k"]) for _ in range(depth))
    return opened + (b"\xc0" if dice.random() < 0.7 else b"")


async def deep_messages(abuser: Abuser, count: int) -> None:
    """Maps and arrays within each other, without end, in every protocol of ours."""

    async def one(intruder: Intruder) -> None:
        for _ in range(10):
            payload = nested(abuser.dice.choice([9, 100, 1000, 30_000]), abuser.dice)
            await intruder.open(abuser.dice.choice(PROTOCOLS), chunk(payload))
        await trio.sleep(0.2)

    await abuser.visit(max(1, count // 10), one)


async def wrong_types(abuser: Abuser, count: int) -> None:
    """Well-formed messages with something in them that is not what it should be."""
    good: list[dict[str, Any]] = [
        {"type": "pull"},
        {"type": "ask", "model": "m", "prompt_tokens": 1, "max_tokens": 1, "payer_key": bytes(32), "nonce": bytes(16)},
        {"type": "accept", "quote_id": bytes(32)},
        {"type": "close_request", "channel": bytes(32), "amount_nano": 1, "signature": bytes(64)},
        {"type": "start", "session": bytes(16), "quote": {"body": b"", "signature": bytes(64)}, "channel": bytes(32)},
    ]
    wrong: list[Any] = [None, True, -1, 1 << 63, 1.5, "", "\x00", b"", [], {}, [[]], float("nan"), "type"]

    async def one(intruder: Intruder) -> None:
        for _ in range(10):
            message: dict[Any, Any] = dict(abuser.dice.choice(good))
            message[abuser.dice.choice([*message, 7])] = abuser.dice.choice(wrong)
            await intruder.open(abuser.dice.choice(PROTOCOLS), chunk(msgpack.packb(message)))
        await trio.sleep(0.2)

    await abuser.visit(max(1, count // 10), one)


class Gossiper:
    """Somebody who gossips what it likes, properly signed on the outside."""

    def __init__(self, abuser: Abuser, intruder: Intruder) -> None:
        self._abuser = abuser
        self._intruder = intruder
        self._author = Ed25519Signer(abuser.dice.randbytes(32))
        self._topic = f"/bombyx/{abuser.network}/adverts/scripted"
        self._stream = 0

    async def begin(self) -> None:
        subscription = rpc_pb2.RPC(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=self._topic)])
        self._stream = await self._intruder.open(GOSSIP, chunk(subscription.SerializeToString()))

    async def publish(self, payload: bytes) -> None:
        public = b"\x08\x01\x12\x20" + self._author.public_key
        message = rpc_pb2.Message(
            data=payload, topicIDs=[self._topic], from_id=b"\x00\x24" + public, seqno=self._abuser.dice.randbytes(8)
        )
        message.signature = self._author.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
        await self.send(rpc_pb2.RPC(publish=[message]))

    async def send(self, rpc: Protobuf) -> None:
        await self._intruder.say_in_turn(self._stream, chunk(rpc.SerializeToString()))


def an_advert(abuser: Abuser, signer: Ed25519Signer, **changes: object) -> Signed:
    """Of a provider that does not exist."""
    now = int(abuser.now())
    plain = Advert(
        network=abuser.network,
        peer=peer_id_of(signer.public_key),
        addresses=("/ip4/127.66.1.1/tcp/9",),
        seq=int(1000 * abuser.now()),
        issued_at=now,
        expires_at=now + MAX_LIFETIME_S,
        models=(
            ModelOffer(
                id="bombyx/scripted",
                family="scripted",
                quantisation="none",
                digest="00",
                context=8192,
                prices=Prices(1, 1, 1),
                ttft_ms=1,
                tokens_per_s=1000,
                slots_free=9,
                slots_total=9,
            ),
        ),
        channel=ChannelOffer(payee="0:" + "0" * 64, payee_key=bytes(32), deposit_min_nano=1, challenge_period_s=60),
    )
    return sign(msgspec.structs.replace(plain, **changes), signer)


async def advert_flood(abuser: Abuser, count: int) -> None:
    """Good adverts of providers that nobody has heard of, and that are not there. What they take is theirs for a while.

    They live a minute, so that whoever looks for what is left need not wait for long.
    """
    gossipers = 8 * len(abuser.targets)  # peers take a steady number from each

    async def one(intruder: Intruder) -> None:
        gossiper = Gossiper(abuser, intruder)
        await gossiper.begin()
        for _ in range(max(1, count // gossipers)):
            with trio.fail_after(10):  # a peer that takes no more has cut us off
                signer, expires_at = Ed25519Signer(abuser.dice.randbytes(32)), int(abuser.now()) + FLOOD_LIFE_S
                await gossiper.publish(encode(an_advert(abuser, signer, expires_at=expires_at)))

    await abuser.visit(gossipers, one)


async def bad_adverts(abuser: Abuser, count: int) -> None:
    """Replayed, future-dated, expired, forged and malformed ones."""
    now = int(abuser.now())
    signer = Ed25519Signer(abuser.dice.randbytes(32))
    good = an_advert(abuser, signer)
    payloads = [
        encode(good),
        encode(an_advert(abuser, signer, issued_at=now + 1000, expires_at=now + 1500)),
        encode(an_advert(abuser, signer, issued_at=now - 500, expires_at=now - 1)),
        encode(an_advert(abuser, signer, expires_at=now + 100_000)),
        encode(msgspec.structs.replace(good, signature=bytes(64))),
        encode(an_advert(abuser, signer, network="another")),
        abuser.dice.randbytes(1000),
        nested(1000, abuser.dice),
    ]

    async def one(intruder: Intruder) -> None:
        gossiper = Gossiper(abuser, intruder)
        await gossiper.begin()
        for number in range(100):
            await gossiper.publish(payloads[number % len(payloads)])
        junk = rpc_pb2.ControlMessage(
            ihave=[rpc_pb2.ControlIHave(topicID="t" * 200, messageIDs=[b"i" * 30] * 2000)],
            iwant=[rpc_pb2.ControlIWant(messageIDs=[b"i" * 30] * 2000)],
            graft=[rpc_pb2.ControlGraft(topicID=str(number)) for number in range(500)],
        )
        await gossiper.send(rpc_pb2.RPC(control=junk))
        await trio.sleep(0.2)

    await abuser.visit(max(1, count // 100), one)


async def never_reads(abuser: Abuser, count: int) -> None:
    """Asks and asks, and reads nothing of what is answered."""

    async def one(_number: int, target: Target, source: str) -> None:
        async with intrude(target, source, abuser.dice.randbytes(32)) as intruder:
            with trio.move_on_after(2 * abuser.hold_s):
                for number in range(500):
                    stream = await intruder.open(advert.PROTOCOL, chunk(msgpack.packb({"type": "pull"})))
                    await intruder.send(PING, SYN, 0, number)
                    if number % 50 == 49:
                        await intruder.send(WINDOW_UPDATE, RST, stream, 0)
                await trio.sleep(abuser.hold_s)

    await abuser.each(count, one)


async def tiny_frames(abuser: Abuser, count: int) -> None:
    """As many frames as a socket takes, with nothing in them."""
    at_once = 1000

    async def one(intruder: Intruder) -> None:
        for number in range(max(1, count // (at_once * 20))):
            kind, flags = ((PING, SYN), (PING, ACK), (WINDOW_UPDATE, 0))[number % 3]
            with trio.move_on_after(abuser.hold_s) as scope:
                await intruder.send_many(kind, flags, 0, number, at_once)
            if scope.cancelled_caught:
                return

    await abuser.visit(20, one)


ABUSES: dict[str, Callable[[Abuser, int], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        garbage,
        half_handshakes,
        connections,
        streams,
        huge_frames,
        deep_messages,
        wrong_types,
        advert_flood,
        bad_adverts,
        never_reads,
        tiny_frames,
    )
}


async def main() -> None:
    os.nice(19)  # it stands for machines of its own, and must not take the processor from its victims
    network, seed, *addresses = sys.argv[1:]
    abuser = Abuser(network, [Target.at(address) for address in addresses], time.time, random.Random(seed))
    with suppress(BrokenPipeError):
        while asked := await trio.to_thread.run_sync(sys.stdin.readline):
            name, count, hold_s = asked.split()
            began_at, abuser.refused, abuser.hold_s = time.monotonic(), 0, float(hold_s)
            await ABUSES[name](abuser, int(count))
            done = {"took_s": time.monotonic() - began_at, "refused": abuser.refused}
            sys.stdout.write(json.dumps(done) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
