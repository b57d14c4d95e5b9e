"""The model in memory beside the real contract: the same story told to both ends the same, to the nano."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
from on_devnet import CHALLENGE_S, GRAM, RELEASE_KEY, RENT_NANO, Devnet, new_key, new_terms, running_devnet, signed

from chain.errors import (
    TransactionFailed,
)
from chain.keys import verify
from chain.ledger import Ledger, Network, Transaction
from chain.memory import FEES_NANO, MemoryChain
from chain.tonledger import TonLedger
from chain.voucher import RELEASE_TAG


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    with running_devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        yield devnet


class Step(msgspec.Struct, frozen=True):
    """What an operation led to."""

    exit_code: int
    deposited_nano: int = 0
    settled_nano: int = 0
    closing_in_s: int = 0


class Story:
    """Drives two ledgers of any kind and writes down what happens."""

    def __init__(self, payer: Ledger, payee: Ledger, advance: Callable[[int], Awaitable[None]]) -> None:
        self.payer, self.payee, self.advance = payer, payee, advance
        self.steps: list[Step] = []
        self.records: list[Transaction] = []
        self.balances: list[int] = []  # of both wallets after each channel, without all fees that they paid
        self._channel = b""
        self._carriers: list[Ledger] = []
        self._paid = {payer: 0, payee: 0}
        self._began = {payer: 0, payee: 0}
        self._looked_lt = {payer: 0, payee: 0}

    async def run(self) -> None:
        for ledger in self._paid:
            await self.received(ledger)
            self._began[ledger] = await ledger.wallet.balance()
        await self.release_after_refusals()
        await self.payee_closes()
        await self.payer_deserts()

    async def release_after_refusals(self) -> None:
        payer, payee = self.payer, self.payee
        channel = await self.open(2 * GRAM, foul=True)
        await self.step(payer, payer.top_up(channel, GRAM))
        await self.step(payer, payer.top_up(channel, 1))
        await self.step(payee, payee.top_up(channel, GRAM))
        await self.step(payee, payee.settle(channel, 400, signed(payee, channel, 400)))
        await self.step(payer, payer.settle(channel, GRAM, signed(payer, channel, GRAM)))
        await self.step(payee, payee.settle(channel, GRAM, signed(payee, channel, GRAM)))
        await self.step(payee, payee.settle(channel, 401, signed(payee, channel, 401)))
        await self.step(payee, payee.settle(channel, 2 * GRAM, signed(payee, channel, 2 * GRAM, RELEASE_KEY)))
        await self.step(payee, payee.settle(channel, 2 * GRAM, signed(payee, channel, 2 * GRAM, tag=RELEASE_TAG)))
        await self.step(payee, payee.settle(channel, 4 * GRAM, signed(payee, channel, 4 * GRAM)))
        await self.step(payee, payee.start_close(channel))
        await self.step(payer, payer.finalise(channel))
        await self.step(payer, payer.close_by_payee(channel, None))
        await self.step(payer, payer.close_by_release(channel, 2 * GRAM, signed(payer, channel, 2 * GRAM)))
        release = signed(payer, channel, 2 * GRAM, RELEASE_KEY, RELEASE_TAG)
        await self.step(payee, payee.close_by_release(channel, 2 * GRAM, release))
        await self.step(payer, payer.close_by_release(channel, 2 * GRAM, release))
        await self.end()

    async def payee_closes(self) -> None:
        channel = await self.open(GRAM)
        await self.step(self.payee, self.payee.close_by_payee(channel, (7, signed(self.payee, channel, 7))))
        await self.end()
        channel = await self.open(GRAM)
        await self.step(self.payee, self.payee.close_by_payee(channel, None))
        await self.end()

    async def payer_deserts(self) -> None:
        payer, payee = self.payer, self.payee
        channel = await self.open(GRAM)
        await self.step(payer, payer.start_close(channel))
        await self.step(payer, payer.start_close(channel))
        await self.step(payer, payer.top_up(channel, GRAM))
        await self.step(payee, payee.settle(channel, 300, signed(payee, channel, 300)))
        await self.step(payer, payer.finalise(channel))
        await self.advance(CHALLENGE_S)
        await self.step(payee, payee.finalise(channel))
        await self.end()

    async def open(self, deposit_nano: int, *, foul: bool = False) -> bytes:
        terms = await new_terms(self.payer, self.payee)
        self._channel, self._carriers = self.payer.channel_id(terms), []
        if foul:
            await self.step(self.payee, self.payee.open(terms, deposit_nano))
            await self.step(self.payer, self.payer.top_up(self._channel, deposit_nano))
        await self.step(self.payer, self.payer.open(terms, deposit_nano))
        return self._channel

    async def step(self, carrier: Ledger, operation: Awaitable[Transaction]) -> None:
        code = 0
        try:
            done = await operation
        except TransactionFailed as failed:
            code = failed.exit_code
        state, now = await carrier.channel(self._channel), await carrier.now()
        if not code:
            assert done.balance_nano == (state.balance_nano if state else 0)
        closing_in_s = state.close_at - now if state and state.close_at else 0
        for ledger in self._paid:
            taken_nano = await self.received(ledger)
            self._paid[ledger] += 0 if ledger is carrier else taken_nano
        self._carriers.append(carrier)
        self.steps.append(Step(code, state.deposited_nano, state.settled_nano, closing_in_s) if state else Step(code))

    async def end(self) -> None:
        """The channel is closed: compare what the chain remembers with what was done, and count the money."""
        records = await self.payer.transactions(self._channel)
        assert await self.payee.transactions(self._channel) == records
        assert [each.exit_code for each in records] == [each.exit_code for each in self.steps[-len(records) :]]
        for carrier, each in zip(self._carriers, records, strict=True):
            self._paid[carrier] += each.fee_nano
        self.records += records
        for ledger in self._paid:
            self.balances.append(await ledger.wallet.balance() + self._paid[ledger] - self._began[ledger])

    async def received(self, ledger: Ledger) -> int:
        """The fees of the wallet's new transactions. On TON it pays for taking what somebody else's operation sent it,
        which the model has no part in.
        """
        if not isinstance(ledger, TonLedger):
            return 0
        taken = await ledger.wallet.history(self._looked_lt[ledger])
        self._looked_lt[ledger] = max((each.lt for each in taken), default=self._looked_lt[ledger])
        return sum(each.total_fees.grams for each in taken)


async def in_memory(network: Network) -> Story:
    now = 1_800_000_000

    async def advance(seconds: int) -> None:
        nonlocal now
        now += seconds

    chain = MemoryChain(network, now=lambda: now, verify=verify)
    payer, payee = (chain.ledger("0:" + name * 32) for name in ("aa", "bb"))
    for ledger in (payer, payee):
        chain.mint(ledger.wallet.address, 20 * GRAM)
    story = Story(payer, payee, advance)
    await story.run()
    return story


@pytest.mark.slow
async def test_the_model_is_exact(devnet: Devnet) -> None:
    """The same story on TON and in memory: equal step by step, but for fees, rent and the passing of seconds."""
    model = await in_memory(devnet.network)
    async with devnet.funded(new_key(), new_key()) as (payer, payee):
        real = Story(payer, payee, devnet.advance)
        await real.run()
    for told, seen in zip(model.steps, real.steps, strict=True):
        assert seen == msgspec.structs.replace(told, closing_in_s=seen.closing_in_s)
        assert 0 <= told.closing_in_s - seen.closing_in_s < 60
    for recorded, done in zip(model.records, real.records, strict=True):
        assert (done.op, done.exit_code) == (recorded.op, recorded.exit_code)
        assert 0 <= recorded.balance_nano - done.balance_nano <= RENT_NANO
    for told_nano, seen_nano in zip(model.balances, real.balances, strict=True):
        assert 0 <= told_nano - seen_nano <= RENT_NANO
    for op, fee_nano in FEES_NANO.items():
        seen_fees = [done.fee_nano for done in real.records if done.op == op and not done.exit_code]
        assert max(seen_fees) == pytest.approx(fee_nano, rel=0.05), op
