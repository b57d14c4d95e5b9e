"""TON over its lite-servers, under Trio: the only file that imports pytoniq's clients.

pytoniq speaks asyncio, so it runs on a trio-asyncio loop that `open_ton` opens; nothing of it or of its exceptions
passes this file. One connection is kept to one of the configured servers; whatever fails moves on to the next.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio_asyncio
from pytoniq import BlockIdExt, LiteClient, LiteServerError
from pytoniq_core import Address

from chain.errors import ChainError, LedgerUnavailable, NetworkMismatch
from chain.ledger import Network
from chain.purse import Purse
from chain.tonledger import Account, Head, TonLedger
from chain.wallet import WalletKey

ANSWER_TIMEOUT_S = 10.0
TRUST_LEVEL = 2  # account state is proven against a block; the block is the server's word
HISTORY_LIMIT = 1000  # transactions of an account that are read back at most

_PAGE = 16  # transactions in one answer
_BASECHAIN, _MASTERCHAIN, _WHOLE_SHARD = 0, -1, -(1 << 63)

T = TypeVar("T")


class LiteServers:
    """The questions that a ledger asks. Raises `LedgerUnavailable` when no server answers, `NetworkMismatch`."""

    def __init__(
        self, servers: Sequence[Mapping[str, Any]], loop: trio_asyncio.TrioEventLoop, network: Network
    ) -> None:
        self._servers = servers
        self._loop = loop
        self._network = network
        self._next = 0
        self._client: LiteClient | None = None
        self._connecting = trio.Lock()

    async def aclose(self) -> None:
        """End the connection. Never raises."""
        with trio.CancelScope(shield=True):
            await self._drop(self._client)

    async def now(self) -> int:
        """The server's clock, unix seconds."""
        answer = await self._ask(lambda client: client.get_time())
        now: int = answer["now"]
        return now

    async def account(self, address: Address) -> Account:
        """As of the newest block."""

        async def ask(client: LiteClient) -> Account:
            block = BlockIdExt.from_dict((await client.get_masterchain_info())["last"])
            account, shard_account = await client.raw_get_account_state(address, block)
            if account is None or account.storage is None:
                return Account(0, None, None)
            state = account.storage.state
            return Account(
                account.storage.balance.grams,
                state.state_init if state.type_ == "account_active" else None,
                Head(shard_account.last_trans_lt, shard_account.last_trans_hash),
            )

        return await self._ask(ask)

    async def history(self, address: Address, head: Head | None, after_lt: int = 0) -> list[Any]:
        """Transactions from `head` back to, and without, lt `after_lt`, newest first; each proven by the one after."""

        async def page(client: LiteClient, head: Head) -> list[Any]:
            found, _ = await client.raw_get_transactions(address, _PAGE, head.lt, head.hash)
            expected = head.hash
            for transaction in found:
                if transaction.cell.hash != expected:
                    raise ValueError("a transaction that the account does not have")
                expected = transaction.prev_trans_hash
            return list(found)

        found: list[Any] = []
        while head is not None and head.lt > after_lt and len(found) < HISTORY_LIMIT:
            start = head
            found += await self._ask(lambda client, start=start: page(client, start))  # type: ignore[misc]
            last = found[-1]
            head = Head(last.prev_trans_lt, last.prev_trans_hash) if last.prev_trans_lt else None
        return [transaction for transaction in found if transaction.lt > after_lt]

    async def transaction(self, address: Address, lt: int) -> Any | None:
        """The account's transaction at `lt`, also if the account is gone by now; `None` if there is none."""
        # A server looks for the shard that holds an account whose id begins with these 64 bits.
        shard = int.from_bytes(address.hash_part[:8], "big", signed=True)

        async def ask(client: LiteClient) -> Any:
            block, _ = await client.lookup_block(_BASECHAIN, shard, lt=lt)
            return await client.get_one_transaction(address, lt, block)

        return await self._ask(ask)

    async def send(self, message: bytes) -> str:
        """Hand in an external message; to send one twice does no harm. Returns why it was refused, or nothing."""

        async def ask(client: LiteClient) -> str:
            try:
                await client.raw_send_message(message)
            except LiteServerError as error:
                return str(error.message) or "refused"
            return ""

        return await self._ask(ask)

    async def _ask(self, question: Callable[[LiteClient], Awaitable[T]]) -> T:
        """Ask one server, then the others, then the first once more: its connection may just have been old."""
        failure = ""
        for _ in range(len(self._servers) + 1):
            client = None
            try:
                client = await self._connected()
                return await self._run(lambda client=client: question(client))  # type: ignore[misc]
            except NetworkMismatch:
                raise
            # A dropped connection shows itself as an AttributeError, an AssertionError, a KeyError, an asyncio
            # cancellation, a LiteClientError or an OSError; a false proof as a ProofError. None is of use here.
            except (Exception, asyncio.CancelledError) as error:
                failure = f"{type(error).__name__}: {error}".strip(": ")
                await self._drop(client)
        raise LedgerUnavailable(f"no lite-server answered ({failure})")

    async def _connected(self) -> LiteClient:
        async with self._connecting:
            if self._client is not None and not self._client.inited:
                await self._drop(self._client)
            if self._client is None:
                self._client = await self._connect(self._servers[self._next % len(self._servers)])
            return self._client

    async def _connect(self, server: Mapping[str, Any]) -> LiteClient:
        host = socket.inet_ntoa(struct.pack(">i", server["ip"]))
        client = LiteClient(host, server["port"], server["id"]["key"], int(ANSWER_TIMEOUT_S), trust_level=TRUST_LEVEL)
        try:
            await self._run(lambda: _start(client))
            global_id = await self._run(lambda: _global_id(client))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._run(client.close)
            raise
        if global_id != self._network.global_id:
            await self._run(client.close)
            raise NetworkMismatch(f"the server's global id is {global_id} and not {self._network.global_id}")
        return client

    async def _drop(self, client: LiteClient | None) -> None:
        """Close `client` if it is still the one in use; the next question goes to the next server."""
        if client is self._client:
            self._client = None
            self._next += 1
            if client is not None:
                await self._run(client.close)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def aio() -> T:
            return await work()

        with trio.fail_after(ANSWER_TIMEOUT_S):
            return await self._loop.run_aio_coroutine(aio())  # type: ignore[no-any-return]


async def _start(client: LiteClient) -> None:
    """Connect, without pytoniq's background work."""
    await client.connect()
    # It would ask for every new block, several times a second on mainnet; we ask for the newest when we need it.
    client.updater.cancel()
    client.pinger.cancel()
    # Its listener polls 50 times a second while nothing is asked. A question that is answered already keeps it
    # waiting at the socket instead, where it also sees at once that the server has gone.
    answered = client.loop.create_future()
    answered.set_result({})
    client.tasks["listening"] = answered


async def _global_id(client: LiteClient) -> int:
    last = (await client.get_masterchain_info())["last"]
    _, block = await client.lookup_block(_MASTERCHAIN, _WHOLE_SHARD, seqno=last["seqno"])
    global_id: int = block.global_id
    return global_id


@asynccontextmanager
async def open_ton(
    config: Mapping[str, Any] | Path, key: WalletKey, *, network: Network, purse: Purse | None = None
) -> AsyncIterator[TonLedger]:
    """The wallet of `key` on the network that `config`, a TON global config or a file with one, leads to, kept in
    order with other processes and within its owner's limits by `purse`.

    Nothing is asked before the ledger is used, so a chain that is down does not keep a program from starting. Raises
    `NetworkMismatch` if the config names another network, and `ChainError` if it is not a config.
    """
    if isinstance(config, Path):
        config = await _read(config)
    _check_config(config, network)
    failure: Exception | None = None
    async with trio_asyncio.open_loop() as loop:
        servers = LiteServers(config["liteservers"], loop, network)
        try:
            yield TonLedger(servers, key, network, purse)
        except Exception as error:
            # Raised from in here, it would come out of the loop's nurseries as a group of a group.
            failure = error
        finally:
            await servers.aclose()
    if failure is not None:
        raise failure


async def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(await trio.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ChainError(f"cannot read the TON config {path}: {error}") from error
    if not isinstance(config, dict):
        raise ChainError(f"{path} is not a TON config")
    return config


def _check_config(config: Mapping[str, Any], network: Network) -> None:
    if not config.get("liteservers"):
        raise ChainError("the TON config names no lite-server")
    told = config.get("bombyx")
    if told and (told.get("name"), told.get("global_id")) != (network.name, network.global_id):
        raise NetworkMismatch(f"the config is for {told.get('name')} ({told.get('global_id')}), not for {network.name}")
