"""Core: bytes to typed messages and back.

A frame is an unsigned-varint length and one MessagePack map with a `type`. Whatever a peer sends is bounded before it
is parsed and typed before it is used: anything else raises `RemoteError("malformed")`, never another exception.

A signed object travels as `{body, signature}`. The body is itself one MessagePack map whose `domain` says what it is
and whose `network` says where it holds; the received bytes are what is verified and passed on, never re-encoded, so
fields that a newer version added survive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeVar

import msgpack
import msgspec

from p2p.errors import LocalError, RemoteError

# Room for a prompt of 200,000 tokens; go-libp2p's own protocols stop at 4 MiB, GossipSub's at 1 MiB.
MAX_FRAME_BYTES = 1 << 20
MAX_DEPTH = 8
MAX_ITEMS = 4096
# An empty map is one byte on the wire and seventy in memory, with a call to make it.
MAX_CONTAINERS = 4096
_MAX_VARINT_BYTES = 3  # 2^21 > MAX_FRAME_BYTES

# What a field may hold, checked as it is decoded. Integers end where SQLite's and other languages' signed ones do.
Nat = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Size = Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)]
# Text that is shown to people holds nothing that could steer their terminal or turn the line around.
SHOWN = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*\Z"
Name = Annotated[str, msgspec.Meta(max_length=256, pattern=SHOWN)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]

T = TypeVar("T")
B = TypeVar("B", bound="SignedBody")

PeerVerifier = Callable[[str, bytes, bytes], bool]
"""(peer id, message, signature) -> whether that peer's key signed it. Never raises."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A message on a stream; its class's `tag` is the wire's `type`."""


class SignedBody(msgspec.Struct, frozen=True, kw_only=True, tag_field="domain", omit_defaults=True):
    """What is signed: the class's `tag` is the domain, so that no signature fits two purposes."""

    network: Name


class Signed(msgspec.Struct, frozen=True):
    """A body exactly as its signer wrote it."""

    body: bytes
    signature: Bytes64

    @property
    def id(self) -> bytes:
        """32 bytes that name this object: the hash of its body."""
        return hashlib.sha256(self.body).digest()


class BodySigner(Protocol):
    """A peer's identity key."""

    def sign(self, message: bytes) -> bytes: ...


def encode(message: msgspec.Struct) -> bytes:
    """One MessagePack map, without the frame's length."""
    packed = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    assert isinstance(packed, bytes)
    return packed


def frame(message: msgspec.Struct) -> bytes:
    """A whole frame, ready to be written. Raises `LocalError` for a message over the size limit."""
    payload = encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise LocalError(f"a message of {len(payload)} bytes: {MAX_FRAME_BYTES} fit a frame")
    return _varint(len(payload)) + payload


def decode(payload: bytes, type_: type[T] | Any) -> T:
    """One typed message, or one of a union of them. Raises `RemoteError("malformed")`."""
    if len(payload) > MAX_FRAME_BYTES:
        raise RemoteError("malformed", "a message over the size limit")
    containers = _Containers()
    try:
        plain = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=containers.map,
            list_hook=containers.array,
            ext_hook=_no_extensions,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_str_len=MAX_FRAME_BYTES,
            max_bin_len=MAX_FRAME_BYTES,
            max_ext_len=0,
        )
        _check_depth(plain, MAX_DEPTH)
        _check_tag(plain, type_)
        converted: T = msgspec.convert(plain, type_, builtin_types=(bytes,))
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        # The text of a foreign error may quote the input; only its kind is safe to show.
        raise RemoteError("malformed", type(error).__name__) from None
    return converted


def sign(body: SignedBody, signer: BodySigner) -> Signed:
    """Encode and sign a body."""
    encoded = encode(body)
    return Signed(encoded, signer.sign(encoded))


def open_signed(signed: Signed, type_: type[B], *, by: Callable[[B], str], network: str, verify: PeerVerifier) -> B:
    """The typed body, if the peer that `by` reads from it signed it for this network. Raises `RemoteError`.

    A body that names its own signer proves only that the named peer wrote it: compare that peer with the expected one.
    """
    body: B = decode(signed.body, type_)
    if body.network != network:
        raise RemoteError("wrong_network")
    if not verify(by(body), signed.body, signed.signature):
        raise RemoteError("bad_signature")
    return body


class FrameReader:
    """Cuts a byte stream into the payloads of frames, holding at most one unfinished frame."""

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`. Raises `RemoteError("malformed")` for a frame over the limit."""
        self._buffer += data
        payloads = []
        start = 0
        while (header := self._header(start)) is not None:
            begin, size = header
            if len(self._buffer) < begin + size:
                break
            payloads.append(bytes(self._buffer[begin : begin + size]))
            start = begin + size
        del self._buffer[:start]
        return payloads

    @property
    def unfinished(self) -> bool:
        """Whether the stream stopped inside a frame."""
        return bool(self._buffer)

    def _header(self, start: int) -> tuple[int, int] | None:
        """Where the payload begins and how long it is, or None until the length is whole."""
        size = 0
        for index, byte in enumerate(self._buffer[start : start + _MAX_VARINT_BYTES]):
            size |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index:
                    raise RemoteError("malformed", "a frame length with needless bytes")
                if size > self._limit_bytes:
                    raise RemoteError("malformed", "a frame over the size limit")
                return start + index + 1, size
        if len(self._buffer) - start >= _MAX_VARINT_BYTES:
            raise RemoteError("malformed", "a frame length that does not end")
        return None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Containers:
    """Makes a message's maps and arrays, and counts them."""

    def __init__(self) -> None:
        self._left = MAX_CONTAINERS

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._spend()
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a map with the same key twice")
        return result

    def array(self, items: list[Any]) -> list[Any]:
        self._spend()
        return items

    def _spend(self) -> None:
        if self._left == 0:
            raise ValueError("too many maps and arrays")
        self._left -= 1


def _no_extensions(_code: int, _data: bytes) -> Any:
    raise ValueError("an extension type")


def _check_tag(plain: Any, type_: Any) -> None:
    """msgspec asks for the tag in a union only. A signed body without its domain could be made to fit two purposes."""
    config: msgspec.structs.StructConfig | None = getattr(type_, "__struct_config__", None)
    if config is not None and config.tag_field is not None and config.tag_field not in plain:
        raise ValueError("no tag")


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (dict, list)):
        if left == 0:
            raise ValueError("nested too deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)
