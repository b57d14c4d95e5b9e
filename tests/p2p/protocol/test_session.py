"""One paid answer, two cores back to back."""

from __future__ import annotations

import msgspec
import pytest
from back_to_back import CHANNEL, CLIENT, NETWORK, PRICES, PROVIDER, Wired
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2p.errors import EngineError, PaymentError, Refused, RemoteError, Unavailable
from p2p.keys import verify_by_peer
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.receipt import Receipt, SignedReceipt, countersign, verify_receipt
from p2p.protocol.session import (
    HEARTBEAT_S,
    PAYMENT_PATIENCE_S,
    SILENCE_S,
    Begun,
    Cancel,
    Close,
    Completed,
    Delta,
    End,
    Failed,
    Finished,
    Heartbeat,
    Pause,
    Payment,
    Prefill,
    Progress,
    SaveClaim,
    SaveReceipt,
    Send,
    Start,
    State,
)
from p2p.protocol.wire import Message, decode, sign

ONE_TOKEN_NANO = cost_nano(PRICES, Tokens(output=1))
MOST_TOKENS = 60 * 40  # that a drawn answer has


def failure(wired: Wired) -> Exception:
    """The one failure that a side reported, the client's first."""
    return next(e.error for e in wired.events(Failed))  # type: ignore[union-attr]


def test_an_answer_is_delivered_receipted_and_paid_to_the_nano() -> None:
    wired = Wired().run()
    assert wired.text == "Hello world!"
    assert wired.client.state is wired.provider.state is State.DONE
    cost = cost_nano(PRICES, Tokens(input=40, output=3))
    assert wired.payer.authorised_nano == wired.payer.delivered_nano == cost
    assert wired.payee.authorised_nano == wired.payee.delivered_nano == cost
    completed = wired.events(Completed)
    assert len(completed) == 2
    for event in completed:
        assert isinstance(event, Completed)
        receipt = verify_receipt(event.signed, network=NETWORK, verify=verify_by_peer)
        assert receipt.tokens == Tokens(input=40, output=3)
        assert receipt.session_total_nano == cost


@settings(max_examples=60, deadline=None)
@example(pieces=[("word ", 40)] * 60, prompt_tokens=1, window=300)
@given(
    pieces=st.lists(st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 40)), max_size=60),
    prompt_tokens=st.integers(1, 4000),
    window=st.integers(ONE_TOKEN_NANO, 3_000) | st.integers(3_000, 200_000),
)
def test_nobody_is_ever_more_than_a_window_ahead(
    pieces: list[tuple[str, int]], prompt_tokens: int, window: int
) -> None:
    pieces = [(text * tokens, tokens) for text, tokens in pieces]
    changes: dict[str, object] = {"window_nano": window, "max_tokens": MOST_TOKENS}
    wired = Wired(pieces=pieces, prompt_tokens=prompt_tokens, quote_changes=changes, max_tokens=MOST_TOKENS).run()
    assert wired.client.state is State.DONE
    assert wired.text == "".join(text for text, _ in pieces)
    assert wired.client.tokens.output == sum(tokens for _, tokens in pieces)
    assert wired.max_ahead <= window
    assert wired.max_behind <= window
    assert wired.payee.delivered_nano == wired.payer.delivered_nano
    # Of an empty answer, what was paid ahead for the rest of its prompt stays as credit.
    assert not pieces or wired.payee.authorised_nano == wired.payee.delivered_nano


def test_a_long_prompt_is_paid_in_steps_of_signed_progress() -> None:
    wired = Wired(prompt_tokens=2000).run()
    steps = [e.tokens for e in wired.events(Prefill) if isinstance(e, Prefill)]
    assert len(steps) > 2
    assert steps == sorted(set(steps))
    assert all(after - before <= 400 for before, after in zip([0, *steps], steps, strict=False))
    assert wired.client.state is State.DONE


def test_an_engine_that_takes_the_whole_prompt_at_once_is_paid_all_the_same_and_not_ahead_of_the_window() -> None:
    wired = Wired(prompt_tokens=2000, prefill=lambda _: 2000).run()
    assert wired.client.state is State.DONE
    assert wired.client.tokens.input == 2000
    assert wired.max_behind <= wired.quote.window_nano


def test_a_window_of_one_token_is_room_for_an_answer_token_by_token() -> None:
    wired = Wired(pieces=[("word " * 16, 16)] * 3, quote_changes={"window_nano": ONE_TOKEN_NANO}).run()
    assert wired.client.state is State.DONE
    assert wired.text == "word " * 48
    sizes = [e.message.tokens for e in wired.events(Send) if isinstance(e, Send) and isinstance(e.message, Delta)]
    assert sizes == [1] * 48
    assert wired.max_behind == ONE_TOKEN_NANO


def test_without_vouchers_the_provider_pauses_and_gives_up_after_its_patience() -> None:
    wired = Wired(
        pieces=[("word ", 1)] * 200,
        to_provider=lambda m: None if isinstance(m, Payment) else m,
    ).run()
    assert wired.provider.state is State.PAUSED
    assert any(isinstance(e, Send) and isinstance(e.message, Pause) for e in wired.provider_events)
    assert wired.quote.window_nano - ONE_TOKEN_NANO < wired.payee.exposed_nano <= wired.quote.window_nano
    wired.provider.receive(Heartbeat(), wired.now + PAYMENT_PATIENCE_S - 1)
    wired._provider(wired.provider.tick(wired.now + PAYMENT_PATIENCE_S))
    assert isinstance(failure(wired), PaymentError)
    assert wired.payee.unpaid_nano == 0, "unpaid work of a dead session is written off"


def test_a_lost_stream_leaves_the_client_with_at_most_a_window_of_credit() -> None:
    wired = Wired(pieces=[("word ", 1)] * 50, to_client=lambda m: None if isinstance(m, Finished) else m).run()
    wired._client(wired.client.lost(wired.now))
    assert isinstance(failure(wired), Unavailable)
    assert 0 <= wired.payer.authorised_nano - wired.payer.delivered_nano <= wired.quote.window_nano


def test_a_cancel_pays_the_progress_made() -> None:
    seen = 0

    def cancel_after_ten(message: Message) -> Message:
        nonlocal seen
        seen += isinstance(message, Delta)
        if seen == 10:
            wired._client(wired.client.cancel(wired.now))
        return message

    wired = Wired(pieces=[("word ", 1)] * 500)
    wired.to_client = cancel_after_ten
    wired.run()
    assert wired.client.state is State.DONE
    assert 10 <= wired.client.tokens.output < 20
    assert wired.payee.authorised_nano == wired.payee.delivered_nano
    completed = wired.events(Completed)[0]
    assert isinstance(completed, Completed)
    assert completed.receipt.reason == "cancelled"


def test_an_engine_that_breaks_before_anything_charges_nothing() -> None:
    wired = Wired(engine_breaks_after=0).run()
    assert isinstance(failure(wired), Refused)
    assert any(isinstance(e.error, EngineError) for e in wired.events(Failed))  # type: ignore[union-attr]
    assert wired.payee.delivered_nano == 0


def test_an_engine_that_breaks_later_is_receipted_for_what_arrived() -> None:
    wired = Wired(engine_breaks_after=2).run()
    assert wired.text == "Hello world"
    completed = wired.events(Completed)[0]
    assert isinstance(completed, Completed)
    assert (completed.receipt.reason, completed.receipt.tokens.output) == ("failed", 2)


def test_a_client_without_deposit_signs_nothing() -> None:
    wired = Wired(deposit=10).run()
    assert isinstance(failure(wired), PaymentError)
    assert wired.payer.authorised_nano == 0


def edited(kind: type[Message], **changes: object) -> object:
    """A wire that changes every message of one kind."""
    return lambda m: msgspec.structs.replace(m, **changes) if isinstance(m, kind) else m


def forged_receipt(message: Message, **changes: object) -> Message:
    if not isinstance(message, Finished):
        return message
    receipt: Receipt = decode(message.receipt.body, Receipt)
    return Finished(receipt=sign(msgspec.structs.replace(receipt, **changes), PROVIDER))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (edited(Begun, prompt_tokens=4001), "overcount"),
        (edited(Delta, total_tokens=99), "overcount"),
        (edited(Delta, tokens=-1), "overcount"),
        (edited(Delta, tokens=2000, total_tokens=2000), "overcount"),
        (edited(Delta, text="", tokens=9, total_tokens=9), "overcount"),
        (edited(Delta, text="x" * 1024 * 10), "undercount"),
        (lambda m: Heartbeat() if isinstance(m, Progress) else m, "out_of_turn"),
        (lambda m: End() if isinstance(m, Begun) else m, "out_of_turn"),
        (lambda m: forged_receipt(m, session_total_nano=1), "bad_receipt"),
        (lambda m: forged_receipt(m, response_hash=b"0" * 32), "bad_receipt"),
        (lambda m: forged_receipt(m, model="other"), "bad_receipt"),
        (lambda m: forged_receipt(m, promised_ttft_ms=9999), "bad_receipt"),
        (lambda m: forged_receipt(m, promised_tokens_per_s=1), "bad_receipt"),
        (lambda m: forged_receipt(m, tokens=Tokens(input=40, output=4)), "bad_receipt"),
        (lambda m: forged_receipt(m, reason="cancelled"), "bad_receipt"),
        (lambda m: forged_receipt(m, network="mainnet"), "wrong_network"),
        (
            lambda m: Finished(receipt=sign(decode(m.receipt.body, Receipt), CLIENT)) if isinstance(m, Finished) else m,
            "bad_signature",
        ),
    ],
)
def test_a_provider_that_lies_is_caught_and_paid_no_more_than_a_window(change: object, code: str) -> None:
    wired = Wired(to_client=change).run()  # type: ignore[arg-type]
    error = failure(wired)
    assert isinstance(error, RemoteError)
    assert error.code == code
    assert wired.payer.authorised_nano - wired.payer.delivered_nano <= wired.quote.window_nano


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (edited(Close, countersignature=b"0" * 64), "bad_signature"),
        (lambda m: edited_payment(m, signature=b"0" * 64), "bad_voucher"),
        (lambda m: edited_payment(m, channel_total_nano=1 << 60), "bad_voucher"),
        (lambda m: Cancel() if isinstance(m, Start) else m, "out_of_turn"),
    ],
)
def test_a_client_that_cheats_costs_its_own_session_only(change: object, code: str) -> None:
    wired = Wired(to_provider=change).run()  # type: ignore[arg-type]
    errors = [e.error for e in wired.provider_events if isinstance(e, Failed)]
    assert [e.code for e in errors if isinstance(e, RemoteError)] == [code]


def edited_payment(message: Message, **changes: object) -> Message:
    if isinstance(message, Payment):
        return msgspec.structs.replace(message, **changes)
    if isinstance(message, Start | Close):
        return msgspec.structs.replace(message, payment=msgspec.structs.replace(message.payment, **changes))
    return message


def test_a_client_that_never_countersigns_leaves_a_half_signed_receipt() -> None:
    wired = Wired(to_provider=lambda m: None if isinstance(m, Close) else m).run()
    assert wired.provider.state is State.CLOSING
    kept = [e.receipt for e in wired.provider_events if isinstance(e, SaveReceipt)]
    assert [r.countersignature for r in kept] == [b""]
    with pytest.raises(RemoteError, match="countersignature"):
        verify_receipt(kept[0], network=NETWORK, verify=verify_by_peer)


def test_heartbeats_flow_and_silence_ends_a_session() -> None:
    wired = Wired(to_provider=lambda m: None if isinstance(m, Start) else m).run()
    assert wired.client.deadline() == pytest.approx(1000 + HEARTBEAT_S)
    beat = wired.client.tick(1000 + HEARTBEAT_S)
    assert [type(e.message) for e in beat if isinstance(e, Send)] == [Heartbeat]
    wired._client(wired.client.tick(1000 + SILENCE_S))
    assert isinstance(failure(wired), Unavailable)
    assert wired.client.deadline() is None
    assert wired.client.receive(Heartbeat(), 2000) == []


def test_the_provider_beats_while_its_engine_works_and_gives_up_on_silence() -> None:
    wired = Wired(to_client=lambda m: None)
    wired._provider(wired.provider.receive(_start(wired), 1000.0))
    assert wired.provider.state is State.STREAMING
    sent = wired.provider.tick(1000 + HEARTBEAT_S)
    assert [type(e.message) for e in sent if isinstance(e, Send)] == [Heartbeat]
    assert isinstance(wired.provider.tick(1000 + SILENCE_S)[-1], Failed)
    assert wired.provider.deadline() is None
    assert wired.provider.lost(wired.now) == []


def _start(wired: Wired) -> Start:
    sent = [e.message for e in wired.client.start(1000.0) if isinstance(e, Send)]
    assert isinstance(sent[0], Start)
    return sent[0]


def test_a_refusal_reaches_the_client_as_an_honest_no() -> None:
    from p2p.protocol.negotiate import Refusal

    wired = Wired()
    wired.client.start(1000.0)
    events = wired.client.receive(Refusal(reason="busy", retry_after_s=7), 1000.1)
    error = next(e.error for e in events if isinstance(e, Failed))
    assert isinstance(error, Refused)
    assert (error.reason, error.retry_after_s) == ("busy", 7)


def test_a_provider_that_claims_more_than_was_authorised_gets_the_credit_and_no_more() -> None:
    wired = Wired(
        client_delivered=1000,
        client_authorised=1500,
        to_client=lambda m: msgspec.structs.replace(m, delivered_nano=1 << 40) if isinstance(m, Begun) else m,
    ).run()
    assert wired.payer.authorised_nano <= 1500 + wired.client.cost_nano + wired.quote.window_nano


def test_a_last_voucher_is_saved_even_if_the_countersignature_with_it_is_bad() -> None:
    wired = Wired(to_provider=edited(Close, countersignature=b"0" * 64)).run()  # type: ignore[arg-type]
    assert wired.payee.accepted is not None
    saved = [e.claim for e in wired.provider_events if isinstance(e, SaveClaim)]
    assert saved[-1] == wired.payee.accepted
    assert wired.payee.unpaid_nano == 0


def test_a_last_voucher_that_does_not_cover_the_answer_fails_the_session() -> None:
    first: list[Payment] = []

    def underpay(message: Message) -> Message:
        if isinstance(message, Start):
            first.append(message.payment)
        return msgspec.structs.replace(message, payment=first[0]) if isinstance(message, Close) else message

    wired = Wired(pieces=[("word ", 1)] * 10, prompt_tokens=1, to_provider=underpay).run()
    errors = [e.error for e in wired.provider_events if isinstance(e, Failed)]
    assert [e.code for e in errors if isinstance(e, RemoteError)] == ["unpaid"]
    assert wired.payee.unpaid_nano == 0, "written off"


def test_what_a_dead_session_lost_on_the_way_is_adopted_within_a_window() -> None:
    wired = Wired(client_delivered=1000, client_authorised=1000)
    wired.payee.delivered_nano = 3000
    wired.run()
    # The provider wrote its unpaid 3000 off down to what vouchers cover, and both agree again.
    assert wired.client.state is State.DONE
    assert wired.payer.delivered_nano == wired.payee.delivered_nano == wired.payee.authorised_nano


def test_every_message_survives_the_wire() -> None:
    from p2p.protocol.session import ToClient, ToProvider
    from p2p.protocol.wire import encode

    def through(kind: object) -> object:
        return lambda m: decode(encode(m), kind)

    wired = Wired(to_client=through(ToClient), to_provider=through(ToProvider)).run()  # type: ignore[arg-type]
    assert wired.client.state is wired.provider.state is State.DONE
    assert wired.payer.channel == CHANNEL


def test_a_countersignature_is_over_the_same_bytes() -> None:
    wired = Wired().run()
    completed = wired.events(Completed)[0]
    assert isinstance(completed, Completed)
    again = countersign(completed.signed.receipt, CLIENT)
    assert again == SignedReceipt(completed.signed.receipt, completed.signed.countersignature)
