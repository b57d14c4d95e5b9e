"""`demand` on the command line: ask for standing quotes, or list those that are held or were given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import trio

from chain.records import StandingQuote, open_records
from p2p.arguments import PROGRAM
from p2p.config import Config, DemandConfig
from p2p.console import Session
from p2p.errors import LocalError
from p2p.foreign import translated
from p2p.peer import LightPeer
from p2p.protocol.allowance import DAY_S
from p2p.protocol.demand import Wanted
from p2p.protocol.negotiate import Quote
from p2p.protocol.wire import Signed, decode
from p2p.standing_quotes import Held
from p2p.story import per_million, short

OpenClient = Callable[..., AbstractAsyncContextManager[LightPeer]]


async def run(session: Session, open_client: OpenClient) -> None:
    """The action that was asked for. Raises `p2p.errors`."""
    if session.options.action == "get":
        if session.role == "payee":
            raise LocalError(
                f"a provider gives quotes when it is asked; to list them: {PROGRAM} demand list --provider"
            )
        wanted, settings = wanted_by(session.config, time.time()), session.config.demand
        async with open_client(listen=settings.publish) as peer:
            if settings.publish:
                session.story.say(f"Telling everybody for {settings.publish_s} s …")
                with trio.move_on_after(settings.publish_s):
                    await peer.publish(wanted)
            await peer.demand(wanted)
    _show(session, _known(session))


def wanted_by(config: Config, now: float) -> Wanted:
    """What the settings say. Raises `LocalError` for what nobody could answer."""
    demand = config.demand
    if demand.model and demand.family:
        raise LocalError("demand a model or a family, not both")
    if not demand.per_day:
        raise LocalError("say how many answers you want: --per-day N, or demand.per_day in the configuration")
    until = _end_of(demand, now)
    if until <= now:
        raise LocalError(f"the last day of the demand, {demand.until}, is over: see --until")
    return Wanted(
        model=demand.model or ("" if demand.family else config.ask.model),
        family=demand.family,
        per_day=demand.per_day,
        input_tokens=demand.input_tokens,
        output_tokens=demand.output_tokens,
        prices_max=demand.prices_max or config.ask.prices_max,
        tier=demand.tier,
        until=until,
    )


def _end_of(demand: DemandConfig, now: float) -> int:
    if demand.until is None:
        return int(now) + DAY_S
    last = datetime.combine(demand.until, datetime.min.time(), UTC)
    return int((last + timedelta(days=1)).timestamp())


def _known(session: Session) -> Sequence[tuple[Quote, StandingQuote]]:
    """All that this role's book counts, the oldest first."""
    network = session.network().chain_network
    with translated(), open_records(session.home().book, session.role, network) as records:
        known = records.standing_quotes(int(time.time()))
    return [(_quote(session, one.body), one) for one in known]


def _quote(session: Session, body: bytes) -> Quote:
    if session.role == "payer":
        return msgspec.msgpack.decode(body, type=Held).quote
    signed: Signed = decode(body, Signed)
    quote: Quote = decode(signed.body, Quote)
    return quote


def _show(session: Session, known: Sequence[tuple[Quote, StandingQuote]]) -> None:
    other = "provider" if session.role == "payer" else "client"
    if session.options.json:
        session.print_json([_as_json(quote, one) for quote, one in known])
    elif not known:
        session.story.say("No standing quotes.")
    else:
        headings = ("model", other, "price", "answers left", "until")
        session.story.columns(headings, [_cells(quote, one, getattr(quote, other)) for quote, one in known])


def _cells(quote: Quote, one: StandingQuote, other: str) -> tuple[str, ...]:
    until = f"{datetime.fromtimestamp(quote.valid_until, UTC):%Y-%m-%d %H:%M} UTC"
    price = per_million(quote.prices.input, quote.prices.output)
    return quote.model, short(other), price, f"{one.uses_left} of {quote.uses}", until


def _as_json(quote: Quote, one: StandingQuote) -> dict[str, Any]:
    return {
        "quote": one.quote.hex(),
        "provider": quote.provider,
        "client": quote.client,
        "model": quote.model,
        "tier": quote.tier,
        "prices": msgspec.structs.asdict(quote.prices),
        "prompt_tokens": quote.prompt_tokens,
        "max_tokens": quote.max_tokens,
        "uses": quote.uses,
        "uses_left": one.uses_left,
        "valid_until": quote.valid_until,
    }
