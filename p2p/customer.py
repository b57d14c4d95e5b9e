"""A customer at the command line: a light peer with what money there is, what it buys, and what it lacks to pay."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from chain.wallet import WALLET_MARGIN_NANO
from inference.engine import Message, Request
from p2p import arguments, purchase, ranking
from p2p.buying import Deal
from p2p.config import Config
from p2p.console import Session
from p2p.errors import Error, LocalError, PaymentError, Refused
from p2p.foreign import translated
from p2p.home import Home
from p2p.peer import LightPeer
from p2p.purchase import Purchase
from p2p.story import answer_to, gram
from p2p.wiring import Node, fund, is_free, open_client


def request_of(config: Config, *messages: Message) -> Request:
    """With what is configured of an answer."""
    ask = config.ask
    return Request(
        model=ask.model,
        messages=messages,
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        seed=ask.seed,
    )


@asynccontextmanager
async def open_customer(session: Session) -> AsyncIterator[tuple[Node, LightPeer]]:
    """A light peer with what money there is."""
    network = session.network()
    async with open_client(session, network, free=is_free(session.config, network)) as (node, peer):
        if session.options.faucet:
            await fund(node.network, node.ledger.wallet.address)
        yield node, peer


async def buy(session: Session, node: Node, peer: LightPeer, request: Request) -> Purchase:
    """An answer, free where nothing can be paid, which goes to standard output as it comes."""
    lack = await lack_of_money(session.config, node, peer)
    free = is_free(session.config, node.network) or lack is not None
    agreed = partial(_show_ranking, session)
    with _in_want_of_money(lack), answer_to(None if session.options.json else sys.stdout) as piece:
        async with session.interrupt.gently():
            return await purchase.buy(peer, request, piece, free=free, agreed=agreed)
    raise AssertionError("an answer that is interrupted is the end of all")


def _show_ranking(session: Session, deal: Deal) -> None:
    if session.options.explain and not session.options.json:
        session.story.columns(ranking.HEADINGS, ranking.rows(deal))


async def lack_of_money(config: Config, node: Node, peer: LightPeer) -> Error | None:
    """Why nothing can be paid, where that is not the user's wish."""
    if config.ask.free or node.network.unpaid:
        return None
    if not Home(config, "payer").has_wallet(node.network.chain_network):
        return LocalError(f"there is no wallet yet: {arguments.PROGRAM} wallet create")
    if await peer.can_pay():
        return None
    with translated():
        balance = await node.ledger.wallet.balance()
    needed = config.ask.deposit_nano + WALLET_MARGIN_NANO
    if balance >= needed:
        return None
    hint = "add --faucet" if node.network.mark.control else "send GRAM to it"
    return PaymentError(
        f"the wallet {node.ledger.wallet.address} holds {gram(balance)} and a channel needs {gram(needed)}: {hint}"
    )


@contextmanager
def _in_want_of_money(lack: Error | None) -> Iterator[None]:
    """Where nobody gives an answer away, what is in the way is the lack of money."""
    try:
        yield
    except Refused as no:
        if lack is not None and no.reason == "no_allowance":
            raise type(lack)(f"{lack}; {no}") from no
        raise
