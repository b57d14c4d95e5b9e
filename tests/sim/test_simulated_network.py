"""Simulated streams: real frames, in order, late by where the peers are; and what a death looks like from afar."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2p.errors import RemoteError
from p2p.protocol.negotiate import Counter
from p2p.protocol.price import Prices
from p2p.protocol.session import Heartbeat, Pause, ToClient
from sim.kernel import Kernel
from sim.network import End, Inbox, Network
from sim.process import spawn
from sim.regions import Place, load_matrix, one_way_s

MATRIX = load_matrix(["East US", "Japan East"])
HERE, THERE = Place("East US", 5.0), Place("Japan East", 10.0)


class Pair:
    """A client in one place, a server in another that keeps what it hears."""

    def __init__(self, jitter_percent: float = 100.0) -> None:
        self.kernel = Kernel(3)
        self.network = Network(self.kernel, MATRIX, jitter_percent=jitter_percent)
        self.heard: list[object] = []
        self.heard_s: list[float] = []
        self.lost: list[tuple[str, float]] = []
        self.server_ends: list[End] = []
        self.network.join("client", HERE, End.close)
        self.network.join("server", THERE, self._accept)

    def connect(self) -> End:
        end = self.network.connect("client", "server", "/test/1")
        end.attach(ToClient, self.heard.append, self._lost("client"))
        return end

    def _accept(self, end: End) -> None:
        self.server_ends.append(end)
        end.attach(Pause, self._server_heard, self._lost("server"))

    def _server_heard(self, message: Pause) -> None:
        self.heard.append(message.due_nano)
        self.heard_s.append(self.kernel.now)

    def _lost(self, who: str) -> Callable[[], None]:
        return lambda: self.lost.append((who, self.kernel.now))


def test_nothing_overtakes_between_two_peers() -> None:
    pair = Pair()
    one, other = pair.connect(), pair.connect()
    for number in range(100):
        pair.kernel.at(number / 10_000, lambda number=number: (one, other)[number % 2].send(Pause(due_nano=number)))  # type: ignore[misc]
    pair.kernel.run()
    assert pair.heard == list(range(100))
    assert pair.heard_s == sorted(pair.heard_s)
    assert pair.network.messages == 100


def test_a_message_takes_at_least_the_way_and_at_most_the_jitter_more() -> None:
    pair = Pair(jitter_percent=10.0)
    pair.connect().send(Pause(due_nano=1))
    pair.kernel.run()
    way_s = one_way_s(MATRIX, HERE, THERE)
    assert way_s <= pair.heard_s[0] <= 1.1 * way_s
    assert pair.network.rtt_ms("client", "server") == round(2000 * way_s)


def test_what_does_not_decode_is_the_wire_cores_to_refuse() -> None:
    pair = Pair()
    pair.connect().send(Counter(prices=Prices(1, 1, 1)))
    with pytest.raises(RemoteError, match="malformed"):
        pair.kernel.run()


def test_a_close_is_heard_after_all_that_was_sent() -> None:
    pair = Pair()
    end = pair.connect()
    end.send(Pause(due_nano=1))
    end.close()
    end.send(Pause(due_nano=2))
    pair.kernel.run()
    assert pair.heard == [1]
    assert [who for who, _ in pair.lost] == ["server"]


@pytest.mark.parametrize("silent", [False, True])
def test_a_dying_process_closes_its_streams_and_a_dying_machine_says_nothing(silent: bool) -> None:
    pair = Pair()
    end = pair.connect()
    pair.kernel.run()
    pair.network.crash("server", silent=silent)
    end.send(Pause(due_nano=1))
    pair.server_ends[0].send(Heartbeat())
    pair.kernel.run()
    assert pair.heard == []
    assert [who for who, _ in pair.lost] == ([] if silent else ["client"])


@pytest.mark.parametrize("silent", [False, True])
def test_nobody_answers_a_dial_to_the_dead_until_they_return(silent: bool) -> None:
    pair = Pair()
    pair.network.crash("server", silent=silent)
    pair.connect().send(Pause(due_nano=1))
    pair.kernel.run()
    assert [who for who, _ in pair.lost] == ([] if silent else ["client"])
    pair.network.restore("server")
    pair.connect().send(Pause(due_nano=2))
    pair.kernel.run()
    assert pair.heard == [2]


def test_an_inbox_gives_messages_then_none_and_loses_patience() -> None:
    pair = Pair()
    end = pair.network.connect("client", "server", "/test/1")
    inbox = Inbox[Heartbeat](pair.kernel, end, Heartbeat, patience_s=2.0)
    taken: list[tuple[float, bool]] = []

    async def take() -> None:
        for _ in range(3):
            taken.append((pair.kernel.now, await inbox.next() is not None))

    spawn(take())
    pair.kernel.at(1.0, lambda: pair.server_ends[0].send(Heartbeat()))
    pair.kernel.at(1.0, lambda: pair.server_ends[0].send(Heartbeat()))
    pair.kernel.run()
    assert [came for _, came in taken] == [True, True, False]
    assert pair.kernel.now > 3.0
