"""The entrances through which bytes that are not ours come in, each as a function of bytes."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.pubsub.pb import rpc_pb2
from nacl.signing import SigningKey
from noise.exceptions import NoiseInvalidMessage
from pytoniq_core import Cell
from pytoniq_core.crypto.ciphers import create_aes_ctr_cipher, get_shared_key

import sim
from chain import backup, sealed, wallet
from chain.contract import cells
from chain.contract.cells import channel_state
from chain.devnet import adnl
from chain.errors import ChannelUnusable
from chain.keys import verify
from chain.ledger import Network
from inference import link
from inference.completions import CompletionReader
from inference.engine import Delta, Finished, Message, Request
from inference.eventstream import EventStream
from inference.frames import Inbox
from p2p.net import contacts, delimited, gossip_reader, kad_codec
from p2p.net.noise import NoiseSession
from p2p.net.private_network import ProtectedConnection
from p2p.net.yamux import Opened, Yamux
from p2p.net.yamux_stream import StreamReset
from p2p.protocol.advert_book import AdvertBook
from p2p.protocol.demand import DemandBook
from p2p.protocol.kad_messages import FindNode
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from p2p.protocol.wire import FrameReader, Signed, decode, open_signed

sys.path.insert(0, str(Path(__file__).parent.parent / "vectors"))
import make

_scratch = tempfile.TemporaryDirectory(prefix="fuzz-")
SCRATCH = Path(_scratch.name)
SOMEBODY = make.CLIENT


def run_to_end(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


class Bytes:
    """A stream that holds just these bytes, and never hands out more than half of them."""

    def __init__(self, data: bytes) -> None:
        self._left = data
        self._most = max(1, len(data) // 2)

    async def receive_some(self, max_bytes: int = 1 << 20) -> bytes:
        size = min(max_bytes, self._most)
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    async def close(self) -> None:
        pass


def accept(*_: object) -> bool:
    """A signature check for which nothing is forged, so that what lies behind it is reached."""
    return True


def from_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of files, given bytes."""
    path = SCRATCH / f"input-{id(read)}"

    def run(data: bytes) -> object:
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)

    return run


def as_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"))


# What comes over the network


def messages(union: Any) -> Callable[[bytes], object]:
    """A stream of frames, each of which holds one of these messages."""

    def read(data: bytes) -> None:
        frames = FrameReader()
        for piece in halves(data):
            for payload in frames.feed(piece):
                decode(payload, union)

    return read


def body(kind: type[Any], signer: str) -> Callable[[bytes], object]:
    return lambda data: open_signed(
        Signed(data, bytes(64)),
        kind,
        by=lambda one: getattr(one, signer),
        network=make.NETWORK,
        verify=accept,
    )


def hear_demand(data: bytes) -> object:
    """A gossip payload."""
    book = DemandBook(network=make.NETWORK, verify=accept)
    return book.add(decode(data, Signed), float(make.NOW), source=SOMEBODY)


def hear_advert(data: bytes) -> object:
    """A gossip payload, and what a pulled advert comes to."""
    book = AdvertBook(network=make.NETWORK, verify=accept)
    return book.add(decode(data, Signed), float(make.NOW), source=SOMEBODY)


def read_gossip(data: bytes) -> object:
    """An RPC of GossipSub: what `gossip_reader` does with it before a validator sees it."""
    rpc = rpc_pb2.RPC()
    rpc.ParseFromString(data)
    return [gossip_reader._signed(message) for message in rpc.publish]


def countersigned(data: bytes) -> object:
    return verify_receipt(decode(data, SignedReceipt), network=make.NETWORK, verify=accept)


def relay_message(kind: Any) -> Callable[[bytes], object]:
    """One of the messages to and from relays, as `p2p.net.delimited` reads them."""

    async def read(data: bytes) -> None:
        await delimited.receive(_Stream(data), kind)  # type: ignore[arg-type]

    return lambda data: trio.run(read, data)


class _Stream(Bytes):
    async def read(self, max_bytes: int) -> bytes:
        return await self.receive_some(max_bytes)


def kad_response(data: bytes) -> object:
    """With what becomes of the contacts in it."""
    response = kad_codec.decode_response(data, FindNode(b"key"))
    found = [*response.closer, *response.providers]
    return [(contacts.is_ed25519(one.peer), contacts.contact_of(contacts.peer_address(one))) for one in found]


def verify_claim(data: bytes) -> object:
    return verify(data[:32], data[96:], data[32:96])


def yamux(data: bytes) -> object:
    """Both roles, with streams of ours open; all that arrives is read."""
    for initiator in (True, False):
        core = Yamux(initiator=initiator, now=0.0)
        streams = [core.open(), core.open()]
        for piece in halves(data):
            streams += [event.stream for event in core.receive(piece, 1.0) if isinstance(event, Opened)]
        for stream in filter(None, streams):
            try:
                while core.read(stream, 1000):
                    pass
            except StreamReset:
                pass
        core.tick(100.0)
        core.data_to_send()
    return None


class _OpenCipher:
    """Takes off what would be the tag, and checks nothing: so the framing is reached."""

    def decrypt(self, sealed_message: bytes) -> bytes:
        if len(sealed_message) < 16:
            raise NoiseInvalidMessage
        return sealed_message[16:]


def noise(data: bytes) -> object:
    async def read() -> None:
        channel = NoiseSession.__new__(NoiseSession)
        channel.raw = channel._socket = Bytes(data)  # type: ignore[assignment]
        channel._ciphers = _OpenCipher()
        channel._sealed, channel._plain = bytearray(), bytearray()
        try:
            while True:
                await channel.read(1000)
        except ConnectionClosedError as error:
            if "tag" in str(error):
                raise

    return run_to_end(read())


SWARM_KEY = bytes(32)


def protected(data: bytes) -> object:
    """What a private network's door hears."""
    connection = ProtectedConnection(RawConnection(_Stream(data), False, addresses=[]), SWARM_KEY)

    async def read() -> None:
        while await connection.read(1000):
            pass

    return run_to_end(read())


# What a lite-server says, and what its clients ask


def channel_account(data: bytes) -> object:
    """An account of our code whose data somebody else wrote."""
    try:
        cell = Cell.one_from_boc(data)
    except Exception:  # the library's, and translated where it is called
        raise ChannelUnusable("no cell") from None
    state = cells.state_init(make.TERMS)
    state.data = cell
    return channel_state(cells.channel_id(make.TERMS), state, 0)


SERVER = SigningKey(bytes(32))


def hello() -> bytes:
    """A client's good one."""
    secrets, client = bytes(160), SigningKey(bytes(31) + b"\1")
    checksum = hashlib.sha256(secrets).digest()
    shared = get_shared_key(
        bytes(client.to_curve25519_private_key()), bytes(SERVER.verify_key.to_curve25519_public_key())
    )
    cipher = create_aes_ctr_cipher(shared[:16] + checksum[16:32], checksum[:4] + shared[20:32])
    key_id = hashlib.sha256(adnl._ED25519_KEY + bytes(SERVER.verify_key)).digest()
    return key_id + bytes(client.verify_key) + checksum + cipher.encrypt(secrets)  # type: ignore[no-any-return]


def adnl_hello(data: bytes) -> object:
    connection = adnl._Connection(Bytes(b""), None)  # type: ignore[arg-type]
    connection._agree_on_keys(data.ljust(256, b"\0")[:256], SERVER)
    return None


# What stands in files

CHEAP = sealed.COST_MIN
BACKUP = backup.Backup(Network(make.NETWORK, make.GLOBAL_ID), "payer", {"wallet.key": b"x"}, b"")
SCENARIO = Path(sim.__file__).parent / "data" / "scenarios" / "first_day.toml"


def lock(secret: bytes) -> bytes:
    """Without any randomness, and soon opened."""
    return sealed.seal(secret, "x", CHEAP, draw=bytes).encode()


def wallet_file(path: Path) -> object:
    """Opened where that takes no passphrase."""
    found = wallet.read(path)
    return found if found.locked else found.unlock()


def wallet_files() -> tuple[bytes, ...]:
    bare = wallet._HEAD + b"devnet\n" + b"00" * 32 + b"\n"
    return b"bombyx-wallet 1 " + b"00" * 32 + b"\n", bare, wallet._HEAD + lock(b"00" * 32)


def backup_content(data: bytes) -> object:
    """What is inside a backup's lock."""
    path = SCRATCH / "backup"
    path.unlink(missing_ok=True)
    path.write_bytes(backup._HEAD + lock(data))
    path.chmod(0o600)
    return backup.read(path, "x")


def upstream_answer(data: bytes) -> object:
    """A whole stream of chunks, of which no more may come than was asked for."""
    request = Request(model="m", messages=(Message("user", "Hi."),), max_tokens=3, stop=("x",))
    reader = CompletionReader(request, 5)
    items: list[Delta | Finished] = []
    for payload in EventStream().feed(data):
        items += reader.feed(payload)
        if reader.done:
            break
    items += reader.end()
    assert sum(item.tokens for item in items if isinstance(item, Delta)) <= request.max_tokens
    assert len(items) <= request.max_tokens + 3
    return items


UPSTREAM_ANSWERS = (
    b"""data: {"choices":[{"delta":{"content":"a"}}],"timings":{"predicted_n":2,"cache_n":1}}
data: {"choices":[{"delta":{"reasoning_content":"a"},"finish_reason":"stop"}],"error":null}
data: {"usage":{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}
data: {"usage":{"prompt_tokens":5,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":1}}}
data: [DONE]
""",
    b'data: {"choices":[{"delta":{"content":"ax"}}],"usage":null}\n\n',
)


def engine_frames(data: bytes) -> object:
    async def read() -> None:
        inbox = Inbox(Bytes(data), msgspec.msgpack.Decoder(link.FromWorker))  # type: ignore[arg-type]
        while await inbox.next() is not None:
            pass

    return run_to_end(read())
