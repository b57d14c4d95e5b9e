"""Pure: our errors as OpenAI's clients know them: a status, a body with a code, and whether to try again.

The clients of OpenAI try again by themselves after 408, 409, 429 and from 500 on, unless `x-should-retry: false` says
that they should not. What has cost money must never be repeated without its owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from p2p.errors import EmptyWallet, EngineError, Error, LocalError, PaymentError, Refused, RemoteError, Unavailable
from p2p.funding import TooManyChannels

RETRY_AFTER_S = 5
ADD_MONEY = (
    "on the gateway's machine, `python -m p2p.node wallet show` says where to send GRAM to, and on a devnet "
    "`python -m p2p.node wallet fund` adds play money"
)

INVALID, QUOTA, SERVER = "invalid_request_error", "insufficient_quota", "server_error"


@dataclass(frozen=True)
class Failure:
    """What a caller is told in place of an answer."""

    status: int
    kind: str  # OpenAI's `type`
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else stands in the body

    @property
    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error, **self.extra}

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after_s is None:
            return {"x-should-retry": "false"}
        return {"retry-after": str(self.retry_after_s)}


class Rejected(Error):
    """The caller's request is not answered, for a reason that is known before anything is bought."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.word = failure.code


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value", status: int = 400) -> Rejected:
    """The request itself is wrong."""
    return Rejected(Failure(status, INVALID, code, message, param))


def model_not_found(model: str) -> Rejected:
    return Rejected(Failure(404, INVALID, "model_not_found", f"nobody offers the model {model!r} now", "model"))


# The reasons of honest refusals: status, type and code.
REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "too_long": (400, INVALID, "context_length_exceeded"),
    "prompt_over_quote": (400, INVALID, "prompt_over_quote"),
    "bad_request": (400, INVALID, "invalid_value"),
    "cannot_continue": (400, INVALID, "invalid_value"),
    "no_such_model": (404, INVALID, "model_not_found"),
    "over_budget": (402, QUOTA, "insufficient_quota"),
    "no_allowance": (402, QUOTA, "insufficient_quota"),
    "price": (402, QUOTA, "price_cap"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
}

# Whatever else goes wrong, the first row that fits: status, type, code, and whether it may be better soon.
OTHERS: tuple[tuple[type[Error], int, str, str, bool], ...] = (
    (TooManyChannels, 503, SERVER, "no_channel_free", True),
    (PaymentError, 402, QUOTA, "insufficient_quota", False),
    (Refused, 503, SERVER, "no_provider", True),
    (Unavailable, 503, SERVER, "no_provider", True),
    (RemoteError, 502, SERVER, "provider_failed", True),
    (EngineError, 502, SERVER, "provider_failed", True),
    (LocalError, 500, SERVER, "gateway_misconfigured", False),
    (Error, 500, SERVER, "gateway_failed", False),
)


def failure_of(error: Error, *, charged: bool = False, extra: Mapping[str, Any] | None = None) -> Failure:
    """What to tell the caller; of an answer that was `charged` for in part, never to try again by itself."""
    if isinstance(error, Rejected):
        return error.failure
    status, kind, code, soon = _row(error)
    after_s = (getattr(error, "retry_after_s", None) or RETRY_AFTER_S) if soon and not charged else None
    message = f"{error}: {ADD_MONEY}" if isinstance(error, EmptyWallet) else str(error)
    return Failure(status, kind, code, message, retry_after_s=after_s, extra=extra or {})


def _row(error: Error) -> tuple[int, str, str, bool]:
    if isinstance(error, Refused):
        reason = "price" if error.reason == "no_offer" and error.prices is not None else error.reason
        if reason in REFUSALS:
            return *REFUSALS[reason], reason == "rate_limit"
    return next(tuple_[1:] for tuple_ in OTHERS if isinstance(error, tuple_[0]))
