"""No error of another package reaches an application."""

from __future__ import annotations

import pytest

import chain.errors
import inference.errors
from chain.errors import ChainError
from inference.errors import EngineError as ForeignEngineError
from p2p import errors
from p2p.foreign import translated

CASES: list[tuple[Exception, type[errors.Error]]] = [
    (chain.errors.LedgerUnavailable("x"), errors.Unavailable),
    (chain.errors.NetworkMismatch("x"), errors.LocalError),
    (chain.errors.BookUnusable("x"), errors.LocalError),
    (chain.errors.WalletUnusable("x"), errors.LocalError),
    (chain.errors.InsufficientFunds("x"), errors.EmptyWallet),
    (chain.errors.LimitReached("x"), errors.NoFunds),
    (chain.errors.ChannelUnusable("x"), errors.PaymentError),
    (chain.errors.BadVoucher("x"), errors.PaymentError),
    (chain.errors.TransactionFailed("settle", 410), errors.PaymentError),
    (inference.errors.ModelMissing("x"), errors.LocalError),
    (inference.errors.BadSettings("x"), errors.LocalError),
    (inference.errors.ServerRefused("x", 500), errors.EngineError),
    (inference.errors.EngineDied("x"), errors.EngineError),
    (inference.errors.EngineError("x"), errors.EngineError),
    (inference.errors.BadRequest("x"), errors.Refused),
    (inference.errors.ContextOverflow(9, 8), errors.Refused),
]


@pytest.mark.parametrize(("foreign", "ours"), CASES, ids=lambda case: getattr(case, "__name__", type(case).__name__))
def test_each_becomes_one_of_ours_and_keeps_its_words(foreign: Exception, ours: type[errors.Error]) -> None:
    with pytest.raises(ours) as caught, translated():
        raise foreign
    assert type(caught.value) is ours
    assert str(foreign) in str(caught.value)
    assert caught.value.__cause__ is foreign


def subclasses(root: type[Exception]) -> set[type[Exception]]:
    return {root}.union(*(subclasses(one) for one in root.__subclasses__()))


@pytest.mark.parametrize("root", [ChainError, ForeignEngineError])
def test_there_is_none_that_the_table_does_not_know(root: type[Exception]) -> None:
    for kind in subclasses(root):
        with pytest.raises(errors.Error), translated():
            raise kind.__new__(kind)


@pytest.mark.parametrize("error", [ZeroDivisionError(), errors.RemoteError("malformed"), errors.Unavailable("x")])
def test_everything_else_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated():
        raise error
    assert caught.value is error
