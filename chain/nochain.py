"""The ledger where no chain is asked, because nothing is paid: on a network without money, or by who asks for free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from chain.errors import LedgerUnavailable
from chain.ledger import ChannelState, ChannelTerms, Network, Transaction


class NoWallet:
    """Nobody's. A `chain.ledger.Wallet`."""

    address = ""

    async def balance(self) -> int:
        """Nothing."""
        return 0


class NoChain:
    """A `chain.ledger.Ledger` that knows its network's name. Whatever would move money raises `LedgerUnavailable`."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.wallet = NoWallet()

    def channel_id(self, terms: ChannelTerms) -> bytes:
        _nothing()

    async def now(self) -> int:
        _nothing()

    async def channel(self, channel: bytes) -> ChannelState | None:
        _nothing()

    async def open(self, terms: ChannelTerms, deposit_nano: int) -> Transaction:
        _nothing()

    async def top_up(self, channel: bytes, amount_nano: int) -> Transaction:
        _nothing()

    async def settle(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        _nothing()

    async def close_by_payee(self, channel: bytes, claim: tuple[int, bytes] | None) -> Transaction:
        _nothing()

    async def close_by_release(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        _nothing()

    async def start_close(self, channel: bytes) -> Transaction:
        _nothing()

    async def finalise(self, channel: bytes) -> Transaction:
        _nothing()

    async def transactions(self, channel: bytes) -> Sequence[Transaction]:
        _nothing()


def _nothing() -> NoReturn:
    raise LedgerUnavailable("nothing is paid here: there is no chain")
