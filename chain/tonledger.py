"""The `Ledger` on TON: a W5 wallet that carries operations to channels, and reads what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from pytoniq_core import Address, Cell, MessageAny, StateInit
from pytoniq_core.tlb.block import CurrencyCollection
from pytoniq_core.tlb.transaction import ExternalMsgInfo, InternalMsgInfo

from chain import trail, w5
from chain.address import parse as parse_address
from chain.contract import cells
from chain.errors import ChannelUnusable, InsufficientFunds, LedgerUnavailable, TransactionFailed
from chain.ledger import ChannelState, ChannelTerms, Network, Op, Transaction
from chain.purse import Purse
from chain.voucher import Claim
from chain.wallet import WALLET_MARGIN_NANO, WalletKey

if TYPE_CHECKING:
    from chain.ton import LiteServers

ORDER_LIFE_S = 60  # after which a signed order that was not taken is void
ORDER_GRACE_S = 10  # for the chain's clock being behind ours
CONFIRM_TIMEOUT_S = 60.0
POLL_S = 0.3


class Head(NamedTuple):
    """An account's newest transaction."""

    lt: int
    hash: bytes


class Account(NamedTuple):
    """Proven account state. `state` holds code and data, and is `None` for an account without code."""

    balance_nano: int
    state: Any
    head: Head | None


class TonWallet:
    """A W5 wallet, deployed with its first order. A `chain.ledger.Wallet`."""

    def __init__(self, servers: LiteServers, key: WalletKey, network: Network, purse: Purse | None = None) -> None:
        self.address = key.address(network)
        self.account = Address(self.address)
        self._servers = servers
        self._key = key
        self._network = network
        self._purse = purse
        self._turn = trio.Lock()  # an order is good for one sequence number, so they go one by one

    async def balance(self) -> int:
        return (await self._servers.account(self.account)).balance_nano

    async def send(
        self,
        to: Address,
        value_nano: int,
        body: Cell,
        init: StateInit | None = None,
        *,
        bounce: bool = True,
        spent_nano: int = 0,
    ) -> Any:
        """Have the wallet send a message; returns the wallet's transaction that did.

        `spent_nano` is the part of the value that will not come back by itself. Raises `InsufficientFunds`,
        `LimitReached` or `LedgerUnavailable`, and then nothing was sent. Once the order is signed, a server that goes
        away is waited for until the order is void, so that nobody has to guess.
        """
        value = CurrencyCollection(value_nano, None)
        message = MessageAny(InternalMsgInfo(True, bounce, False, None, to, value, 0, 0, 0, 0), init, body)
        async with self._turn, self._purse.turn() if self._purse else nullcontext():
            done = await self._order(value_nano, message, spent_nano)
        if not trail.sent(done):
            raise InsufficientFunds("the wallet could not pay for the message")
        return done

    async def _order(self, value_nano: int, message: MessageAny, spent_nano: int) -> Any:
        """Sign an order for a message, and see it taken."""
        account = await self._servers.account(self.account)
        needed = value_nano + WALLET_MARGIN_NANO
        if account.balance_nano < needed:
            raise InsufficientFunds(f"the wallet holds {account.balance_nano} nano of the {needed} needed")
        taken = w5.seqno(account.state.data) if account.state else 0
        valid_until = await self._servers.now() + ORDER_LIFE_S
        if self._purse:
            await self._purse.spend(spent_nano)
        order = w5.order(self._key, self._network.global_id, taken, valid_until, message)
        first = None if account.state else w5.state_init(self._key.public_key, self._network.global_id)
        external = MessageAny(ExternalMsgInfo(None, self.account, 0), first, order)
        return await self._submit(external.serialize().to_boc(), order, account.head.lt if account.head else 0)

    async def _submit(self, message: bytes, order: Cell, after_lt: int) -> Any:
        """Hand the order in, as often as that fails, and wait for the transaction that took it."""
        refusal = None
        with trio.move_on_after(ORDER_LIFE_S + ORDER_GRACE_S):
            while True:
                with suppress(LedgerUnavailable):
                    if refusal is None:
                        refusal = await self._servers.send(message)
                    done = await self._taken(order, after_lt)
                    if done is not None:
                        return done
                    # Looked for before it is believed: when an answer was lost, we sent again what was taken already.
                    if refusal:
                        break
                await trio.sleep(POLL_S)
        raise LedgerUnavailable(f"the order was not taken: {refusal or 'it is void by now'}")

    async def _taken(self, order: Cell, after_lt: int) -> Any | None:
        for transaction in await self.history(after_lt):
            message = transaction.in_msg
            if message and message.is_external and message.body.hash == order.hash:
                return transaction
        return None

    async def history(self, after_lt: int = 0) -> list[Any]:
        """The wallet's transactions later than `after_lt`, newest first."""
        head = (await self._servers.account(self.account)).head
        return await self._servers.history(self.account, head, after_lt)


class TonLedger:
    """A `chain.ledger.Ledger` over lite-servers. Made by `chain.ton.open_ton`; many tasks may use it.

    Whoever cancels an operation cannot know whether it was sent: look before it is repeated.
    """

    def __init__(self, servers: LiteServers, key: WalletKey, network: Network, purse: Purse | None = None) -> None:
        self.network = network
        self.wallet = TonWallet(servers, key, network, purse)
        self._purse = purse
        self._servers = servers
        self._payers: dict[bytes, Address] = {}  # of channels seen: who gets what is left, so who saw them close

    def channel_id(self, terms: ChannelTerms) -> bytes:
        return cells.channel_id(terms)

    async def now(self) -> int:
        return await self._servers.now()

    async def channel(self, channel: bytes) -> ChannelState | None:
        account = await self._servers.account(cells.channel_address(channel))
        if account.state is None:
            return None
        found = cells.channel_state(channel, account.state, account.balance_nano)
        self._payers[channel] = Address(found.terms.payer)
        return found

    async def open(self, terms: ChannelTerms, deposit_nano: int) -> Transaction:
        channel, init = cells.channel_id(terms), cells.state_init(terms)
        known = await self.channel(channel)
        if known is not None and known.deposited_nano:
            raise ChannelUnusable("a channel with these terms is open")
        self._check_channel(deposit_nano)
        self._payers[channel] = Address(terms.payer)
        value_nano = deposit_nano + cells.CALL_VALUE_NANO
        body = cells.open_channel(deposit_nano)
        return await self._carry("open", channel, body, value_nano, init, spent_nano=deposit_nano)

    async def top_up(self, channel: bytes, amount_nano: int) -> Transaction:
        self._check_channel((await self._existing(channel)).deposited_nano + amount_nano)
        value_nano = amount_nano + cells.CALL_VALUE_NANO
        return await self._carry("top_up", channel, cells.top_up(amount_nano), value_nano, spent_nano=amount_nano)

    async def settle(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        voucher = Claim(channel, amount_nano, signature)
        return await self._call("settle", channel, cells.settle(voucher))

    async def close_by_payee(self, channel: bytes, claim: tuple[int, bytes] | None) -> Transaction:
        voucher = Claim(channel, *claim) if claim else None
        return await self._call("close_by_payee", channel, cells.close_by_payee(voucher))

    async def close_by_release(self, channel: bytes, amount_nano: int, signature: bytes) -> Transaction:
        release = Claim(channel, amount_nano, signature)
        return await self._call("close_by_release", channel, cells.close_by_release(release))

    async def start_close(self, channel: bytes) -> Transaction:
        return await self._call("start_close", channel, cells.start_close())

    async def finalise(self, channel: bytes) -> Transaction:
        return await self._call("finalise", channel, cells.finalise())

    async def transactions(self, channel: bytes) -> Sequence[Transaction]:
        """As `Ledger`. Of a closed channel that this wallet never had to do with, nothing is found."""
        history = await self._history(channel)
        calls = [transaction for transaction in history if trail.asked(transaction)]
        wallets: list[Any] = []
        for carrier in {transaction.in_msg.info.src for transaction in calls}:
            first_lt = min(each.in_msg.info.created_lt for each in calls if trail.came_from(each, carrier))
            head = (await self._servers.account(carrier)).head
            wallets += await self._servers.history(carrier, head, first_lt - trail.MAX_SENT - 1)
        return tuple(trail.records(history, wallets))

    async def transfer(self, to: str, amount_nano: int) -> str:
        """Withdraw to another wallet, an address in any form; returns the hash of our wallet's transaction, hex.

        Raises `BadAddress`, or as `TonWallet.send` does.
        """
        address, bounce = parse_address(to, self.network)
        send = self.wallet.send(Address(address), amount_nano, Cell.empty(), bounce=bounce, spent_nano=amount_nano)
        done: str = (await send).cell.hash.hex()
        return done

    def _check_channel(self, deposited_nano: int) -> None:
        if self._purse:
            self._purse.check_channel(deposited_nano)

    async def _existing(self, channel: bytes) -> ChannelState:
        known = await self.channel(channel)
        if known is None:
            raise ChannelUnusable(f"there is no channel {channel.hex()}")
        return known

    async def _call(self, op: Op, channel: bytes, body: Cell) -> Transaction:
        await self._existing(channel)
        return await self._carry(op, channel, body, cells.CALL_VALUE_NANO)

    async def _carry(
        self,
        op: Op,
        channel: bytes,
        body: Cell,
        value_nano: int,
        init: StateInit | None = None,
        *,
        spent_nano: int = 0,
    ) -> Transaction:
        """Carry one operation and wait for its end, which is when what it did not use has come back."""
        address = cells.channel_address(channel)
        ordered = await self.wallet.send(address, value_nano, body, init, spent_nano=spent_nano)
        with trio.move_on_after(CONFIRM_TIMEOUT_S):
            while True:
                with suppress(LedgerUnavailable):
                    done = await self._done(op, address, ordered)
                    if done is not None:
                        return done
                await trio.sleep(POLL_S)
        raise LedgerUnavailable(f"{op} was sent and is not confirmed yet: look before it is repeated")

    async def _done(self, op: Op, channel: Address, ordered: Any) -> Transaction | None:
        """What came of an order, once all that it sent back has arrived."""
        own = [*await self.wallet.history(ordered.lt), ordered]
        executed = await self._answered(channel, ordered, own)
        if executed is None:
            return None
        ours = [each for each in trail.sent(executed) if each.info.dest == self.wallet.account]
        if not all(any(trail.took(each, message) for each in own) for message in ours):
            return None
        code = trail.exit_code(executed)
        if code is None:
            raise ChannelUnusable("the channel was closed meanwhile")
        if code:
            raise TransactionFailed(op, code)
        return trail.record(op, executed, own, (await self._servers.account(channel)).balance_nano)

    async def _answered(self, channel: Address, ordered: Any, own: Sequence[Any]) -> Any | None:
        """The channel's transaction for an order, found by what it sent back: the channel may be gone by then."""
        (asked,) = trail.sent(ordered)
        for answer in own:
            if trail.came_from(answer, channel):
                executed = await self._sender(answer.in_msg, channel)
                if executed is not None and trail.took(executed, asked):
                    return executed
        return None

    async def _sender(self, message: Any, source: Address) -> Any | None:
        """The transaction of `source` that sent a message."""
        for lt in trail.sender_lts(message):
            found = await self._servers.transaction(source, lt)
            if found is not None:
                return found
        return None

    async def _history(self, channel: bytes) -> list[Any]:
        """All of a channel's transactions, newest first.

        A destroyed account has no head to start from any more, but its last message, with what was left, went to the
        payer's wallet. Where the payer is forgotten, what our own wallet got last leads back to the one who opened.
        """
        address = cells.channel_address(channel)
        head = (await self._servers.account(address)).head
        if head is not None:
            return await self._servers.history(address, head)
        if channel not in self._payers:
            seen = await self._history_until(address, self.wallet.account)
            if not seen:
                return []
            self._payers[channel] = seen[-1].in_msg.info.src
        return await self._history_until(address, self._payers[channel])

    async def _history_until(self, channel: Address, witness: Address) -> list[Any]:
        """A channel's transactions up to the last that sent something to `witness`."""
        seen = await self._servers.history(witness, (await self._servers.account(witness)).head)
        last = next((each for each in seen if trail.came_from(each, channel)), None)
        executed = await self._sender(last.in_msg, channel) if last else None
        return await self._servers.history(channel, Head(executed.lt, executed.cell.hash)) if executed else []
