"""An exact model of the channel contract in plain Python, for tests and for the simulator.

`MemoryChain` is synchronous and deterministic; `MemoryLedger` is its face as a `chain.ledger.Ledger`, whose methods
never wait for anything. It refuses what contract/channel.tolk refuses, in the same order and with the same exit codes,
and moves money to the nano as that does. It differs from TON in four things: an operation costs a flat fee that goes
to `fees_nano`, so that wallets + channels + fees never change but by `mint`; rent is set aside and never consumed;
everything happens at once; and a channel's id is a SHA-256 over its terms, which is not its address on TON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

import msgspec

from chain.errors import ChannelUnusable, InsufficientFunds, TransactionFailed
from chain.ledger import ChannelState, ChannelTerms, Network, Op, Transaction
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, Verifier, claim_is_good
from chain.wallet import WALLET_MARGIN_NANO

MIN_DEPOSIT_NANO = 10_000_000
CALL_VALUE_NANO = 20_000_000  # attached to an operation on top of a deposit; what is not used comes back
PREPAID_RENT_NANO = 2_078_790  # attached at the opening, given back to the payer at the end

# On the devnet, with mainnet's prices of August 2026, for a wallet that is deployed; test_ton_model.py compares.
# The most that each costs: who settles or finalises to his own wallet pays 153,000 less.
FEES_NANO: Mapping[Op, int] = {
    "open": 1_998_000,
    "top_up": 960_000,
    "settle": 1_276_000,
    "close_by_payee": 1_216_000,
    "close_by_release": 1_219_000,
    "start_close": 988_000,
    "finalise": 1_059_000,
}
TRANSFER_FEE_NANO = 500_000


class Exit(IntEnum):
    """The contract's refusals, as channel.tolk numbers them."""

    OK = 0
    NOT_PAYER = 401
    NOT_PAYEE = 402
    BAD_SIGNATURE = 403
    STALE_CLAIM = 410
    OVER_DEPOSIT = 411
    NOT_OPEN = 420
    TOO_LATE = 422
    CLOSING = 423
    NOT_CLOSING = 424
    TOO_EARLY = 425
    LOW_DEPOSIT = 431


class _Refused(Exception):
    def __init__(self, code: Exit) -> None:
        self.code = code


class _Account:
    """A channel's account: what channel.tolk keeps in its data, and its balance."""

    def __init__(self, terms: ChannelTerms) -> None:
        self.terms = terms
        self.deposited_nano = 0
        self.settled_nano = 0
        self.close_at = 0
        self.balance_nano = 0

    def state(self) -> ChannelState:
        return ChannelState(
            terms=self.terms,
            deposited_nano=self.deposited_nano,
            settled_nano=self.settled_nano,
            close_at=self.close_at,
            balance_nano=self.balance_nano,
        )


class MemoryChain:
    """Wallets and channels. Methods raise as `Ledger`'s do; a refused operation costs its fee and is on record."""

    def __init__(
        self, network: Network, *, now: Callable[[], int], verify: Verifier, fees: Mapping[Op, int] = FEES_NANO
    ) -> None:
        """`now` is the chain's clock in unix seconds; `verify` may be a cheap stand-in where signatures are faked."""
        assert max(fees.values()) <= WALLET_MARGIN_NANO  # so whoever may carry an operation can pay for it
        self.network = network
        self.now = now
        self.fees_nano = 0  # all fees ever paid
        self._verify = verify
        self._fees = fees
        self._wallets: dict[str, int] = {}
        self._channels: dict[bytes, _Account] = {}
        self._transactions: dict[bytes, list[Transaction]] = {}

    def ledger(self, address: str) -> MemoryLedger:
        """The chain as the holder of this wallet uses it."""
        return MemoryLedger(self, address)

    def mint(self, address: str, amount_nano: int) -> None:
        """Give a wallet money from nowhere."""
        self._wallets[address] = self.balance(address) + amount_nano

    def balance(self, address: str) -> int:
        """A wallet's, in nano."""
        return self._wallets.get(address, 0)

    def total(self) -> int:
        """All the money there is: what was minted."""
        return sum(self._wallets.values()) + sum(one.balance_nano for one in self._channels.values()) + self.fees_nano

    def channel_id(self, terms: ChannelTerms) -> bytes:
        """32 bytes. Raises `ChannelUnusable` for terms that no channel can have."""
        if not len(terms.payer_key) == len(terms.payee_key) == len(terms.salt) == 32:
            raise ChannelUnusable("keys and salt of a channel are 32 bytes each")
        return hashlib.sha256(msgspec.msgpack.encode(terms)).digest()

    def channel(self, channel: bytes) -> ChannelState | None:
        """`None` if there is no such account."""
        account = self._channels.get(channel)
        return account.state() if account else None

    def transactions(self, channel: bytes) -> Sequence[Transaction]:
        """Oldest first, also of a closed channel."""
        return tuple(self._transactions.get(channel, ()))

    def transfer(self, sender: str, destination: str, amount_nano: int) -> None:
        """Money from wallet to wallet."""
        self._require_funds(sender, amount_nano)
        self._charge(sender, TRANSFER_FEE_NANO)
        self._wallets[sender] -= amount_nano
        self.mint(destination, amount_nano)

    def open(self, sender: str, terms: ChannelTerms, deposit_nano: int) -> Transaction:
        """Deploy a channel with its first deposit."""
        channel = self.channel_id(terms)
        account = self._channels.get(channel) or _Account(terms)
        if account.deposited_nano:
            raise ChannelUnusable("a channel with these terms is open")
        self._require_funds(sender, deposit_nano + CALL_VALUE_NANO)
        # The account stays, empty, when it refuses: anybody can deploy it, and that keeps nobody from opening it.
        self._channels[channel] = account

        def open_() -> None:
            _require(sender == terms.payer, Exit.NOT_PAYER)
            _require(self.now() <= terms.open_before, Exit.TOO_LATE)
            self._deposit(account, deposit_nano, rent_nano=PREPAID_RENT_NANO)

        return self._execute("open", sender, channel, account, open_)

    def top_up(self, sender: str, channel: bytes, amount_nano: int) -> Transaction:
        """Add exactly this to the deposit."""
        account = self._account(channel)
        self._require_funds(sender, amount_nano + CALL_VALUE_NANO)

        def top_up() -> None:
            _require(sender == account.terms.payer, Exit.NOT_PAYER)
            _require(account.deposited_nano > 0, Exit.NOT_OPEN)
            self._deposit(account, amount_nano)

        return self._execute("top_up", sender, channel, account, top_up)

    def settle(self, sender: str, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        """Anyone may; the money goes to the payee."""
        account = self._called(sender, channel)
        claim = Claim(channel, amount_nano, signature)

        def settle() -> None:
            paid = min(self._owed(account, claim, VOUCHER_TAG, account.terms.payer_key), account.balance_nano)
            _require(paid > 0, Exit.STALE_CLAIM)
            account.settled_nano += paid
            self._pay(account, account.terms.payee, paid)

        return self._execute("settle", sender, channel, account, settle)

    def close_by_payee(self, sender: str, channel: bytes, last: tuple[int, bytes] | None) -> Transaction:
        """What is owed to the payee, the rest to the payer."""
        account = self._called(sender, channel)

        def close() -> None:
            _require(sender == account.terms.payee, Exit.NOT_PAYEE)
            claim = Claim(channel, *last) if last else None
            owed = self._owed(account, claim, VOUCHER_TAG, account.terms.payer_key) if claim else 0
            self._close(channel, account, owed)

        return self._execute("close_by_payee", sender, channel, account, close)

    def close_by_release(self, sender: str, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        """What the payee agreed to, the rest to the payer."""
        account = self._called(sender, channel)
        claim = Claim(channel, amount_nano, signature)

        def close() -> None:
            _require(sender == account.terms.payer, Exit.NOT_PAYER)
            self._close(channel, account, self._owed(account, claim, RELEASE_TAG, account.terms.payee_key))

        return self._execute("close_by_release", sender, channel, account, close)

    def start_close(self, sender: str, channel: bytes) -> Transaction:
        """Give the payee its challenge period."""
        account = self._called(sender, channel)

        def start() -> None:
            _require(sender == account.terms.payer, Exit.NOT_PAYER)
            _require(account.close_at == 0, Exit.CLOSING)
            account.close_at = self.now() + account.terms.challenge_period_s

        return self._execute("start_close", sender, channel, account, start)

    def finalise(self, sender: str, channel: bytes) -> Transaction:
        """Anyone may, after the challenge period; all that is left goes to the payer."""
        account = self._called(sender, channel)

        def finalise() -> None:
            _require(account.close_at != 0, Exit.NOT_CLOSING)
            _require(self.now() >= account.close_at, Exit.TOO_EARLY)
            self._close(channel, account, 0)

        return self._execute("finalise", sender, channel, account, finalise)

    def _called(self, sender: str, channel: bytes) -> _Account:
        account = self._account(channel)
        self._require_funds(sender, CALL_VALUE_NANO)
        return account

    def _account(self, channel: bytes) -> _Account:
        if channel not in self._channels:
            raise ChannelUnusable(f"there is no channel {channel.hex()}")
        return self._channels[channel]

    def _require_funds(self, sender: str, value_nano: int) -> None:
        needed = value_nano + WALLET_MARGIN_NANO
        if self.balance(sender) < needed:
            raise InsufficientFunds(f"the wallet holds {self.balance(sender)} nano of the {needed} needed")

    def _execute(
        self, op: Op, sender: str, channel: bytes, account: _Account, effect: Callable[[], None]
    ) -> Transaction:
        """Charge the carrier, try `effect`, which raises before it changes anything, and keep the record."""
        self._charge(sender, self._fees[op])
        code = Exit.OK
        try:
            effect()
        except _Refused as refused:
            code = refused.code
        record = self._transactions.setdefault(channel, [])
        done = Transaction(
            op=op,
            hash=hashlib.sha256(channel + len(record).to_bytes(8, "big")).hexdigest(),
            fee_nano=self._fees[op],
            exit_code=code,
            balance_nano=account.balance_nano,
        )
        record.append(done)
        if code:
            raise TransactionFailed(op, code)
        return done

    def _charge(self, sender: str, fee_nano: int) -> None:
        self._wallets[sender] -= fee_nano
        self.fees_nano += fee_nano

    def _deposit(self, account: _Account, amount_nano: int, *, rent_nano: int = 0) -> None:
        _require(account.close_at == 0, Exit.CLOSING)
        _require(amount_nano >= MIN_DEPOSIT_NANO, Exit.LOW_DEPOSIT)
        self._wallets[account.terms.payer] -= amount_nano + rent_nano
        account.balance_nano += amount_nano + rent_nano
        account.deposited_nano += amount_nano

    def _owed(self, account: _Account, claim: Claim, tag: int, key: bytes) -> int:
        """How much more than before the payee may have by this claim."""
        _require(claim_is_good(self._verify, key, tag, self.network.global_id, claim), Exit.BAD_SIGNATURE)
        _require(claim.amount_nano >= account.settled_nano, Exit.STALE_CLAIM)
        _require(claim.amount_nano <= account.deposited_nano, Exit.OVER_DEPOSIT)
        return claim.amount_nano - account.settled_nano

    def _pay(self, account: _Account, address: str, amount_nano: int) -> None:
        account.balance_nano -= amount_nano
        self.mint(address, amount_nano)

    def _close(self, channel: bytes, account: _Account, owed_nano: int) -> None:
        self._pay(account, account.terms.payee, min(owed_nano, account.balance_nano))
        self._pay(account, account.terms.payer, account.balance_nano)
        del self._channels[channel]


def _require(condition: bool, code: Exit) -> None:
    if not condition:
        raise _Refused(code)


class MemoryWallet:
    """A `chain.ledger.Wallet` on a `MemoryChain`."""

    def __init__(self, chain: MemoryChain, address: str) -> None:
        self._chain = chain
        self.address = address

    async def balance(self) -> int:
        return self._chain.balance(self.address)


class MemoryLedger:
    """A `chain.ledger.Ledger` on a `MemoryChain`, for the holder of one wallet. No method ever waits."""

    def __init__(self, chain: MemoryChain, address: str) -> None:
        self._chain = chain
        self._address = address
        self.network = chain.network
        self.wallet = MemoryWallet(chain, address)

    def channel_id(self, terms: ChannelTerms) -> bytes:
        return self._chain.channel_id(terms)

    async def now(self) -> int:
        return self._chain.now()

    async def channel(self, channel: bytes) -> ChannelState | None:
        return self._chain.channel(channel)

    async def open(self, terms: ChannelTerms, deposit_nano: int) -> Transaction:
        return self._chain.open(self._address, terms, deposit_nano)

    async def top_up(self, channel: bytes, amount_nano: int) -> Transaction:
        return self._chain.top_up(self._address, channel, amount_nano)

    async def settle(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        return self._chain.settle(self._address, channel, amount_nano, signature)

    async def close_by_payee(self, channel: bytes, claim: tuple[int, bytes] | None) -> Transaction:
        return self._chain.close_by_payee(self._address, channel, claim)

    async def close_by_release(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        return self._chain.close_by_release(self._address, channel, amount_nano, signature)

    async def start_close(self, channel: bytes) -> Transaction:
        return self._chain.start_close(self._address, channel)

    async def finalise(self, channel: bytes) -> Transaction:
        return self._chain.finalise(self._address, channel)

    async def transactions(self, channel: bytes) -> Sequence[Transaction]:
        return self._chain.transactions(channel)

    async def transfer(self, destination: str, amount_nano: int) -> None:
        """Withdraw to another wallet."""
        self._chain.transfer(self._address, destination, amount_nano)
