"""Accounts, messages, transactions and blocks of the local TON, in memory and, if asked, on disk.

There is no consensus: whatever message comes in is executed at once, along with every message that follows from it,
and makes one block. Time is the clock's plus an offset, so challenge periods can be travelled through.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio
from pytoniq_core import Address, Cell, MessageAny, ShardAccount, StateInit, Transaction, begin_cell
from pytoniq_core.tlb.block import CurrencyCollection
from pytoniq_core.tlb.transaction import InternalMsgInfo

from .store import Block, StateUnusable, Step, Store
from .vm import MethodResult, NotAccepted, Vm

GLOBAL_ID = -239
"""What contracts read with GLOBALID under the devnet's configuration, which is mainnet's."""

_LT_STEP = 1_000_000  # between blocks, and between transactions, as on TON; messages get the numbers in between
_NOBODY = Address((0, bytes(32)))  # the faucet's messages come from here

_NO_ACCOUNT = begin_cell().store_ref(begin_cell().store_bit_int(0).end_cell()).store_bytes(bytes(40)).end_cell()


class Executed(NamedTuple):
    """A transaction, where it happened, its raw cell, and the `ShardAccount` that it left."""

    address: Address
    transaction: Transaction
    cell: Cell
    account: Cell
    block: int


class Chain:
    """The whole chain. Not for two threads at once.

    `clock` gives unix seconds; tests hand in one that they move. A chain with a `store` goes on where that one ended,
    and raises `StateUnusable` wherever it cannot be read or written.
    """

    def __init__(self, vm: Vm, clock: Callable[[], float] = time.time, store: Store | None = None) -> None:
        self._vm = vm
        self._clock = clock
        self._offset_s = 0
        self._accounts: dict[tuple[int, bytes], list[Executed]] = {}  # all that happened to each, oldest first
        self._lt = 10_000_000 * _LT_STEP
        self.blocks: list[Block] = []
        self._grown = trio.Event()
        self._store = store
        if store is not None:
            self._restore(store)
        if not self.blocks:
            self._end_block(self._lt, self.now())

    @property
    def head(self) -> Block:
        """The newest block."""
        return self.blocks[-1]

    def now(self) -> int:
        """Unix seconds on the chain's clock; never less than the newest block's."""
        now = int(self._clock()) + self._offset_s
        return max(now, self.head.time) if self.blocks else now

    async def wait_for(self, seqno: int) -> None:
        """Return once there is a block of that number."""
        while self.head.seqno < seqno:
            await self._grown.wait()

    def advance(self, seconds: int) -> int:
        """Move the clock forward and make a block, so that everyone sees it. Returns the new time."""
        if seconds < 0:
            raise ValueError("time goes forward only")
        self._offset_s = self.now() + seconds - int(self._clock())
        return self.tick().time

    def tick(self) -> Block:
        """Make an empty block."""
        self._lt += _LT_STEP
        return self._end_block(self._lt, self.now())

    def faucet(self, to: Address, amount_nano: int) -> Sequence[Executed]:
        """Give away money out of nothing."""
        return self.send(internal_message(_NOBODY, to, amount_nano))

    def send_external(self, message: Cell) -> Sequence[Executed]:
        """Execute a message from outside and all that follow from it, in order, in one block.

        Raises `vm.NotAccepted` if no contract takes it, or if it pretends to be from inside; there is no block then.
        """
        if message.bits[:2].to01() != "10":  # ext_in_msg_info$10
            raise NotAccepted("not an external message")
        return self.send(message)

    def send(self, message: Cell) -> Sequence[Executed]:
        """`send_external` for a message of any kind: an internal one is believed, whoever it says it is from."""
        now, start_lt = self.now(), self._lt + _LT_STEP
        done = [self._deliver(message, now)]
        queue = deque(_internal_messages(done[0]))
        while queue:
            done.append(self._deliver(queue.popleft(), now))
            queue.extend(_internal_messages(done[-1]))
        self._end_block(start_lt, now, done)
        return done

    def account(self, address: Address, seqno: int | None = None) -> Cell | None:
        """The `ShardAccount` as of a block, by default the newest; `None` where no account exists."""
        history = self.transactions(address)
        newest = self.head.seqno if seqno is None else seqno
        index = bisect_right(history, newest, key=lambda each: each.block) - 1
        if index < 0 or not history[index].account.refs[0].bits[0]:
            return None
        return history[index].account

    def balance(self, address: Address) -> int:
        """In nano; 0 where no account exists."""
        cell = self.account(address)
        return 0 if cell is None else _balance(ShardAccount.deserialize(cell.begin_parse()))

    def contract(self, address: Address, seqno: int | None = None) -> tuple[StateInit, int] | None:
        """Code, data and balance in nano of an active account; `None` for any other."""
        cell = self.account(address, seqno)
        if cell is None:
            return None
        account = ShardAccount.deserialize(cell.begin_parse())
        state = account.account.storage.state
        return (state.state_init, _balance(account)) if state.type_ == "account_active" else None

    def run_get_method(self, address: Address, method: int, arguments: Cell, block: Block) -> MethodResult | None:
        """A get method as of a block; `None` if there was no active account."""
        contract = self.contract(address, block.seqno)
        if contract is None:
            return None
        return self._vm.run_get_method(address, *contract, method, arguments, block.time)

    def transactions(self, address: Address) -> Sequence[Executed]:
        """All that ever happened to an account, oldest first."""
        return self._accounts.get(_key(address), ())

    def _deliver(self, message: Cell, now: int) -> Executed:
        address = MessageAny.deserialize(message.begin_parse()).info.dest
        history = self.transactions(address)
        before = history[-1].account if history else _NO_ACCOUNT
        lt = self._lt + _LT_STEP
        result = self._vm.execute(before, message, now, lt)
        self._lt = lt
        return self._record(address, result.account, result.transaction, len(self.blocks) + 1)

    def _record(self, address: Address, account: Cell, cell: Cell, block: int) -> Executed:
        executed = Executed(address, Transaction.deserialize(cell.begin_parse()), cell, account, block)
        self._accounts.setdefault(_key(address), []).append(executed)
        return executed

    def _end_block(self, start_lt: int, now: int, done: Sequence[Executed] = ()) -> Block:
        block = Block(len(self.blocks) + 1, now, start_lt, self._lt + _LT_STEP - 1)
        if self._store is not None:
            steps = [Step(*_key(each.address), each.account.to_boc(), each.cell.to_boc()) for each in done]
            self._store.append(block, self._offset_s, steps)
        self.blocks.append(block)
        grown, self._grown = self._grown, trio.Event()
        grown.set()
        return self.head

    def _restore(self, store: Store) -> None:
        try:
            for block, offset_s, steps in store.saved():
                for workchain, account_id, account, executed in steps:
                    address = Address((workchain, account_id))
                    self._record(address, Cell.one_from_boc(account), Cell.one_from_boc(executed), block.seqno)
                self.blocks.append(block)
                self._offset_s, self._lt = offset_s, block.end_lt - _LT_STEP + 1
        except StateUnusable:
            raise
        except Exception as error:  # the reader of bags raises many kinds
            raise StateUnusable(f"the state file cannot be understood: {error}") from error


def internal_message(
    source: Address,
    to: Address,
    amount_nano: int,
    body: Cell | None = None,
    init: StateInit | None = None,
    *,
    bounce: bool = False,
) -> Cell:
    """A message between contracts, as if `source` had sent it."""
    value = CurrencyCollection(amount_nano, None)
    info = InternalMsgInfo(True, bounce, False, source, to, value, 0, 0, 0, 0)
    return MessageAny(info, init, body or Cell.empty()).serialize()


def _internal_messages(executed: Executed) -> Sequence[Cell]:
    """What a transaction sent to other contracts, as the very cells that it made."""
    messages = executed.cell.refs[0].begin_parse()
    if messages.load_bit():
        messages.load_ref()  # the incoming one
    sent = messages.load_dict(15, value_deserializer=lambda leaf: leaf.load_ref()) or {}
    return [cell for _, cell in sorted(sent.items()) if not cell.bits[0]]  # int_msg_info$0


def _key(address: Address) -> tuple[int, bytes]:
    return address.wc, address.hash_part


def _balance(account: ShardAccount) -> int:
    grams: int = account.account.storage.balance.grams
    return grams
