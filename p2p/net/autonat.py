"""Dialling back (AutoNAT, version 1): others try our addresses for us, and we try theirs.

Nobody is dialled but whoever asks, where its own connection comes from: no stranger can have us dial a third party.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import trio
from libp2p.host.autonat.pb.autonat_pb2 import Message
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from p2p.net.address_group import address_group
from p2p.net.delimited import receive, send
from p2p.net.stream import Blame, Libp2pStream, open_stream, serve
from p2p.protocol.addresses import Address, parse, socket_address

AUTONAT = "/libp2p/autonat/1.0.0"
MAX_TRIED = 4  # addresses of one question
MAX_TRYING = 16  # at a time, and one for each address that asks
TRY_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = MAX_TRIED * TRY_TIMEOUT_S + 5.0

_log = logging.getLogger(__name__)


class DialBack:
    """Serves `AUTONAT` on a libp2p host from when it is made."""

    def __init__(self, host: Any, blame: Blame) -> None:
        self._host = host
        self._network = host.get_network()
        self._trying: Counter[str] = Counter()
        serve(host, AUTONAT, self._serve, blame)

    async def ask(self, checker: ID, address: Address) -> bool | None:
        """Whether the peer can dial us there; `None` if it does not say. Raises `Error`."""
        me = self._host.get_id()
        info = Message.PeerInfo(id=me.to_bytes(), addrs=[Multiaddr(str(address)).to_bytes()])
        stream = await open_stream(self._host, checker, AUTONAT)
        try:
            await send(stream, Message(type=Message.DIAL, dial=Message.Dial(peer=info)))
            answer = await receive(stream, Message, _ANSWER_TIMEOUT_S)
        finally:
            await stream.reset()
        return {Message.OK: True, Message.E_DIAL_ERROR: False}.get(answer.dialResponse.status)

    async def _serve(self, stream: Libp2pStream) -> None:
        asked = await receive(stream, Message)
        ip = stream.remote_ip
        wanted = [] if stream.relayed or ip is None else of_host(asked.dial.peer.addrs, ip)
        group = address_group(ip or "")
        if not wanted or self._trying[group] or self._trying.total() >= MAX_TRYING:
            await _answer(stream, Message.E_DIAL_REFUSED)
            return
        self._trying[group] += 1
        try:
            reached = [address for address in wanted if await self._comes_through(stream.peer, address)]
        finally:
            self._trying -= Counter([group])
        if reached:
            await _answer(stream, Message.OK, addr=Multiaddr(str(reached[0])).to_bytes())
        else:
            await _answer(stream, Message.E_DIAL_ERROR)

    async def _comes_through(self, peer: str, address: Address) -> bool:
        """Whether the peer itself answers there. It is left at once: this connection is for nothing else."""
        multiaddr = Multiaddr(str(address))
        try:
            with trio.fail_after(TRY_TIMEOUT_S):
                raw = await self._network.transport_manager.transport_for_dialing(multiaddr).dial(multiaddr)
                try:
                    await self._network.upgrader.upgrade_security(raw, True, ID.from_base58(peer))
                finally:
                    with trio.CancelScope(shield=True):
                        await raw.close()
        except Exception as error:  # the library's, and Trio's for the time that it took
            _log.debug("%s cannot be dialled at %s: %s", peer, address, error)
            return False
        return True


def of_host(addresses: Any, ip: str) -> list[Address]:
    """Those of a peer's addresses that are where it comes from."""
    host = socket_address(ip, 0).host
    found = []
    for address in addresses[:MAX_TRIED]:
        try:
            where = parse(str(Multiaddr(address)).partition("/p2p/")[0])
        except Exception as error:  # the library's parser raises what it likes on bytes from a peer
            _log.debug("an address cannot be read: %r", error)
            continue
        if where.host == host:
            found.append(where)
    return found


async def _answer(stream: Libp2pStream, status: Any, **more: Any) -> None:
    response = Message.DialResponse(status=status, **more)
    await send(stream, Message(type=Message.DIAL_RESPONSE, dialResponse=response))
