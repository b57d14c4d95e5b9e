"""What the clients of OpenAI are told, and whether they will try again by themselves."""

from __future__ import annotations

import re

import pytest

from p2p.errors import EmptyWallet, EngineError, Error, LocalError, PaymentError, Refused, RemoteError, Unavailable
from p2p.funding import TooManyChannels
from p2p.gateway.failures import failure_of, invalid, model_not_found
from p2p.protocol.price import Prices

DEAR = Prices(1, 1, 1)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after_s"),
    [
        (invalid("no"), 400, "invalid_value", None),
        (model_not_found("x"), 404, "model_not_found", None),
        (Refused("too_long"), 400, "context_length_exceeded", None),
        (Refused("bad_request"), 400, "invalid_value", None),
        (Refused("over_budget"), 402, "insufficient_quota", None),
        (Refused("no_allowance"), 402, "insufficient_quota", None),
        (Refused("no_offer", prices=DEAR), 402, "price_cap", None),
        (Refused("no_offer"), 503, "no_provider", 5),
        (Refused("busy", retry_after_s=7), 503, "no_provider", 7),
        (Refused("rate_limit", retry_after_s=30), 429, "rate_limit_exceeded", 30),
        (PaymentError("the wallet is empty"), 402, "insufficient_quota", None),
        (TooManyChannels("3 are open"), 503, "no_channel_free", 5),
        (Unavailable("nobody"), 503, "no_provider", 5),
        (RemoteError("flood"), 502, "provider_failed", 5),
        (EngineError("it died"), 502, "provider_failed", 5),
        (LocalError("no book"), 500, "gateway_misconfigured", None),
        (Error("odd"), 500, "gateway_failed", None),
    ],
)
def test_what_is_said(error: Error, status: int, code: str, retry_after_s: int | None) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.code, failure.retry_after_s) == (status, code, retry_after_s)
    told = failure.body["error"]
    assert told == {"message": str(error), "type": failure.kind, "param": failure.param, "code": code}
    again = {"x-should-retry": "false"} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    assert failure.headers == again


def test_who_finds_the_wallet_empty_is_told_how_to_add_money() -> None:
    failure = failure_of(EmptyWallet("the wallet holds 0 nano of the 7 needed"))
    assert (failure.status, failure.code) == (402, "insufficient_quota")
    assert re.match(r"the wallet holds 0 nano of the 7 needed: .* wallet show` .* wallet fund` ", failure.message)


@pytest.mark.parametrize("error", [Unavailable("gone"), EngineError("it died"), RemoteError("flood")])
def test_what_was_charged_for_is_not_tried_again(error: Error) -> None:
    failure = failure_of(error, charged=True, extra={"bombyx": {"cost_nano": 3}})
    assert failure.headers == {"x-should-retry": "false"}
    assert failure.body["bombyx"] == {"cost_nano": 3}
