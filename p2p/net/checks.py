"""Has others try where we may be reached."""

from __future__ import annotations

import logging
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError

from p2p.errors import Error
from p2p.net.autonat import AUTONAT, DialBack
from p2p.net.dialling import Dialler
from p2p.protocol.addresses import Address, Reach
from p2p.protocol.reachability import Reachability

CHECKERS = 3  # for each address
CHECK_EVERY_S = 900.0
RETRY_S = 60.0  # after one that did not say

_log = logging.getLogger(__name__)


class Checks:
    """Keeps `core` informed of what others found."""

    def __init__(self, host: Any, dialler: Dialler, core: Reachability, dial_back: DialBack) -> None:
        self._host = host
        self._dialler = dialler
        self._core = core
        self._dial_back = dial_back
        self._due: dict[tuple[Address, ID], float] = {}  # when to ask each again, by Trio's clock

    async def see_to(self) -> float:
        """Ask whom there is to ask, and say when to come again."""
        now = trio.current_time()
        self._core.tick(now)
        self._due = {what: due for what, due in self._due.items() if due > now}
        if self._core.network is Reach.MACHINE:
            return float("inf")
        async with trio.open_nursery() as nursery:
            for checker in self._checkers():
                nursery.start_soon(self._ask_about_all, checker)
        return min(self._due.values(), default=float("inf"))

    async def _ask_about_all(self, checker: ID) -> None:
        """One after the other, which is how a checker takes them."""
        for address in self._core.candidates():
            if (address, checker) not in self._due and self._asked(address) < CHECKERS:
                self._due[address, checker] = trio.current_time() + CHECK_EVERY_S
                await self._ask(checker, address)

    async def _ask(self, checker: ID, address: Address) -> None:
        try:
            is_open = await self._dial_back.ask(checker, address)
        except Error as error:
            _log.debug("%s does not say whether %s is open: %s", checker, address, error)
            is_open = None
        if is_open is None:
            self._due[address, checker] = trio.current_time() + RETRY_S
        else:
            self._core.answered(str(checker), address, is_open, trio.current_time())

    def _asked(self, address: Address) -> int:
        return sum(asked == address for asked, _ in self._due)

    def _checkers(self) -> list[ID]:
        """Whom we can ask: first those that we were told of."""
        named = set(self._dialler.named())
        able = [peer_id for peer_id in self._host.get_connected_peers() if self._is_able(peer_id)]
        return sorted(able, key=lambda peer_id: peer_id not in named)[: 2 * CHECKERS]

    def _is_able(self, peer_id: ID) -> bool:
        try:
            return AUTONAT in self._host.get_peerstore().get_protocols(peer_id) and self._dialler.is_reached_directly(
                peer_id
            )
        except PeerStoreError:
            return False
