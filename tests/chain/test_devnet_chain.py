"""The local chain: order, history, time, and what it refuses."""

from __future__ import annotations

import pytest
import trio
from pytoniq_core import Address, Cell, MessageAny, StateInit, VmStack, begin_cell
from pytoniq_core.crypto.crc import crc16
from pytoniq_core.tlb.transaction import ExternalMsgInfo

from chain.contract import cells
from chain.devnet.chain import Chain, internal_message
from chain.devnet.vm import NotAccepted, Vm

NOW = 1_790_000_000
SOMEONE, OTHER = Address((0, b"\x01" * 32)), Address((0, b"\x02" * 32))
VM = Vm.from_package()


@pytest.fixture
def local() -> Chain:
    return Chain(VM, lambda: NOW)


def test_the_faucet_gives_exactly_what_it_says(local: Chain) -> None:
    local.faucet(SOMEONE, 5)
    local.faucet(SOMEONE, 10**9)
    assert local.balance(SOMEONE) == 10**9 + 5
    assert local.balance(OTHER) == 0
    assert local.account(OTHER) is None


def test_an_account_can_be_read_as_of_any_block(local: Chain) -> None:
    first = local.head.seqno
    local.faucet(SOMEONE, 5)
    local.tick()
    local.faucet(SOMEONE, 6)
    states = [local.account(SOMEONE, seqno) for seqno in range(first, first + 4)]
    assert states[0] is None
    assert states[1] == states[2] != states[3] == local.account(SOMEONE)


def test_blocks_follow_one_another_in_logical_time(local: Chain) -> None:
    local.faucet(SOMEONE, 5)
    local.tick()
    local.faucet(OTHER, 5)
    for before, after in zip(local.blocks, local.blocks[1:], strict=False):
        assert after.seqno == before.seqno + 1
        assert before.end_lt < after.start_lt <= after.end_lt
    (given,) = local.transactions(OTHER)
    block = local.blocks[given.block - 1]
    assert block.start_lt <= given.transaction.lt <= block.end_lt


def test_time_goes_forward_only() -> None:
    clock = [float(NOW)]
    local = Chain(VM, lambda: clock[0])
    assert local.advance(3600) == NOW + 3600
    with pytest.raises(ValueError, match="forward"):
        local.advance(-1)
    clock[0] -= 1000
    assert local.tick().time == local.now() == NOW + 3600
    assert local.advance(1) == NOW + 3601


async def test_waiting_for_a_block_ends_with_it(local: Chain, autojump_clock: trio.testing.MockClock) -> None:
    reached: list[int] = []

    async def wait(seqno: int) -> None:
        await local.wait_for(seqno)
        reached.append(seqno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, local.head.seqno)
        nursery.start_soon(wait, local.head.seqno + 2)
        await trio.sleep(1)
        assert reached == [1]
        local.tick()
        await trio.sleep(1)
        assert reached == [1]
        local.tick()
    assert reached == [1, 3]


def test_an_external_message_to_nobody_makes_no_block(local: Chain) -> None:
    head = local.head
    message = MessageAny(ExternalMsgInfo(None, SOMEONE, 0), None, Cell.empty()).serialize()
    with pytest.raises(NotAccepted):
        local.send_external(message)
    assert local.head == head
    assert local.transactions(SOMEONE) == ()


def test_an_internal_message_does_not_come_from_outside(local: Chain) -> None:
    with pytest.raises(NotAccepted, match="not an external"):
        local.send_external(internal_message(SOMEONE, OTHER, 10**9))
    assert local.balance(OTHER) == 0


def test_a_chain_of_messages_is_one_block(local: Chain) -> None:
    """A bounce: the message to an account without code comes back in the same block."""
    head = local.head.seqno
    there, back = local.send(internal_message(SOMEONE, OTHER, 10**9, bounce=True))
    assert (there.address, back.address) == (OTHER, SOMEONE)
    assert there.block == back.block == head + 1
    assert 0 < local.balance(SOMEONE) < 10**9


def test_a_get_method_runs_on_a_contract_only(local: Chain) -> None:
    method = (int.from_bytes(crc16(b"seqno"), "big") & 0xFFFF) | 0x10000
    nothing = VmStack.serialize([])
    assert local.run_get_method(SOMEONE, method, nothing, local.head) is None
    init = StateInit(code=cells.code(), data=begin_cell().store_uint(0, 8).end_cell())
    address = Address((0, init.serialize().hash))
    local.send(internal_message(SOMEONE, address, 10**9, Cell.empty(), init))
    result = local.run_get_method(address, method, nothing, local.head)
    assert result is not None
    assert result.exit_code == 11  # no such method
