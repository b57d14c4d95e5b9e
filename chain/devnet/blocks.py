"""Cells of blocks and states: as much of them as a client's proof checks read, in TON's own layouts (block.tlb).

A state here holds one account, the one that was asked for. So a proof costs the same however many accounts there are;
the price is that the shard block's hash differs from account to account, which a client that trusts its server with
the masterchain (pytoniq's trust level 2) cannot see. Blocks are not linked by hash: nobody votes on a devnet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from bitarray import bitarray
from pytoniq_core import Address, Builder, Cell, ShardAccount, begin_cell

from .chain import GLOBAL_ID
from .store import Block

MASTERCHAIN, BASECHAIN = -1, 0
WHOLE_SHARD = -(1 << 63)  # the shard that is its whole workchain

_PRUNED_BRANCH, _MERKLE_PROOF, _MERKLE_UPDATE = 1, 3, 4  # types of exotic cells

BlockId = dict[str, int | str]
"""A `tonNode.blockIdExt`, ready to be encoded."""


class AccountProof(NamedTuple):
    """Proof that `shard_block` commits to an account: a bag with the block's and the state's Merkle proofs."""

    shard_block: BlockId
    proof: bytes


@lru_cache(maxsize=1024)
def masterchain_id(block: Block) -> BlockId:
    """The name of a masterchain block."""
    return _block_id(block, MASTERCHAIN, _block(block, MASTERCHAIN, Cell.empty()))


@lru_cache(maxsize=1024)
def shard_id(block: Block) -> BlockId:
    """The name of a shard block that is asked for on its own, that is without any account."""
    return _block_id(block, BASECHAIN, _block(block, BASECHAIN, _state(block, None)))


def header_proof(block: Block, workchain: int) -> bytes:
    """A bag with the Merkle proof of a block's header."""
    state = Cell.empty() if workchain == MASTERCHAIN else _state(block, None)
    return bag_of_cells([_merkle_proof(_block(block, workchain, state))])


def account_proof(block: Block, address: Address, account: Cell | None) -> AccountProof:
    """Prove `account` (a `ShardAccount`), or that there is none, as of `block`."""
    state = _state(block, None if account is None else _accounts(address, account))
    shard_block = _block(block, BASECHAIN, state)
    proof = bag_of_cells([_merkle_proof(shard_block), _merkle_proof(state)])
    return AccountProof(_block_id(block, BASECHAIN, shard_block), proof)


def shard_hashes(block: Block) -> bytes:
    """A bag with the `ShardHashes` of a masterchain block: one shard, the whole basechain."""
    shard = shard_id(block)
    no_money = begin_cell().store_coins(0).store_bit_int(0).store_coins(0).store_bit_int(0).end_cell()
    description = (
        begin_cell()
        .store_bits("0" + "1010")  # a leaf of the tree of shards: shard_descr_new#a
        .store_uint(block.seqno, 32)
        .store_uint(block.seqno, 32)
        .store_uint(block.start_lt, 64)
        .store_uint(block.end_lt, 64)
        .store_bytes(bytes.fromhex(str(shard["root_hash"])))
        .store_bytes(bytes.fromhex(str(shard["file_hash"])))
        .store_uint(0, 8)  # no split or merge, no flags
        .store_uint(0, 32)
        .store_int(WHOLE_SHARD, 64)
        .store_uint(0, 32)
        .store_uint(block.time, 32)
        .store_bit_int(0)  # fsm_none
        .store_ref(no_money)
        .end_cell()
    )
    leaf = _store_whole_label(begin_cell(), bitarray(32)).store_ref(description).end_cell()
    return bag_of_cells([begin_cell().store_bit_int(1).store_ref(leaf).end_cell()])


def bag_of_cells(roots: Sequence[Cell]) -> bytes:
    """Serialise several roots into one bag (pytoniq-core writes bags of one root only)."""
    order: dict[Cell, None] = {}
    for root in roots:
        root.order(order)
    index = {cell: i for i, cell in enumerate(order)}
    index_bytes = (len(index).bit_length() + 7) // 8
    payload = b"".join(cell.serialize(index, index_bytes) for cell in index)
    offset_bytes = (len(payload).bit_length() + 7) // 8
    counts = [len(index), len(roots), 0]
    head = b"\xb5\xee\x9c\x72" + bytes([index_bytes, offset_bytes])
    head += b"".join(count.to_bytes(index_bytes, "big") for count in counts) + len(payload).to_bytes(
        offset_bytes, "big"
    )
    return head + b"".join(index[root].to_bytes(index_bytes, "big") for root in roots) + payload


def _block_id(block: Block, workchain: int, cell: Cell) -> BlockId:
    file_hash = hashlib.sha256(cell.to_boc()).hexdigest()
    root_hash = cell.get_hash(0).hex()
    return {
        "workchain": workchain,
        "shard": WHOLE_SHARD,
        "seqno": block.seqno,
        "root_hash": root_hash,
        "file_hash": file_hash,
    }


def _block(block: Block, workchain: int, state: Cell) -> Cell:
    """A block whose state update ends in `state`; what a header leaves out is pruned."""
    left_out = _pruned(Cell.empty())
    cell = begin_cell().store_uint(0x11EF55AA, 32).store_int(GLOBAL_ID, 32)
    cell = cell.store_ref(_block_info(block, workchain)).store_ref(left_out)
    return cell.store_ref(_merkle_update(Cell.empty(), state)).store_ref(left_out).end_cell()


def _block_info(block: Block, workchain: int) -> Cell:
    previous = begin_cell().store_uint(block.start_lt - 1, 64).store_uint(block.seqno - 1, 32).store_bytes(bytes(64))
    is_shard = workchain != MASTERCHAIN
    cell = begin_cell().store_uint(0x9BC7A987, 32).store_uint(0, 32)
    cell = cell.store_bit_int(is_shard).store_uint(0, 7 + 8)  # no split, merge or key block; no flags
    cell = _store_shard(cell.store_uint(block.seqno, 32).store_uint(0, 32), workchain)
    cell = cell.store_uint(block.time, 32).store_uint(block.start_lt, 64).store_uint(block.end_lt, 64)
    cell = cell.store_uint(0, 32 * 4)  # validators, and older blocks that it refers to
    if is_shard:
        cell = cell.store_ref(previous.end_cell())
    return cell.store_ref(previous.end_cell()).end_cell()


def _state(block: Block, accounts: Cell | None) -> Cell:
    """A `ShardStateUnsplit` with these `ShardAccounts`, or none."""
    no_accounts = _store_balance(begin_cell().store_bit_int(0), 0).end_cell()
    history = begin_cell().store_uint(0, 64 * 2).store_uint(0, 5 * 2 + 2).end_cell()
    cell = _store_shard(begin_cell().store_uint(0x9023AFE2, 32).store_int(GLOBAL_ID, 32), BASECHAIN)
    cell = cell.store_uint(block.seqno, 32).store_uint(0, 32).store_uint(block.time, 32).store_uint(block.end_lt, 64)
    cell = cell.store_uint(block.seqno, 32).store_ref(Cell.empty()).store_bit_int(0)
    return cell.store_ref(accounts or no_accounts).store_ref(history).store_bit_int(0).end_cell()


def _accounts(address: Address, shard_account: Cell) -> Cell:
    """`ShardAccounts` of one entry, the account itself pruned: it travels beside its proof."""
    balance = ShardAccount.deserialize(shard_account.begin_parse()).account.storage.balance.grams
    key = bitarray()
    key.frombytes(address.hash_part)
    leaf = _store_balance(_store_whole_label(begin_cell(), key), balance)
    leaf = leaf.store_bits(shard_account.bits).store_ref(_pruned(shard_account.refs[0]))
    return _store_balance(begin_cell().store_bit_int(1).store_ref(leaf.end_cell()), balance).end_cell()


def _store_whole_label(to: Builder, key: bitarray) -> Builder:
    """The label of a dictionary's only entry, in the long form: hml_long$10."""
    return to.store_bits("10").store_uint(len(key), len(key).bit_length()).store_bits(key)


def _store_balance(to: Builder, balance_nano: int) -> Builder:
    """A `DepthBalanceInfo`: depth 0, these coins, no other currencies."""
    return to.store_uint(0, 5).store_coins(balance_nano).store_bit_int(0)


def _store_shard(to: Builder, workchain: int) -> Builder:
    """A `ShardIdent` of a whole workchain."""
    return to.store_uint(0, 2 + 6).store_int(workchain, 32).store_uint(0, 64)


def _pruned(cell: Cell) -> Cell:
    return _exotic(_PRUNED_BRANCH, b"\x01" + cell.get_hash(0) + _depth(cell), [])


def _merkle_proof(cell: Cell) -> Cell:
    return _exotic(_MERKLE_PROOF, cell.get_hash(0) + _depth(cell), [cell])


def _merkle_update(old: Cell, new: Cell) -> Cell:
    hashes = old.get_hash(0) + new.get_hash(0)
    return _exotic(_MERKLE_UPDATE, hashes + _depth(old) + _depth(new), [_pruned(old), _pruned(new)])


def _depth(cell: Cell) -> bytes:
    depth: bytes = cell.get_depth(0).to_bytes(2, "big")
    return depth


def _exotic(cell_type: int, data: bytes, refs: list[Cell]) -> Cell:
    bits = bitarray()
    bits.frombytes(bytes([cell_type]) + data)
    return Cell(bits, refs, cell_type)
