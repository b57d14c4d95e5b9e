"""SEAM: what Bombyx asks of a chain. `ton.py` gives it over lite-servers, `memory.py` gives an exact model of it.

Amounts are integers in nano (10^-9 GRAM); times are unix seconds on the chain's clock. Addresses are TON's raw
form, `0:` and 64 hex digits. A channel is named by the 32 bytes of its account id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

Op = Literal["open", "top_up", "settle", "close_by_payee", "close_by_release", "start_close", "finalise"]


class Network(msgspec.Struct, frozen=True):
    """Which chain this is. `global_id` goes into every voucher, so that none is good on another network."""

    name: str  # mainnet, testnet or devnet
    global_id: int


GLOBAL_IDS = {"mainnet": -239, "testnet": -3}
"""Of the networks that everybody knows. A devnet may have any, also one of these."""


class ChannelTerms(msgspec.Struct, frozen=True, kw_only=True):
    """All that a channel's address commits to (contract/channel.tolk, `Params` and `Storage`)."""

    payer: str  # the wallet that funds it and gets back the rest
    payee: str  # the wallet that is paid
    payer_key: bytes  # 32 bytes, Ed25519: signs vouchers
    payee_key: bytes  # 32 bytes, Ed25519: signs a release
    challenge_period_s: int
    open_before: int  # the first deposit must arrive by then
    salt: bytes  # 32 random bytes, never used twice: an old address would revive old vouchers


class ChannelState(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain says about a channel, read from proven account state and never from a get method."""

    terms: ChannelTerms
    deposited_nano: int
    settled_nano: int
    close_at: int  # 0 while open, otherwise when the challenge period ends
    balance_nano: int


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One executed operation on a channel's account."""

    op: Op
    hash: str  # hex
    fee_nano: int  # what the whole operation cost whoever carried it: wallet, forwarding and contract
    exit_code: int
    balance_nano: int  # of the channel's account afterwards


class Wallet(Protocol):
    """An account that we hold the key of."""

    @property
    def address(self) -> str: ...

    async def balance(self) -> int:
        """In nano."""
        ...


class Ledger(Protocol):
    """The operations of section 8 of the protocol. Each returns once its effect is visible in account state.

    Raises `chain.errors`: `InsufficientFunds`, `TransactionFailed`, `ChannelUnusable`, `LedgerUnavailable`.
    """

    @property
    def network(self) -> Network: ...

    @property
    def wallet(self) -> Wallet:
        """The wallet that carries our operations and pays their fees."""
        ...

    def channel_id(self, terms: ChannelTerms) -> bytes:
        """The 32-byte account id that `terms` give. Pure: nothing is asked."""
        ...

    async def now(self) -> int:
        """The chain's clock."""
        ...

    async def channel(self, channel: bytes) -> ChannelState | None:
        """The channel as the chain has it now, its code checked; `None` if there is no such account."""
        ...

    async def open(self, terms: ChannelTerms, deposit_nano: int) -> Transaction: ...

    async def top_up(self, channel: bytes, amount_nano: int) -> Transaction: ...

    async def settle(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        """Carry a voucher to the chain. Anyone may; the money goes to the payee."""
        ...

    async def close_by_payee(self, channel: bytes, claim: tuple[int, bytes] | None) -> Transaction:
        """Close at once, with a last (amount, signature) if there is one."""
        ...

    async def close_by_release(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        """Close at once with the payee's signed release: the co-operative way, carried by the payer."""
        ...

    async def start_close(self, channel: bytes) -> Transaction: ...

    async def finalise(self, channel: bytes) -> Transaction: ...

    async def transactions(self, channel: bytes) -> Sequence[Transaction]:
        """Everything that happened to the channel's account, oldest first, also after it was closed."""
        ...
