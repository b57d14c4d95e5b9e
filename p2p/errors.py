"""Every error that this package raises on purpose; the first question each answers is "whose fault?"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2p.protocol.price import Prices


class Error(Exception):
    """The root: `except p2p.Error` catches all that Bombyx raises on purpose.

    The text is for people. `word` is for programs: it stays the same when the text gets better.
    """

    word = "error"


class LocalError(Error):
    """We asked for something that makes no sense. Never sent to a peer; fix the call or the configuration."""

    word = "local"


class RemoteError(Error):
    """The peer broke the protocol: garbage, a bad signature, a wrong turn, an untrue count. Penalise it.

    `code` is the short word that may be sent to the peer and written to a trace, for example `malformed`.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.word = self.code = code


class Refused(Error):
    """The peer said an honest no. Not a fault: try another, or come back in `retry_after_s`, or pay `prices`.

    `detail` says it to people, and is all of the text; `reason` is the word for it.
    """

    def __init__(
        self, reason: str, detail: str = "", *, retry_after_s: int | None = None, prices: Prices | None = None
    ) -> None:
        super().__init__(detail or reason.replace("_", " "))
        self.word = self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.prices = prices


class Unavailable(Error):
    """Nobody answered: a dial failed, a time limit passed, a connection ended. Retry, or try another."""

    word = "unavailable"


class PaymentError(Error):
    """Money stands in the way: no funds, an exhausted or closed channel, a chain that cannot be reached."""

    word = "payment"


class NoFunds(PaymentError):
    """The wallet or its owner's limits allow no deposit. Channels that are open already may still pay."""


class EmptyWallet(NoFunds):
    """The wallet holds too little."""


class EngineError(Error):
    """The model's engine failed or refused the request."""

    word = "engine_failed"
