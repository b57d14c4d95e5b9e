"""What providers did for us, in the book: written down after each answer, and looked up before the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import msgspec

from chain.book import Book
from chain.keeper import BookKeeper
from chain.purse import DAY_S
from chain.records import Records
from p2p.answer import Answer
from p2p.errors import EngineError, Error, LocalError, RemoteError, Unavailable
from p2p.foreign import translated
from p2p.protocol.market import Standing
from p2p.protocol.reputation import MISCOUNTS, Evidence, Kind, standing, weigh
from p2p.trace import Trace, silent


class TrackRecord:
    """The experience of one home."""

    def __init__(self, keeper: BookKeeper, clock: Callable[[], float], trace: Trace = silent) -> None:
        self._keeper = keeper
        self._clock = clock
        self._trace = trace

    async def standings(self, peers: Collection[str]) -> Mapping[str, Standing]:
        """Of those that we have dealt with. Raises `LocalError`."""
        if not peers:
            return {}
        with translated():
            known = await self._keeper.do(partial(evidence_of, peers=peers))
        now = self._clock()
        return {peer: standing(weigh(evidence, now)) for peer, evidence in known.items()}

    async def note(self, answer: Answer, rtt_ms: int) -> None:
        """How an answer that is over went. Nothing is noted of what was not the provider's doing."""
        evidence = evidence_from(answer, rtt_ms, int(self._clock()))
        if evidence is None:
            return
        await self._save(answer.deal.provider, partial(Book.save_evidence, at=evidence.at), evidence)

    async def note_audit(self, peer: str, evidence: Evidence, cost_nano: int) -> None:
        """What an audit came to, and what was paid for the answer."""
        await self._save(peer, partial(Book.save_audit, at=evidence.at, cost_nano=cost_nano), evidence)

    async def of(self, peer: str) -> Sequence[Evidence]:
        """All that is known of a provider. Raises `LocalError`."""
        with translated():
            return (await self._keeper.do(partial(evidence_of, peers=(peer,)))).get(peer, ())

    async def audits(self, peers: Collection[str]) -> Mapping[str, Sequence[Evidence]]:
        """What audits of these came to, oldest first. Raises `LocalError`."""
        with translated():
            return _by_peer(await self._keeper.do(partial(Book.audits, peers=peers)))

    async def audits_cost_today_nano(self) -> int:
        """What audits have cost since midnight UTC. Raises `LocalError`."""
        midnight = int(self._clock()) // DAY_S * DAY_S
        with translated():
            return await self._keeper.do(partial(Book.audits_cost_nano, since=midnight))

    async def _save(self, peer: str, save: Callable[..., None], evidence: Evidence) -> None:
        try:
            with translated():
                await self._keeper.do(partial(save, peer=peer, body=msgspec.msgpack.encode(evidence)))
        except LocalError as error:  # the answer is given and paid all the same
            self._trace("not_noted", peer=peer, why=str(error))


def evidence_of(records: Records, peers: Collection[str] = ()) -> Mapping[str, list[Evidence]]:
    """All that the book has of these peers, or of anybody."""
    return _by_peer((*records.evidence(peers), *records.audits(peers)))


def _by_peer(rows: Iterable[tuple[str, bytes]]) -> Mapping[str, list[Evidence]]:
    found: defaultdict[str, list[Evidence]] = defaultdict(list)
    for peer, body in rows:
        found[peer].append(msgspec.msgpack.decode(body, type=Evidence))
    return found


def evidence_from(answer: Answer, rtt_ms: int, at: int) -> Evidence | None:
    """What an answer says of its provider; nothing if we left before it began, or the fault was ours."""
    if answer.receipt is None and (answer.error is None or answer.left):
        return None
    found = Kind.ANSWERED if answer.error is None or answer.whole else _kind(answer.error)
    if found is None:
        return None
    quote, timing = answer.deal.quote, answer.timing
    return Evidence(
        at=at,
        kind=found,
        code=answer.error.code if isinstance(answer.error, RemoteError) else "",
        tokens=answer.completion_tokens,
        ttft_ms=max(0, timing.ttft_ms - 2 * rtt_ms),
        promised_ttft_ms=quote.ttft_ms,
        tokens_per_s=round(timing.tokens_per_s, 1),
        promised_tokens_per_s=quote.tokens_per_s,
    )


def _kind(error: Error) -> Kind | None:
    match error:
        case RemoteError(code=code):
            return Kind.MISCOUNTED if code in MISCOUNTS else Kind.BROKE_RULES
        case Unavailable():
            return Kind.BROKE_OFF
        case EngineError():
            return Kind.ENGINE_FAILED
        case _:
            return None
