"""Runs `p2p.node` with a witness beside it, and as `ask` a customer who never stops asking.

    python -m witness provide|ask FLAGS     (WITNESS names a file, WITNESS_PROVIDER the one to buy from, and
                                             WITNESS_AT_ONCE is how many answers a customer asks for at a time)

The witness writes down, outside of all books, what each session handed over (at the provider, the moment it goes to the
network) or received (at the client, the moment the core counts it), and at each end what both should agree on. It
survives a SIGKILL of the process, so it is the truth that books are held against. Everything else is the program as it
ships.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import trio

from inference.engine import Message, Request
from p2p import node, wiring
from p2p.answer import Answer
from p2p.console import Session
from p2p.errors import Error, Refused, RemoteError
from p2p.peer import LightPeer
from p2p.protocol.price import cost_nano
from p2p.protocol.session import End
from p2p.protocol.session_client import ClientSession
from p2p.protocol.session_provider import ProviderSession
from p2p.session_shell import Outbox

AT_ONCE = int(os.environ["WITNESS_AT_ONCE"])
RETRY_S = 0.2
STAGGER_S = 0.05  # a provider promises one client no more than two places
PROMPT_WORDS, ANSWER_TOKENS = (20, 1200), (5, 90)

_file = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _write(**fields: object) -> None:
    os.write(_file, json.dumps(fields).encode() + b"\n")


def _replace(owner: type, name: str, watched: Any) -> None:
    setattr(owner, name, watched)


def _watch_client() -> None:
    received = ClientSession.receive

    def receive(core: ClientSession, message: Any, now: float) -> Any:
        events = received(core, message, now)
        _write(session=core._session.hex(), nano=core.cost_nano, phase=core.state.name)
        return events

    _replace(ClientSession, "receive", receive)


def _watch_provider() -> None:
    """What a message hands over is known when it is made, and done when it is put out, after what had to be saved."""
    made, put_out = ProviderSession._send, Outbox.put
    to_tell: dict[int, list[dict[str, object]]] = {}

    def send(core: ProviderSession, message: Any, now: float) -> Any:
        to_tell[id(message)] = list(tell(core, message)) if hasattr(core, "_quote") else []
        return made(core, message, now)

    def tell(core: ProviderSession, message: Any) -> Iterator[dict[str, object]]:
        nano, session = cost_nano(core._quote.prices, core.tokens), core._start.session.hex()
        yield {"session": session, "nano": nano, "phase": core.state.name}
        if isinstance(message, End):
            yield _agreed(session, core._payee.delivered_nano, core._payee.authorised_nano, shared=core._lane.shared)

    def put(outbox: Outbox, message: Any) -> None:
        for told in to_tell.pop(id(message), ()):
            _write(**told)
        put_out(outbox, message)

    _replace(ProviderSession, "_send", send)
    _replace(Outbox, "put", put)


def _agreed(answer: str, delivered_nano: int, authorised_nano: int, **more: object) -> dict[str, object]:
    """What one end takes the channel's totals to be once an answer is over at it."""
    totals = {"delivered_nano": delivered_nano, "authorised_nano": authorised_nano}
    return {"event": "agreed", "answer": answer, **totals, **more}


async def ask_for_ever(session: Session) -> None:
    """One answer alone, so that both ends agree, then several at once until one of them fails; and again."""
    async with wiring.open_client(session, session.network()) as (mine, peer):
        if not await peer.can_pay():
            await wiring.fund(mine.network, mine.ledger.wallet.address)
        while True:
            answer = await _one_for_certain(peer)
            assert answer.receipt is not None
            name, window_nano = answer.receipt.session.hex(), answer.deal.quote.window_nano
            _write(**_agreed(name, answer.delivered_nano, answer.authorised_nano, window_nano=window_nano))
            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(_ask_until_one_fails, peer, nursery.cancel_scope, STAGGER_S * number)


async def _one_for_certain(peer: LightPeer) -> Answer:
    while True:
        try:
            return await _ask(peer)
        except Error as error:
            _tell(error)
            await trio.sleep(RETRY_S)


async def _ask_until_one_fails(peer: LightPeer, all_of_them: trio.CancelScope, wait_s: float) -> None:
    await trio.sleep(wait_s)
    while True:
        try:
            await _ask(peer)
        except Refused as error:  # for want of a slot, which says nothing of the others
            _tell(error)
            await trio.sleep(RETRY_S)
        except Error as error:
            _tell(error)
            all_of_them.cancel()


async def _ask(peer: LightPeer) -> Answer:
    words = _between(*PROMPT_WORDS)
    request = Request(
        model="bombyx/scripted", messages=(Message("user", "why " * words),), max_tokens=_between(*ANSWER_TOKENS)
    )
    found = [one for one in await peer.find(request.model) if one.peer == os.environ["WITNESS_PROVIDER"]]
    async with peer.answer(await peer.agree(found, request), request) as answer:
        async for _ in answer:
            pass
    return answer


def _tell(error: Error) -> None:
    _write(event="blamed" if isinstance(error, RemoteError) else "failed", why=f"{type(error).__name__}: {error}")


def _between(least: int, most: int) -> int:
    return least + secrets.randbelow(most - least + 1)


if __name__ == "__main__":
    _watch_client()
    _watch_provider()
    node.COMMANDS["ask"] = ask_for_ever
    node.main()
