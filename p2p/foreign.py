"""The table by which the errors of `chain` and `inference` become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chain import errors as chain
from inference import errors as inference
from p2p.errors import EmptyWallet, EngineError, LocalError, NoFunds, PaymentError, Refused, Unavailable

TABLE: tuple[tuple[type[Exception], type[PaymentError | LocalError | Unavailable | EngineError]], ...] = (
    (chain.LedgerUnavailable, Unavailable),
    (chain.NetworkMismatch, LocalError),
    (chain.BookUnusable, LocalError),
    (chain.WalletUnusable, LocalError),
    (chain.ChargesUnusable, LocalError),
    (chain.BadAddress, LocalError),
    (chain.InsufficientFunds, EmptyWallet),
    (chain.LimitReached, NoFunds),
    (chain.ChainError, PaymentError),
    (inference.ModelMissing, LocalError),
    (inference.BadSettings, LocalError),
    (inference.EngineError, EngineError),
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise our own error in place of a foreign one, the first row of the table that fits."""
    try:
        yield
    except inference.BadRequest as error:
        raise Refused("bad_request", str(error)) from error
    except (chain.ChainError, inference.EngineError) as error:
        ours = next(ours for foreign, ours in TABLE if isinstance(error, foreign))
        raise ours(str(error)) from error
