"""What has arrived over all connections of a host and nobody has read yet."""

from __future__ import annotations

import trio

MAX_UNREAD_BYTES = 128 * 1024 * 1024
FREE_BYTES = 256 * 1024  # one stream's window: whoever has no more than that unread never waits


class Unread:
    """While there is too much of it, connections that hold more than a little take nothing from their sockets.

    Those are the ones whose streams nobody reads: a hostile peer's, until their handlers give up on them. Whoever has a
    single stream that is read slowly does not wait.
    """

    def __init__(self, limit_bytes: int = MAX_UNREAD_BYTES, free_bytes: int = FREE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = free_bytes
        self._room = trio.lowlevel.ParkingLot()
        self.total_bytes = 0

    def change(self, by_bytes: int) -> None:
        """So much more, or less, is unread."""
        self.total_bytes += by_bytes
        if by_bytes < 0:
            self._room.unpark_all()

    async def room(self, own: Account) -> None:
        """Wait until a connection may read more from its socket."""
        while own.bytes > self._free_bytes and self.total_bytes > self._limit_bytes:
            await self._room.park()


class Account:
    """One connection's share."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        self.bytes = 0

    def set(self, now_bytes: int) -> None:
        """So much is unread now."""
        if now_bytes != self.bytes:
            change, self.bytes = now_bytes - self.bytes, now_bytes
            self._unread.change(change)

    async def room(self) -> None:
        """See `Unread.room`."""
        await self._unread.room(self)
