"""What a lite-server answers: the queries that wallets and channel clients ask, under the names of lite_api.tl."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio
from pytoniq_core import Address, Cell

from . import blocks, tl
from .chain import Chain, Executed
from .store import Block
from .vm import NotAccepted

MAX_WAIT_S = 60
MAX_TRANSACTIONS = 16  # in one answer, as on TON

_NO_STATE = -256  # the exit code for a get method of an account without code
_WITH_RESULT = 1 << 2  # the bit in a method query's mode that asks for the stack
_BY_SEQNO, _BY_LT, _BY_TIME = 1, 2, 4  # modes of a block lookup

Fields = dict[str, Any]

_log = logging.getLogger(__name__)


class QueryFailed(Exception):
    """The server's honest no, with a lite-server's code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LiteServer:
    """Answers queries from a chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._queries: dict[str, Callable[[Fields], bytes]] = {
            "liteServer.getMasterchainInfo": self._masterchain_info,
            "liteServer.getTime": self._time,
            "liteServer.getVersion": self._version,
            "liteServer.getAllShardsInfo": self._all_shards_info,
            "liteServer.lookupBlock": self._lookup_block,
            "liteServer.getAccountState": self._account_state,
            "liteServer.runSmcMethod": self._run_method,
            "liteServer.sendMessage": self._send_message,
            "liteServer.getTransactions": self._transactions,
            "liteServer.getOneTransaction": self._one_transaction,
        }

    async def answer(self, request: bytes) -> bytes:
        """Answer a `liteServer.query`. Whatever goes wrong becomes a `liteServer.error`."""
        try:
            name, fields, rest = tl.decode(request)
            if name == "liteServer.query":
                name, fields, rest = tl.decode(fields["data"])
            if name == "liteServer.waitMasterchainSeqno":
                await self._wait(fields)
                name, fields, _ = tl.decode(rest)
            return self._query(name)(fields)
        except QueryFailed as error:
            return tl.encode_error(error.code, str(error))
        except Exception as error:  # fields may hold anything; the reason goes to the client, the place to the log
            _log.debug("a query failed", exc_info=True)
            return tl.encode_error(621, f"bad query: {error!r}")

    def _query(self, name: str) -> Callable[[Fields], bytes]:
        if name not in self._queries:
            raise QueryFailed(602, f"{name} is not served by a devnet")
        return self._queries[name]

    async def _wait(self, fields: Fields) -> None:
        with trio.move_on_after(min(fields["timeout_ms"] / 1000, MAX_WAIT_S)) as limit:
            await self._chain.wait_for(fields["seqno"])
        if limit.cancelled_caught:
            raise QueryFailed(652, "timeout")

    def _masterchain_info(self, _: Fields) -> bytes:
        first, last = blocks.masterchain_id(self._chain.blocks[0]), blocks.masterchain_id(self._chain.head)
        # There is no zero state; the first block's hashes tell this chain from any other just as well.
        zero_state = {name: first[name] for name in ("workchain", "root_hash", "file_hash")}
        return tl.encode("liteServer.masterchainInfo", last=last, state_root_hash=bytes(32).hex(), init=zero_state)

    def _time(self, _: Fields) -> bytes:
        return tl.encode("liteServer.currentTime", now=self._chain.now())

    def _version(self, _: Fields) -> bytes:
        return tl.encode("liteServer.version", mode=0, version=0x101, capabilities=7, now=self._chain.now())

    def _all_shards_info(self, fields: Fields) -> bytes:
        data = blocks.shard_hashes(self._block(fields["id"]))
        return tl.encode("liteServer.allShardsInfo", id=fields["id"], proof=b"", data=data)

    def _lookup_block(self, fields: Fields) -> bytes:
        mode, workchain = fields["mode"], fields["id"]["workchain"]
        found = next((block for block in self._chain.blocks if _matches(block, mode, fields)), None)
        if found is None or workchain not in (blocks.MASTERCHAIN, blocks.BASECHAIN):
            raise QueryFailed(651, "no such block")
        name = blocks.masterchain_id(found) if workchain == blocks.MASTERCHAIN else blocks.shard_id(found)
        proof = blocks.header_proof(found, workchain)
        return tl.encode("liteServer.blockHeader", id=name, mode=0, header_proof=proof)

    def _account_state(self, fields: Fields) -> bytes:
        block, address = self._block(fields["id"]), _address(fields["account"])
        account = self._chain.account(address, block.seqno)
        proof = blocks.account_proof(block, address, account)
        return tl.encode(
            "liteServer.accountState",
            id=fields["id"],
            shardblk=proof.shard_block,
            shard_proof=b"",
            proof=proof.proof,
            state=b"" if account is None else account.refs[0].to_boc(),
        )

    def _run_method(self, fields: Fields) -> bytes:
        block, address = self._block(fields["id"]), _address(fields["account"])
        arguments = Cell.one_from_boc(fields["params"])
        result = self._chain.run_get_method(address, fields["method_id"], arguments, block)
        return tl.encode(
            "liteServer.runMethodResult",
            mode=fields["mode"] & _WITH_RESULT,
            id=fields["id"],
            shardblk=blocks.shard_id(block),
            exit_code=_NO_STATE if result is None else result.exit_code,
            result=b"" if result is None else result.stack.to_boc(),
        )

    def _send_message(self, fields: Fields) -> bytes:
        try:
            self._chain.send_external(Cell.one_from_boc(fields["body"]))
        except NotAccepted as error:
            raise QueryFailed(0, f"cannot apply external message to current state : {error}") from error
        return tl.encode("liteServer.sendMsgStatus", status=1)

    def _transactions(self, fields: Fields) -> bytes:
        """The one that is named and those before it, newest first."""
        history = self._chain.transactions(_address(fields["account"]))
        last = _find(history, fields["lt"])
        if last is None or history[last].cell.hash.hex() != fields["hash"]:
            raise QueryFailed(651, "no such transaction")
        count = max(0, min(fields["count"], MAX_TRANSACTIONS))
        found = history[max(0, last + 1 - count) : last + 1][::-1]
        ids = [blocks.shard_id(self._chain.blocks[each.block - 1]) for each in found]
        bag = blocks.bag_of_cells([each.cell for each in found]) if found else b""
        return tl.encode("liteServer.transactionList", ids=ids, transactions=bag)

    def _one_transaction(self, fields: Fields) -> bytes:
        history = self._chain.transactions(_address(fields["account"]))
        index = _find(history, fields["lt"])
        in_block = index is not None and history[index].block == fields["id"]["seqno"]
        bag = history[index].cell.to_boc() if index is not None and in_block else b""
        return tl.encode("liteServer.transactionInfo", id=fields["id"], proof=b"", transaction=bag)

    def _block(self, name: Fields) -> Block:
        """The block of a masterchain id. A client that has outlived its devnet is told so."""
        seqno = int(name["seqno"])
        if 1 <= seqno <= len(self._chain.blocks):
            block = self._chain.blocks[seqno - 1]
            if name["root_hash"] == blocks.masterchain_id(block)["root_hash"]:
                return block
        raise QueryFailed(651, "no such masterchain block here")


def _matches(block: Block, mode: int, fields: Fields) -> bool:
    if mode & _BY_LT:
        return bool(block.start_lt <= fields["lt"] <= block.end_lt)
    if mode & _BY_TIME:
        return bool(block.time >= fields["utime"])
    return bool(mode & _BY_SEQNO and block.seqno == fields["id"]["seqno"])


def _find(history: Sequence[Executed], lt: int) -> int | None:
    return next((i for i, each in enumerate(history) if each.transaction.lt == lt), None)


def _address(account: Fields) -> Address:
    return Address((account["workchain"], bytes.fromhex(account["id"])))
