"""A client that is driven by hand: the real core, and a test that decides what is said, and when."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from market import MODEL, Customer, clock, question, signer

from chain.channel import Payer
from inference.engine import Request
from p2p.book_events import save_events
from p2p.buying import Deal
from p2p.errors import Error
from p2p.keys import verify_by_peer
from p2p.protocol import session
from p2p.protocol.session import (
    Deliver,
    Event,
    Failed,
    SaveClaim,
    SaveDelivered,
    SaveReceipt,
    Send,
    ToClient,
)
from p2p.protocol.session_client import ClientSession
from p2p.protocol.wire import encode
from p2p.stream import MessageStream, open_messages


class ByHand:
    """One session. `obey` reads a message and says what the core answers; `mute` keeps that back."""

    def __init__(self, core: ClientSession, messages: MessageStream[Any], payer: Payer, client: Customer) -> None:
        self.core = core
        self.messages = messages
        self.payer = payer
        self.text = ""
        self.kept_back: list[msgspec.Struct] = []
        self.mute = False
        self.error: Error | None = None
        self._save = partial(save_events, client.keeper, client.name)

    async def start(self, **changes: object) -> None:
        await self.carry_out(self.core.start(clock()), **changes)

    async def obey(self) -> Any:
        """The message that was heard, `None` at the end."""
        message = await self.messages.receive()
        if message is not None:
            await self.carry_out(self.core.receive(message, clock()))
        return message

    async def carry_out(self, events: list[Event], **changes: object) -> None:
        for event in events:
            match event:
                case SaveClaim() | SaveDelivered() | SaveReceipt():
                    await self._save([event])
                case Send(message) if self.mute:
                    self.kept_back.append(message)
                case Send(message):
                    await self.messages.send(msgspec.structs.replace(message, **changes))
                case Deliver(text, _):
                    self.text += text
                case Failed(error):
                    self.error = error
                case _:
                    pass

    async def speak(self) -> None:
        """Say what was kept back."""
        self.mute = False
        messages, self.kept_back = self.kept_back, []
        await self.messages.send(*messages)

    async def hear(self, kind: type) -> Any:
        """Go on until this kind of message came."""
        while not isinstance(message := await self.obey(), kind):
            assert message is not None, f"the stream ended before a {kind.__name__}"
        return message


async def agree(client: Customer, request: Request) -> Deal:
    return await client.peer.agree(await client.peer.find(MODEL), request)


@asynccontextmanager
async def by_hand(client: Customer, request: Request | None = None, deal: Deal | None = None) -> AsyncIterator[ByHand]:
    """A session that is ready to start."""
    request = request or question()
    deal = deal or await agree(client, request)
    quote = deal.quote
    async with (
        client.peer._payers.lease(deal.provider, quote.channel, quote.worst_cost_nano) as payer,
        open_messages(client.host, deal.provider, session.PROTOCOL, ToClient) as messages,
    ):
        core = ClientSession(
            session=secrets.token_bytes(16),
            quote=quote,
            signed_quote=deal.signed,
            payer=payer,
            request=encode(request),
            salt=bytes(16),
            max_tokens=request.max_tokens,
            signer=signer(client.name),
            verify=verify_by_peer,
        )
        try:
            yield ByHand(core, messages, payer, client)
        finally:
            core.lost(clock())
