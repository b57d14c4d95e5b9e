"""What can go wrong with money. `chain` knows nothing of `p2p`, which maps these by a table."""

from __future__ import annotations


class ChainError(Exception):
    """The root of this package's errors."""


class BadVoucher(ChainError):
    """A claim that must not be honoured: wrong key, channel, network or tag, or more than the deposit."""


class InsufficientDeposit(ChainError):
    """The channel holds less than the amount that was to be authorised; top it up or open another."""


class InsufficientFunds(ChainError):
    """The wallet holds less than the operation needs."""


class ChannelUnusable(ChainError):
    """The channel is not open for this: unknown, closing, closed, released, or with terms that we refuse."""


class LedgerUnavailable(ChainError):
    """No lite-server answered. Vouchers stay good; try again."""


class NetworkMismatch(ChainError):
    """The server speaks for another network than the one configured. Nothing was signed."""


class BookUnusable(ChainError):
    """The book on disk cannot be used: held by another process, damaged, of a newer version, or the disk is full."""


class ChargesUnusable(ChainError):
    """A watchtower's charges cannot be read or written."""


class WalletUnusable(ChainError):
    """The wallet's key cannot be used: no file, a damaged one, one that others can read, a wrong passphrase or word."""


class BadAddress(ChainError):
    """Not an address, one with a wrong checksum, or one that is not for this network."""


class LimitReached(ChainError):
    """The owner's own limit on spending, for a day or a channel. Nothing was signed."""


WHY = {
    406: "it was signed for another network",
    410: "no more is owed than was paid before",
    411: "it is more than was deposited",
    422: "it came too late",
    423: "the channel is closing already",
    424: "the channel is not closing yet",
    425: "the challenge period is not over",
}
"""What channel.tolk's exit codes mean to whoever carried a message, where that can happen in good faith."""


class TransactionFailed(ChainError):
    """The message was taken but the chain refused the operation; `exit_code` says why (see channel.tolk)."""

    def __init__(self, op: str, exit_code: int) -> None:
        why = f": {WHY[exit_code]}" if exit_code in WHY else ""
        super().__init__(f"{op} failed on chain with exit code {exit_code}{why}")
        self.op = op
        self.exit_code = exit_code
