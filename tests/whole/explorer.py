"""A look at the chain that shares nothing with the product: pytoniq, and the network file read as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pytoniq import LiteClient
from pytoniq_core import Address

BASECHAIN, MASTERCHAIN, WHOLE_SHARD = 0, -1, -(1 << 63)
LT_STEP = 1_000_000  # between the devnet's transactions
OPERATIONS = {  # channel.tolk
    0x42590001: "open",
    0x42590003: "settle",
    0x42590005: "close_by_release",
    0x42590006: "start_close",
    0x42590007: "finalise",
}


class Executed(NamedTuple):
    """A transaction of an account."""

    op: str
    hash: str
    exit_code: int
    before_nano: int  # the account's balance in the block before, proven by that block's state
    after_nano: int  # and in its own
    rent_nano: int
    sent_nano: list[tuple[str, int]]  # to whom, in order


def history(network: Path, account: str) -> Sequence[Executed]:
    """All that happened to a basechain account, oldest first, also if it is gone by now."""
    chain = json.loads(network.read_text())["chain"]
    return asyncio.run(_history(chain, Address((BASECHAIN, bytes.fromhex(account)))))


async def _history(chain: dict[str, Any], address: Address) -> Sequence[Executed]:
    client = LiteClient.from_config(chain, trust_level=2)
    await client.connect()
    try:
        return [executed async for executed in _walk(client, address)]
    finally:
        await client.close()


async def _walk(client: Any, address: Address) -> AsyncIterator[Executed]:
    """Block by block from the first."""
    before_nano = 0
    last = (await client.get_masterchain_info())["last"]["seqno"]
    for seqno in range(1, last + 1):
        block, _ = await client.lookup_block(MASTERCHAIN, WHOLE_SHARD, seqno=seqno)
        account, _ = await client.raw_get_account_state(address, block)
        after_nano = account.storage.balance.grams if account else 0
        for transaction in await _transactions(client, address, seqno):
            yield _executed(transaction, before_nano, after_nano)
        before_nano = after_nano


async def _transactions(client: Any, address: Address, seqno: int) -> list[Any]:
    """Those of the account in one block; none of these tests puts two there."""
    shard, header = await client.lookup_block(BASECHAIN, WHOLE_SHARD, seqno=seqno)
    lts = range(header.info.start_lt, header.info.end_lt, LT_STEP)
    found = [await client.get_one_transaction(address, lt, shard) for lt in lts]
    there = [transaction for transaction in found if transaction]
    assert len(there) <= 1
    return there


def _executed(transaction: Any, before_nano: int, after_nano: int) -> Executed:
    sent = [(each.info.dest.to_str(is_user_friendly=False), each.info.value_coins) for each in transaction.out_msgs]
    return Executed(
        OPERATIONS[transaction.in_msg.body.begin_parse().load_uint(32)],
        transaction.cell.hash.hex(),
        transaction.description.compute_ph.exit_code,
        before_nano,
        after_nano,
        transaction.description.storage_ph.storage_fees_collected,
        sent,
    )
