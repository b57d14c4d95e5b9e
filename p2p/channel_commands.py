"""`channels` on the command line: list the channels of a role's book, or close one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from chain.records import Channel, open_records
from p2p.arguments import PROGRAM
from p2p.console import Session
from p2p.errors import LocalError
from p2p.foreign import translated
from p2p.peer import LightPeer
from p2p.purchase import amount
from p2p.story import gram, short

OpenClient = Callable[..., AbstractAsyncContextManager[LightPeer]]
"""(alone=…) -> our light peer; where it is `alone`, no other peer is needed."""


async def run(session: Session, open_client: OpenClient) -> None:
    """The action that was asked for. Raises `p2p.errors`."""
    if session.options.action == "list":
        network = session.network()
        with translated(), open_records(session.home().book, session.role, network.chain_network) as records:
            _list(session, records.channels())
        return
    # Whoever closes alone needs the chain and nobody else: above all where the network is gone.
    alone = session.options.action != "close"
    async with open_client(alone=alone) as peer:
        channel = _pick(await peer.channels(), session.options.channel)
        action = {"close": peer.close_channel, "start-close": peer.start_close, "finalise": peer.finalise}
        transaction = await action[session.options.action](channel.channel)
        session.story.say(f"Done: {transaction.op}, fee {gram(transaction.fee_nano)}.")
        if transaction.op == "start_close":
            session.story.say(f"In {channel.terms.challenge_period_s} s the rest can be had with: channels finalise")
        if session.options.json:
            session.print_json(transaction)


def _pick(known: Sequence[Channel], prefix: str) -> Channel:
    if not prefix:
        raise LocalError(f"name the channel by its first digits; see {PROGRAM} channels")
    fitting = [one for one in known if one.channel.hex().startswith(prefix)]
    if len(fitting) != 1:
        raise LocalError(f"{len(fitting)} channels begin with {prefix!r}; see {PROGRAM} channels")
    return fitting[0]


def _list(session: Session, known: Sequence[Channel]) -> None:
    if session.options.json:
        session.print_json([_as_json(one) for one in known])
        return
    if not known:
        session.story.say("No channels yet.")
    for one in known:
        session.story.table(
            f"{one.channel.hex()[:16]}… {one.state.name}{', retired,' if one.retired else ''} with {short(one.peer)}",
            [
                ("deposited", amount(one.deposited_nano)),
                ("authorised", amount(one.authorised_nano)),
                ("delivered", amount(one.delivered_nano)),
                ("settled", amount(one.settled_nano)),
            ],
        )


def _as_json(one: Channel) -> dict[str, Any]:
    return {
        "channel": one.channel.hex(),
        "peer": one.peer,
        "state": one.state.name.lower(),
        "retired": one.retired,
        "deposited_nano": one.deposited_nano,
        "authorised_nano": one.authorised_nano,
        "delivered_nano": one.delivered_nano,
        "settled_nano": one.settled_nano,
    }
