"""The devnet's own socket: free money and time travel, which no real network offers. JSON, one object a line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import trio
from pytoniq_core import Address

if TYPE_CHECKING:  # a client of the socket needs no TVM
    from .chain import Chain

MAX_LINE_BYTES = 4096
MAX_FAUCET_NANO = 10**18  # a thousand million GRAM
MAX_ADVANCE_S = 10 * 365 * 86400

_log = logging.getLogger(__name__)


class ControlFailed(Exception):
    """The devnet refused the command, or is gone."""


class Faucet(msgspec.Struct, frozen=True, tag="faucet", tag_field="command", forbid_unknown_fields=True):
    """Give `amount_nano` to `address`, in any of TON's forms."""

    address: str
    amount_nano: int


class Advance(msgspec.Struct, frozen=True, tag="advance", tag_field="command", forbid_unknown_fields=True):
    """Move the clock forward."""

    seconds: int


class Reply(msgspec.Struct, frozen=True):
    """`error` is empty when the command was done. `now` is the chain's time, `balance_nano` the faucet address's."""

    now: int
    balance_nano: int = 0
    error: str = ""


_decode_command = msgspec.json.Decoder(Faucet | Advance).decode
_decode_reply = msgspec.json.Decoder(Reply).decode


async def serve(stream: trio.abc.Stream, chain: Chain) -> None:
    """Serve one controlling client until it leaves. Raises nothing."""
    async with stream:
        lines = _Lines(stream)
        try:
            while line := await lines.receive():
                await lines.send(_obey(line, chain))
        except (ControlFailed, trio.BrokenResourceError, trio.ClosedResourceError) as ended:
            _log.debug("a client's connection ended: %r", ended)
        except Exception:
            _log.exception("a client's connection failed")


class Control:
    """A client of a running devnet's control socket. Made by `open_control`; one command at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._lines = _Lines(stream)
        self._turn = trio.Lock()

    async def faucet(self, address: str, amount_nano: int) -> int:
        """Give money; returns the address's new balance. Raises `ControlFailed`."""
        return (await self._command(Faucet(address, amount_nano))).balance_nano

    async def advance(self, seconds: int) -> int:
        """Move the chain's clock forward; returns the new time. Raises `ControlFailed`."""
        return (await self._command(Advance(seconds))).now

    async def _command(self, command: Faucet | Advance) -> Reply:
        async with self._turn:
            try:
                await self._lines.send(command)
                line = await self._lines.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ControlFailed("the devnet is gone") from error
        if not line:
            raise ControlFailed("the devnet is gone")
        reply = _decode_reply(line)
        if reply.error:
            raise ControlFailed(reply.error)
        return reply


@asynccontextmanager
async def open_control(address: str) -> AsyncIterator[Control]:
    """Connect to a control socket given as HOST:PORT. Raises `ControlFailed` if nobody listens there."""
    host, _, port = address.rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host, int(port))
    except (OSError, ValueError) as error:
        raise ControlFailed(f"no devnet's control at {address}") from error
    async with stream:
        yield Control(stream)


def _obey(line: bytes, chain: Chain) -> Reply:
    try:
        command = _decode_command(line)
        if isinstance(command, Advance):
            return _advance(command, chain)
        return _give(command, chain)
    except (ControlFailed, msgspec.DecodeError) as error:
        return Reply(chain.now(), error=str(error))


def _advance(command: Advance, chain: Chain) -> Reply:
    if not 0 <= command.seconds <= MAX_ADVANCE_S:
        raise ControlFailed(f"seconds must be between 0 and {MAX_ADVANCE_S}")
    return Reply(chain.advance(command.seconds))


def _give(command: Faucet, chain: Chain) -> Reply:
    if not 0 < command.amount_nano <= MAX_FAUCET_NANO:
        raise ControlFailed(f"amount_nano must be between 1 and {MAX_FAUCET_NANO}")
    try:
        address = Address(command.address)
    except Exception as error:  # the reader raises many kinds
        raise ControlFailed("not a TON address") from error
    if address.wc not in (-1, 0) or len(address.hash_part) != 32:
        raise ControlFailed("not a TON address")
    chain.faucet(address, command.amount_nano)
    return Reply(chain.now(), chain.balance(address))


class _Lines:
    """JSON objects, one a line, over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def send(self, message: Faucet | Advance | Reply) -> None:
        await self._stream.send_all(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> bytes:
        """The next line, or nothing once the other side has ended."""
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > MAX_LINE_BYTES:
                raise ControlFailed("a line is too long")
            some = await self._stream.receive_some()
            if not some:
                return b""
            self._received += some
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line
