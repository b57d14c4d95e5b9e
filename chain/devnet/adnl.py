"""ADNL over TCP, the server's side: one handshake, then encrypted packets with a checksum each.

The client opens with 256 bytes: the id of the server's key, its own public key, the SHA-256 of 160 random bytes, and
those bytes encrypted under the shared secret. The keys and counters of both streams are cut from them. A packet is
length:u32 | nonce:32 | payload | sha256:32, the length little-endian, all of it encrypted. A broken or silent client
costs its own connection and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519
from nacl.signing import SigningKey
from pytoniq_core.crypto.ciphers import create_aes_ctr_cipher, get_shared_key

from . import tl

MAX_PACKET_BYTES = 256 * 1024
MAX_QUERIES_AT_ONCE = 32  # of one client; its next ones wait in its socket
HELLO_TIMEOUT_S = 10
SEND_TIMEOUT_S = 30  # for a client to read what it asked for

_HELLO_BYTES = 256
_NONCE_BYTES = _HASH_BYTES = 32
_ED25519_KEY = b"\xc6\xb4\x13\x48"  # the TL constructor pub.ed25519, hashed with a key into its id

Answer = Callable[[bytes], Awaitable[bytes]]
"""From a query's bytes to its answer's. Must not raise."""

_log = logging.getLogger(__name__)


class BrokenClient(Exception):
    """The client ended, or does not speak ADNL."""


async def serve(stream: trio.abc.Stream, key: SigningKey, answer: Answer) -> None:
    """Serve one client until it leaves or breaks the rules. Raises nothing."""
    async with stream:
        try:
            await _Connection(stream, answer).run(key)
        except* (BrokenClient, tl.Malformed, trio.BrokenResourceError, trio.ClosedResourceError) as ended:
            _log.debug("a client's connection ended: %r", ended.exceptions)
        except* Exception:
            _log.exception("a client's connection failed")


class _Connection:
    def __init__(self, stream: trio.abc.Stream, answer: Answer) -> None:
        self._stream = stream
        self._answer = answer
        self._received = bytearray()
        self._sending = trio.Lock()
        self._slots = trio.Semaphore(MAX_QUERIES_AT_ONCE)
        self._encryption: Any = None
        self._decryption: Any = None

    async def run(self, key: SigningKey) -> None:
        with trio.move_on_after(HELLO_TIMEOUT_S) as hello:
            self._agree_on_keys(await self._receive(_HELLO_BYTES), key)
            await self._send(b"")
        if hello.cancelled_caught:
            raise BrokenClient("no hello in time")
        async with trio.open_nursery() as nursery:
            while True:
                packet = await self._receive_packet()
                await self._slots.acquire()
                nursery.start_soon(self._handle, packet)

    def _agree_on_keys(self, hello: bytes, key: SigningKey) -> None:
        key_id, client_key, checksum, encrypted = hello[:32], hello[32:64], hello[64:96], hello[96:]
        if key_id != hashlib.sha256(_ED25519_KEY + bytes(key.verify_key)).digest():
            raise BrokenClient("the client wants another server's key")
        try:
            client_curve_key = crypto_sign_ed25519_pk_to_curve25519(client_key)
        except Exception as error:  # PyNaCl's own kinds for points off the curve
            raise BrokenClient("the client's key is no key") from error
        secret = get_shared_key(bytes(key.to_curve25519_private_key()), client_curve_key)
        cipher = create_aes_ctr_cipher(secret[:16] + checksum[16:32], checksum[:4] + secret[20:32])
        random = cipher.decrypt(encrypted)
        if hashlib.sha256(random).digest() != checksum:
            raise BrokenClient("the hello does not decrypt")
        self._encryption = create_aes_ctr_cipher(random[:32], random[64:80])
        self._decryption = create_aes_ctr_cipher(random[32:64], random[80:96])

    async def _handle(self, packet: bytes) -> None:
        try:
            name, fields, _ = tl.decode(packet)
            if name == "tcp.ping":
                await self._send(tl.encode("tcp.pong", random_id=fields["random_id"]))
            elif name == "adnl.message.query":
                answer = await self._answer(fields["query"])
                await self._send(tl.encode("adnl.message.answer", query_id=fields["query_id"], answer=answer))
            else:
                raise BrokenClient(f"unexpected {name}")
        finally:
            self._slots.release()

    async def _send(self, payload: bytes) -> None:
        body = os.urandom(_NONCE_BYTES) + payload
        body += hashlib.sha256(body).digest()
        with trio.move_on_after(SEND_TIMEOUT_S) as limit:
            async with self._sending:
                await self._stream.send_all(self._encryption.encrypt(len(body).to_bytes(4, "little") + body))
        if limit.cancelled_caught:
            raise BrokenClient("the client does not read")

    async def _receive_packet(self) -> bytes:
        length = int.from_bytes(self._decryption.decrypt(await self._receive(4)), "little")
        if not _NONCE_BYTES + _HASH_BYTES <= length <= MAX_PACKET_BYTES:
            raise BrokenClient(f"a packet of {length} bytes")
        body: bytes = self._decryption.decrypt(await self._receive(length))
        if hashlib.sha256(body[:-_HASH_BYTES]).digest() != body[-_HASH_BYTES:]:
            raise BrokenClient("a packet's checksum is wrong")
        return body[_NONCE_BYTES:-_HASH_BYTES]

    async def _receive(self, count: int) -> bytes:
        while len(self._received) < count:
            some = await self._stream.receive_some()
            if not some:
                raise BrokenClient("the client left")
            self._received += some
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken
