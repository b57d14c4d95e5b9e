"""What is charged, however an answer ends: a table over the two real cores, wired back to back.

An answer that stays empty or fails costs no more than the progress through its prompt that the provider had signed
before, and a client that has enough pays the progress made.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from back_to_back import Wired

from p2p.errors import EngineError
from p2p.protocol.negotiate import Refusal
from p2p.protocol.price import FREE, Tokens, cost_nano
from p2p.protocol.session import Completed, Delta, Progress, State, ToClient
from p2p.protocol.unpaid import unpaid_payee, unpaid_payer
from p2p.protocol.wire import Message

PROMPT = 1000  # five steps of the window's 200 prompt tokens, the last of which is the answer itself
WORDS = [("word ", 1)] * 30


def cancel_at(kind: type[Message], count: int) -> Callable[[], Wired]:
    """The client has enough as soon as so many messages of that kind have come."""

    def play() -> Wired:
        wired, seen = Wired(pieces=WORDS, prompt_tokens=PROMPT), 0

        def look(message: Message) -> Message:
            nonlocal seen
            seen += isinstance(message, kind)
            if seen == count and isinstance(message, kind):
                after.append(message)
            return message

        after: list[Message] = []
        wired.to_client = look
        client = wired.client.receive

        def receive(message: ToClient, now: float) -> list[object]:
            events = client(message, now)
            return [*events, *wired.client.cancel(now)] if after and after.pop() else list(events)

        wired.client.receive = receive  # type: ignore[assignment, method-assign]
        return wired.run()

    return play


def died(after: int) -> Callable[[], Wired]:
    """The stream is gone after so many pieces of the answer, for both."""

    def play() -> Wired:
        wired, seen = Wired(pieces=WORDS, prompt_tokens=PROMPT), 0

        def cut(message: Message) -> Message | None:
            nonlocal seen
            seen += isinstance(message, Delta)
            return None if seen > after else message

        wired.to_client = cut
        wired.run()
        wired._client(wired.client.lost(wired.now))
        wired._provider(wired.provider.lost(wired.now))
        return wired

    return play


def prefill_broken(steps: int) -> Callable[[], Wired]:
    """The engine breaks in the prompt, after so many steps."""

    def play() -> Wired:
        wired, done = Wired(pieces=WORDS, prompt_tokens=PROMPT), 0

        def prefill(tokens: int) -> int:
            nonlocal done
            if done == steps:
                wired._provider(wired.provider.engine_failed(EngineError("it broke"), wired.now))
            done += 1
            return tokens

        wired.prefill = prefill
        return wired.run()

    return play


def played(**wiring: object) -> Callable[[], Wired]:
    return lambda: Wired(prompt_tokens=PROMPT, **wiring).run()  # type: ignore[arg-type]


TABLE: dict[str, tuple[Callable[[], Wired], Tokens, str | None]] = {
    # what happens: how it is played, what is charged, and the reason in the receipt
    "a whole answer": (played(pieces=WORDS), Tokens(PROMPT, 0, 30), "stop"),
    "an empty answer": (played(pieces=[]), Tokens(800), "stop"),
    "the engine breaks in the first step of the prompt": (prefill_broken(0), Tokens(), None),
    "the engine breaks in the third step of the prompt": (prefill_broken(2), Tokens(400), "failed"),
    "the engine breaks before the first token": (played(pieces=WORDS, engine_breaks_after=0), Tokens(800), "failed"),
    "the engine breaks later": (played(pieces=WORDS, engine_breaks_after=7), Tokens(PROMPT, 0, 7), "failed"),
    "the client cancels in the prompt": (cancel_at(Progress, 2), Tokens(400), "cancelled"),
    "the client cancels in the answer": (cancel_at(Delta, 7), Tokens(PROMPT, 0, 7), "cancelled"),
    "the stream dies before the first token": (died(0), Tokens(PROMPT), None),
    "the stream dies in the answer": (died(7), Tokens(PROMPT, 0, 7), None),
}


@pytest.mark.parametrize("case", TABLE)
def test_no_more_is_charged_than_was_delivered_or_proven(case: str) -> None:
    play, charged, reason = TABLE[case]
    wired = play()
    completed = [event.receipt for event in wired.client_events if isinstance(event, Completed)]
    assert [receipt.reason for receipt in completed] == ([reason] if reason else [])
    assert wired.client.tokens == charged
    cost = cost_nano(wired.quote.prices, charged)
    ahead = wired.payer.authorised_nano - cost
    assert (0 if reason else -wired.quote.window_nano) <= ahead <= wired.quote.window_nano, "what is ahead is credit"
    if reason:
        assert wired.payer.delivered_nano == wired.payee.delivered_nano == cost
        assert [receipt.session_total_nano for receipt in completed] == [cost]
    else:
        assert wired.payee.delivered_nano <= wired.payee.authorised_nano, "what is unpaid is written off"


def test_an_empty_answer_to_a_short_question_costs_nothing() -> None:
    wired = Wired(pieces=[]).run()
    assert wired.client.state is wired.provider.state is State.DONE
    assert (wired.client.tokens, wired.payer.delivered_nano, wired.payee.delivered_nano) == (Tokens(), 0, 0)


def test_what_a_refused_question_was_paid_ahead_is_credit() -> None:
    """The prompt turned out to have more tokens than the quote covers, say."""
    wired = Wired()
    wired.provider.admit = lambda *_: wired.provider.refuse(  # type: ignore[method-assign]
        Refusal(reason="prompt_over_quote"), wired.now
    )
    wired.run()
    assert (wired.client.tokens, wired.payee.delivered_nano) == (Tokens(), 0)
    assert 0 < wired.payer.authorised_nano - wired.payer.delivered_nano <= wired.quote.window_nano


@pytest.mark.parametrize("case", TABLE)
def test_where_nothing_has_a_price_nothing_is_ever_signed_away(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    init = Wired.__post_init__

    def unpaid(self: Wired) -> None:
        self.quote_changes = {"prices": FREE}
        init(self)
        self.payer = self.client._payer = unpaid_payer()
        self.payee = unpaid_payee()

    monkeypatch.setattr(Wired, "__post_init__", unpaid)
    wired = TABLE[case][0]()
    assert (wired.payer.authorised_nano, wired.payer.delivered_nano) == (0, 0)
    assert (wired.payee.authorised_nano, wired.payee.delivered_nano) == (0, 0)
    assert wired.client.state in {State.DONE, State.FAILED}
    assert wired.payer.lanes == wired.payee.lanes == {}
