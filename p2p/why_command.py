"""`peers why` on the command line: what this home has seen of a provider, and what that comes to."""

from __future__ import annotations

import time

import msgspec

from chain.records import open_records
from p2p.arguments import PROGRAM
from p2p.console import Session
from p2p.errors import LocalError
from p2p.foreign import translated
from p2p.protocol.market import STRANGER
from p2p.protocol.reputation import standing, weigh
from p2p.story import short
from p2p.track_record import evidence_of

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def why(session: Session) -> None:
    """List the evidence, the newest first, each with how much it still counts. Raises `LocalError`."""
    network = session.network().chain_network
    with translated(), open_records(session.home().book, session.role, network) as records:
        known = evidence_of(records)
    peer = _one_of(list(known), session.options.peer)
    now = time.time()
    weighed = weigh(known[peer], now)
    found = standing(weighed)
    if session.options.json:
        evidence = [
            {**msgspec.to_builtins(one), "said": one.said(), "weight_percent": round(100 * weight)}
            for one, weight in weighed
        ]
        session.print_json({"peer": peer, **found._asdict(), "evidence": evidence})
        return
    session.story.table(
        f"{short(peer)}, as this home knows it",
        [
            (
                "answers that fail",
                f"{found.failure_permille / 10:g} % ({STRANGER.failure_permille / 10:g} % of a stranger's)",
            ),
            ("first token", f"after {found.ttft_percent} % of the time that it promises"),
            ("tokens per second", f"{found.rate_percent} % of what it promises"),
        ],
    )
    rows = [(_ago(now - one.at), f"{weight:.0%}", one.said()) for one, weight in weighed]
    session.story.columns(("ago", "counts", "what it did"), rows)


def _one_of(peers: list[str], wanted: str) -> str:
    """The peer whose id is `wanted` or ends in it."""
    end = wanted.removeprefix("…")
    if not end:
        raise LocalError(f"name the provider by the end of its id: {PROGRAM} peers why HFEbAW")
    found = [peer for peer in peers if peer.endswith(end)]
    if not found:
        raise LocalError(f"this home has had no answer from a provider {wanted!r}: see {PROGRAM} peers")
    if len(found) > 1:
        raise LocalError(f"{len(found)} providers end in {wanted!r}: give more of the id")
    return found[0]


def _ago(seconds: float) -> str:
    unit_s, unit = next(((size, name) for size, name in _UNITS if seconds >= size), _UNITS[-1])
    return f"{max(0, round(seconds / unit_s))} {unit}"
