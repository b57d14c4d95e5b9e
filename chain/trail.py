"""Pure: what an operation left behind on chain, and what it cost, read from transactions.

An operation is three or four transactions: the carrier's wallet takes an order and sends a message; the channel
executes it, may pay somebody, and returns the unused value; the carrier's wallet takes that back. A message knows its
sender and its own logical time (lt), which is unique for the sender, so the two identify it.

Transactions and messages are pytoniq-core's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pytoniq_core import Address

from chain.contract import cells
from chain.ledger import Op, Transaction

MAX_SENT = 2  # messages that one operation sends: a payout, and what is returned


def sent(transaction: Any) -> list[Any]:
    """The internal messages that a transaction sent."""
    return [message for message in transaction.out_msgs if message.is_internal]


def asked(transaction: Any) -> Op | None:
    """The operation that a channel was asked for by it; `None` for any other transaction, on whatever account."""
    message = transaction.in_msg
    return cells.operation(message.body) if message and message.is_internal else None


def came_from(transaction: Any, source: Address) -> bool:
    """Whether it took an internal message from `source`."""
    message = transaction.in_msg
    return bool(message and message.is_internal and message.info.src == source)


def took(transaction: Any, message: Any) -> bool:
    """Whether it is the transaction that took this internal message."""
    return came_from(transaction, message.info.src) and transaction.in_msg.info.created_lt == message.info.created_lt


def sender_lts(message: Any) -> list[int]:
    """The logical times at which its sender may have executed: messages are numbered on from the transaction."""
    return [message.info.created_lt - place for place in range(1, MAX_SENT + 1)]


def exit_code(transaction: Any) -> int | None:
    """0 if the contract did what it was asked, else why not; `None` if there was no code to ask."""
    outcome = transaction.description
    if not outcome.aborted:
        return 0
    code = getattr(outcome.compute_ph, "exit_code", None)
    if code == 0 and outcome.action is not None:
        code = outcome.action.result_code
    return code


def fee_nano(executed: Any, carrier: Iterable[Any]) -> int:
    """What the carrier's wallet lost by an operation beyond the money that it moved.

    That is: the fees of the wallet's own transactions for it, those of the channel's but for its rent, and what the
    messages on the way paid for being forwarded (a third of which is in the sender's fees already, as TON counts).
    `carrier` are the wallet's transactions from the order to the end of the operation; others among them are passed
    over.
    """
    asked = executed.in_msg
    storage = executed.description.storage_ph
    total: int = executed.total_fees.grams - (storage.storage_fees_collected if storage else 0)
    total += asked.info.fwd_fee + sum(message.info.fwd_fee for message in sent(executed))
    for transaction in carrier:
        ordered = any(each.info.created_lt == asked.info.created_lt for each in sent(transaction))
        if ordered or any(took(transaction, message) for message in sent(executed)):
            total += transaction.total_fees.grams
    return total


def record(op: Op, executed: Any, carrier: Iterable[Any], balance_nano: int) -> Transaction:
    """An operation that the channel's code executed, as a `Ledger` tells of it."""
    code = exit_code(executed)
    assert code is not None
    return Transaction(
        op=op,
        hash=executed.cell.hash.hex(),
        fee_nano=fee_nano(executed, carrier),
        exit_code=code,
        balance_nano=balance_nano,
    )


def records(history: Sequence[Any], carriers: Iterable[Any]) -> Iterator[Transaction]:
    """The operations among all of a channel's transactions, oldest first, with the balance after each.

    `history` is complete and newest first, as a server gives it. `carriers` are transactions of all carriers' wallets.
    """
    wallets = list(carriers)
    balance = 0
    for transaction in reversed(history):
        if transaction.in_msg and transaction.in_msg.is_internal:
            balance += transaction.in_msg.info.value_coins
        balance -= transaction.total_fees.grams
        balance -= sum(each.info.value_coins + each.info.fwd_fee for each in sent(transaction))
        op = asked(transaction)
        if op is not None and exit_code(transaction) is not None:
            own = [each for each in wallets if each.account_addr == transaction.in_msg.info.src.hash_part]
            yield record(op, transaction, own, balance)
