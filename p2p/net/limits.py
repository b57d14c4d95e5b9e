"""What strangers may take of a host, in numbers that its operator can change."""

from __future__ import annotations

from dataclasses import dataclass, replace

FILES_FOR_OURSELVES = 256  # books, the engine, lite-servers, and what we dial


@dataclass(frozen=True)
class InboundLimits:
    """Of what others open. An address is one of IPv4, or a /56 of IPv6."""

    connections: int = 1024
    connections_per_address: int = 128
    handshakes: int = 256  # under way; as many may wait
    handshakes_per_address: int = 64
    handshakes_per_s: float = 40.0  # begun; one costs some 10 ms of a core with all that follows
    streams_per_s: float = 200.0  # begun; one costs 1 to 3 ms of a core with a small answer
    burst_s: float = 5.0  # of handshakes and streams that are saved up

    def within(self, files: int) -> InboundLimits:
        """The same, or less where the system lets us open no more than so many files: a connection is one."""
        room = max(8, files - FILES_FOR_OURSELVES)
        handshakes = min(self.handshakes, room // 8)
        return replace(self, connections=min(self.connections, room - 2 * handshakes), handshakes=handshakes)


USUAL = InboundLimits()
