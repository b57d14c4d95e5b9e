"""What comes too late, too early or not at all."""

from __future__ import annotations

import msgspec
import pytest
from back_to_back import NETWORK, PROVIDER, Wired

from p2p.errors import EngineError, RemoteError, Unavailable
from p2p.protocol.negotiate import Refusal
from p2p.protocol.price import Prices, Tokens
from p2p.protocol.receipt import Sampling
from p2p.protocol.session import (
    HEARTBEAT_S,
    RECEIPT_PATIENCE_S,
    Begun,
    Cancel,
    Check,
    Delta,
    Event,
    Failed,
    Finished,
    Generate,
    Heartbeat,
    Pause,
    Payment,
    Prefill,
    Progress,
    ProgressBody,
    Send,
    Start,
    State,
    StopEngine,
)
from p2p.protocol.session_client import LATE_S
from p2p.protocol.stall import FLOOR_S, patience_s
from p2p.protocol.wire import Message, sign

SAMPLING = Sampling(max_tokens=1000, temperature=0.0, top_p=1.0, seed=0)


def sent(events: list[Event]) -> list[Message]:
    return [event.message for event in events if isinstance(event, Send)]


def errors(events: list[Event]) -> list[Exception]:
    return [event.error for event in events if isinstance(event, Failed)]


def start_of(wired: Wired) -> Start:
    (start,) = sent(wired.client.start(1000.0))
    assert isinstance(start, Start)
    return start


def checking(wired: Wired) -> Wired:
    """The provider looks at the channel and has not answered yet."""
    assert [type(event) for event in wired.provider.receive(start_of(wired), 1000.0)] == [Check]
    return wired


def test_nothing_happens_to_a_session_that_has_ended() -> None:
    wired = Wired().run()
    assert wired.client.state is wired.provider.state is State.DONE
    assert wired.client.lost(wired.now) == wired.provider.lost(wired.now) == []
    assert wired.client.tick(9999) == wired.provider.tick(9999) == []
    assert wired.client.cancel(9999) == []
    assert wired.provider.receive(Heartbeat(), 9999) == []
    assert wired.provider.produced("more", 1, 9999) == []
    assert wired.provider.generated("stop", 9999) == []
    assert wired.provider.prefilled(99, 9999) == []
    assert wired.provider.engine_failed(EngineError("late"), 9999) == []
    assert wired.provider.refuse(Refusal(reason="late"), 9999) == []
    assert wired.provider.admit(wired.quote, wired.payee, SAMPLING, 40, 9999) == []
    assert wired.client.prompt_tokens == 40
    assert wired.client.tokens == wired.provider.tokens == Tokens(input=40, output=3)


def test_nothing_is_due_before_the_start() -> None:
    wired = Wired()
    assert wired.client.deadline() is wired.provider.deadline() is None
    assert wired.client.tick(9999) == wired.provider.tick(9999) == []


def test_a_heartbeat_is_due_only_after_a_silence_of_ours() -> None:
    wired = checking(Wired())
    early = 1000 + HEARTBEAT_S - 1
    assert wired.client.tick(early) == wired.provider.tick(early) == []
    assert sent(wired.client.tick(1000 + HEARTBEAT_S)) == [Heartbeat()]
    assert wired.client.receive(Heartbeat(), 1000 + HEARTBEAT_S) == []


def test_an_honest_no_ends_the_session_on_both_sides() -> None:
    wired = checking(Wired())
    (refusal,) = sent(wired.provider.refuse(Refusal(reason="busy"), 1000.0))
    assert wired.provider.state is State.DONE
    wired.client.receive(refusal, 1000.1)  # type: ignore[arg-type]
    assert wired.client.state is State.FAILED
    assert wired.payer.delivered_nano == wired.payee.delivered_nano == 0


def test_a_client_that_leaves_before_it_is_admitted_owes_nothing() -> None:
    wired = checking(Wired())
    assert [type(error) for error in errors(wired.provider.lost(wired.now))] == [Unavailable]
    assert wired.provider.admit(wired.quote, wired.payee, SAMPLING, 40, 1000.0) == []
    assert wired.payee.accepted is None


def test_a_client_that_leaves_in_mid_answer_stops_the_engine() -> None:
    wired = checking(Wired())
    events = wired.provider.admit(wired.quote, wired.payee, SAMPLING, 40, 1000.0)
    assert Generate() in events
    wired.provider.produced("word", 1, 1000.1)
    ended = wired.provider.lost(wired.now)
    assert StopEngine() in ended
    assert [type(error) for error in errors(ended)] == [Unavailable]
    assert wired.payee.unpaid_nano <= 0
    assert wired.provider.produced("more", 1, 1000.2) == []


def test_work_that_ends_after_the_client_left_is_not_counted() -> None:
    wired = checking(Wired(prompt_tokens=2000))
    events = wired.provider.admit(wired.quote, wired.payee, SAMPLING, 2000, 1000.0)
    assert any(isinstance(event, Prefill) for event in events)
    wired.provider.lost(wired.now)
    assert wired.provider.prefilled(300, 1000.2) == []
    assert wired.payee.delivered_nano == 0


def test_a_session_that_runs_already_is_refused_and_goes_on() -> None:
    wired = checking(Wired())
    wired.provider.admit(wired.quote, wired.payee, SAMPLING, 40, 1000.0)
    twin = Wired()
    twin.provider.receive(start_of(twin), 1000.0)
    (error,) = errors(twin.provider.admit(twin.quote, wired.payee, SAMPLING, 40, 1000.0))
    assert isinstance(error, RemoteError)
    assert error.code == "out_of_turn"
    assert any(isinstance(message, Delta) for message in sent(wired.provider.produced("word", 1, 1000.1)))


def test_free_prompts_need_no_steps() -> None:
    wired = Wired(prompt_tokens=4000, quote_changes={"prices": Prices(0, 0, 300_000_000)}).run()
    assert wired.events(Prefill) == []
    assert wired.client.state is State.DONE


def test_a_free_answer_is_receipted_and_costs_nothing() -> None:
    wired = Wired(quote_changes={"prices": Prices(0, 0, 0)}).run()
    assert wired.client.state is wired.provider.state is State.DONE
    assert wired.payer.authorised_nano == 0


def test_a_cancel_that_crosses_the_receipt_changes_nothing() -> None:
    wired = Wired(to_provider=lambda m: None if type(m).__name__ == "Close" else m).run()
    assert wired.provider.state is State.CLOSING
    assert wired.provider.receive(Cancel(), wired.now) == []
    assert wired.provider.state is State.CLOSING


def test_a_late_voucher_in_mid_work_is_just_kept() -> None:
    wired = checking(Wired(prompt_tokens=2000))
    wired.provider.admit(wired.quote, wired.payee, SAMPLING, 2000, 1000.0)
    claim = wired.payer.authorise(30_000)
    payment = Payment(session_total_nano=30_000, channel_total_nano=30_000, signature=claim.signature)
    (saved,) = wired.provider.receive(payment, 1000.1)
    assert saved.claim == claim  # type: ignore[union-attr]
    assert wired.provider.receive(payment, 1000.2) == [saved], "it is not on disk yet"
    wired.payee.saved(authorised_nano=30_000)
    assert wired.provider.receive(payment, 1000.3) == []


@pytest.mark.parametrize(
    "changes",
    [{"session": b"x" * 16}, {"prompt_tokens_done": 41}, {"session": b"x" * 16, "prompt_tokens_done": 41}],
)
def test_progress_of_another_session_or_past_the_prompt_is_refused(changes: dict[str, object]) -> None:
    def lie(message: Message) -> Message:
        if not isinstance(message, Progress):
            return message
        body = ProgressBody(network=NETWORK, session=b"s" * 16, prompt_tokens_done=40)
        return Progress(progress=sign(msgspec.structs.replace(body, **changes), PROVIDER))

    (error,) = errors(Wired(to_client=lie).run().client_events)
    assert isinstance(error, RemoteError)
    assert error.code == "bad_progress"


def test_the_same_progress_twice_is_refused() -> None:
    wired = Wired(prompt_tokens=2000, to_client=lambda m: None if isinstance(m, Delta | Finished) else m).run()
    steps = [m for m in sent(wired.provider_events) if isinstance(m, Progress)]
    begun = next(m for m in sent(wired.provider_events) if isinstance(m, Begun))
    fresh = Wired(prompt_tokens=2000)
    fresh.client.start(1000.0)
    fresh.client.receive(begun, 1000.1)
    assert errors(fresh.client.receive(steps[0], 1000.2)) == []
    (error,) = errors(fresh.client.receive(steps[0], 1000.3))
    assert isinstance(error, RemoteError)
    assert error.code == "bad_progress"


def heartbeats(wired: Wired, since: float, seconds: float) -> list[Event]:
    """What the client says to nothing but heartbeats, looking at the time whenever it wants to."""
    events: list[Event] = []
    now = since
    while (deadline := wired.client.deadline()) is not None and deadline <= since + seconds:
        now = max(now, deadline)
        wired.client.receive(Heartbeat(), now)
        events += wired.client.tick(now)
    return events


def test_a_provider_that_only_sends_heartbeats_is_given_up() -> None:
    wired = Wired()
    wired.client.start(1000.0)
    quote = wired.quote
    wait_s = patience_s(ttft_ms=quote.ttft_ms, tokens_per_s=quote.tokens_per_s, prompt_tokens=quote.prompt_tokens)
    assert errors(heartbeats(wired, 1000.0, wait_s - 0.1)) == []
    (error,) = errors(heartbeats(wired, 1000.0 + wait_s - 0.1, 0.2))
    assert isinstance(error, Unavailable)


def streaming() -> Wired:
    """One whose answer has begun and does not go on."""
    wired = Wired(to_client=lambda m: None if isinstance(m, Finished) else m).run()
    assert wired.client.state is State.STREAMING
    return wired


def test_one_that_stalls_is_stopped_first_and_then_given_up() -> None:
    wired = streaming()
    said = heartbeats(wired, wired.now, FLOOR_S)
    assert sent(said)[-1] == Cancel()
    assert errors(said) == []
    assert wired.client.stalled
    (error,) = errors(heartbeats(wired, wired.now + FLOOR_S, RECEIPT_PATIENCE_S))
    assert isinstance(error, Unavailable)


def test_a_client_that_was_asleep_hears_first_what_was_said_meanwhile() -> None:
    wired = streaming()
    late = wired.now + FLOOR_S + LATE_S + 5.0
    wired.client.receive(Heartbeat(), late)
    wired.client.tick(late)
    assert not wired.client.stalled
    heartbeats(wired, late, FLOOR_S)
    assert wired.client.stalled


def test_a_pause_for_our_own_payment_is_no_stall_and_one_that_was_paid_for_is() -> None:
    wired = streaming()
    due_nano, paused_at = wired.payer.authorised_nano + 1, wired.now + FLOOR_S / 2
    wired.client.receive(Pause(due_nano=due_nano), paused_at)
    heartbeats(wired, paused_at, FLOOR_S - 0.1)
    assert not wired.client.stalled
    wired.client.receive(Pause(due_nano=due_nano), paused_at + FLOOR_S - 0.05)
    heartbeats(wired, paused_at + FLOOR_S - 0.05, 0.1)
    assert wired.client.stalled
