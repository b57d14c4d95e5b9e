"""TON over its lite-servers, under Trio: the only file that imports pytoniq's clients.

pytoniq speaks asyncio, so it runs on a trio-asyncio loop that `open_ton` opens; nothing of it or of its exceptions
passes this file. What several servers say is compared by a `chain.panel`; one connection is kept to each that is asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import trio
import trio_asyncio
from pytoniq import BlockIdExt, LiteClient, LiteServerError
from pytoniq_core import Address
from pytoniq_core.proof.check_proof import ProofError

from chain.errors import ChainError, LedgerUnavailable, NetworkMismatch
from chain.ledger import GLOBAL_IDS, Network
from chain.panel import Dropped, Panel, Untrue
from chain.purse import Purse
from chain.tonledger import Account, Head, TonLedger
from chain.wallet import DEVNET, WalletKey

ANSWER_TIMEOUT_S = 10.0
TRUST_LEVEL = 2  # account state is proven against a block; the block is the server's word
LAG_BLOCKS = 75  # that a server may be behind another: half a minute, or some with slower blocks
CLOCK_SPREAD_S = 30  # by which servers' clocks may differ
HISTORY_LIMIT = 1000  # transactions of an account that are read back at most

_PAGE = 16  # transactions in one answer
_BASECHAIN, _MASTERCHAIN, _WHOLE_SHARD = 0, -1, -(1 << 63)

T = TypeVar("T")


class LiteServer:
    """One of the servers, connected to when it is first needed and again whenever the connection is gone."""

    def __init__(self, entry: _Entry, loop: trio_asyncio.TrioEventLoop, chain: _Chain) -> None:
        self._entry = entry
        self.name, self.owner = f"{entry.host}:{entry.port}", entry.key
        self._loop = loop
        self._chain = chain
        self._client: Any = None  # a LiteClient, or none
        self._connecting = trio.Lock()

    async def aclose(self) -> None:
        """End the connection. Never raises."""
        with trio.CancelScope(shield=True):
            await self._drop(self._client)

    async def ask(self, question: Callable[[LiteClient], Awaitable[T]]) -> T:
        """Ask it, and once more over a new connection if the one there was has just grown old.

        Raises `LedgerUnavailable`, `NetworkMismatch` or `Untrue`.
        """
        if self._client is not None:
            with suppress(LedgerUnavailable):
                return await self._attempt(question)
        return await self._attempt(question)

    async def _attempt(self, question: Callable[[LiteClient], Awaitable[T]]) -> T:
        client = None
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                client = await self._connected()
                return await self._run(lambda: question(client))
        except (NetworkMismatch, Untrue):
            raise
        except ProofError as error:
            raise Untrue(f"a false proof: {error}") from error
        # A dropped connection shows itself as an AttributeError, an AssertionError, a KeyError, an asyncio
        # cancellation, a LiteClientError or an OSError. None is of use here.
        except (Exception, asyncio.CancelledError) as error:
            with trio.CancelScope(shield=True):
                await self._drop(client)
            raise LedgerUnavailable(f"{type(error).__name__}: {error}".strip(": ")) from error

    async def _connected(self) -> LiteClient:
        async with self._connecting:
            if self._client is not None and not self._client.inited:
                await self._drop(self._client)
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> LiteClient:
        client = LiteClient(*self._entry, int(ANSWER_TIMEOUT_S), trust_level=TRUST_LEVEL)
        try:
            await self._run(lambda: _start(client))
            self._chain.check(await self._run(lambda: _identity(client)))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._run(client.close)
            raise
        return client

    async def _drop(self, client: Any) -> None:
        """Close `client` if it is still the one in use."""
        if client is not None and client is self._client:
            self._client = None
            await self._run(client.close)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def aio() -> T:
            return await work()

        return await self._loop.run_aio_coroutine(aio())  # type: ignore[no-any-return]


class LiteServers:
    """The questions that a ledger asks. Raises `LedgerUnavailable` when too few servers answer, `NetworkMismatch`."""

    def __init__(self, panel: Panel[LiteServer]) -> None:
        self._panel = panel

    async def now(self) -> int:
        """The servers' clock, unix seconds."""

        async def ask(client: LiteClient) -> int:
            now: int = (await client.get_time())["now"]
            return now

        return min(await self._panel.agreed(_to(ask), lambda a, b: abs(a - b) <= CLOCK_SPREAD_S))

    async def account(self, address: Address) -> Account:
        """As of the newest block that every server asked has: its state, or that there is none, as they all say."""
        newest = await self._panel.agreed(_to(_newest_seqno), lambda a, b: abs(a - b) <= LAG_BLOCKS)

        async def ask(client: LiteClient) -> tuple[object, Account]:
            block, _ = await client.lookup_block(_MASTERCHAIN, _WHOLE_SHARD, seqno=min(newest))
            return await _account(client, address, block)

        said = await self._panel.agreed(_to(ask), lambda a, b: a[0] == b[0])
        return said[0][1]

    async def history(self, address: Address, head: Head | None, after_lt: int = 0) -> list[Any]:
        """Transactions from `head` back to, and without, lt `after_lt`, newest first; each proven by the one after."""

        async def page(client: LiteClient, head: Head) -> list[Any]:
            found, _ = await client.raw_get_transactions(address, _PAGE, head.lt, head.hash)
            expected = head.hash
            for transaction in found:
                if transaction.cell.hash != expected:
                    raise Untrue("a transaction that the account does not have")
                expected = transaction.prev_trans_hash
            if not found:
                raise Untrue("no transaction where the account has one")
            return list(found)

        found: list[Any] = []
        while head is not None and head.lt > after_lt and len(found) < HISTORY_LIMIT:
            start = head
            found += await self._panel.first(_to(lambda client, start=start: page(client, start)))  # type: ignore[misc]
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

        def same(one: Any, other: Any) -> bool:
            return bool(one.cell.hash == other.cell.hash if one and other else one is other)

        # With no state to prove it by, it is what the servers say.
        return (await self._panel.agreed(_to(ask), same))[0]

    async def send(self, message: bytes) -> str:
        """Hand in an external message; to send one twice does no harm. Returns why all refused it, or nothing."""

        async def ask(client: LiteClient) -> str:
            try:
                await client.raw_send_message(message)
            except LiteServerError as error:
                return str(error.message) or "refused"
            return ""

        # To several: one alone could say that it was sent, and keep it.
        return min(await self._panel.each(_to(ask)), key=len)


class _Entry(NamedTuple):
    """A lite-server in a TON config."""

    host: str
    port: int
    key: str  # Ed25519, base64


class _Chain(NamedTuple):
    """What a server must say of itself."""

    network: Network
    zero_state: str  # the first state's hash, in hex; empty where the config does not tell

    def check(self, identity: tuple[int, str]) -> None:
        """Raises `NetworkMismatch`. The zero state tells networks apart that share a global id, as a devnet may."""
        global_id, zero_state = identity
        if global_id != self.network.global_id:
            raise NetworkMismatch(f"the server's global id is {global_id} and not {self.network.global_id}")
        if self.zero_state and zero_state != self.zero_state:
            raise NetworkMismatch("the server's chain began with another state than the config says")


def _to(question: Callable[[LiteClient], Awaitable[T]]) -> Callable[[LiteServer], Awaitable[T]]:
    return lambda server: server.ask(question)


async def _newest_seqno(client: LiteClient) -> int:
    seqno: int = (await client.get_masterchain_info())["last"]["seqno"]
    return seqno


async def _account(client: LiteClient, address: Address, block: BlockIdExt) -> tuple[object, Account]:
    """An account as of `block`, and all that is said about it in a form that can be compared."""
    account, shard_account = await client.raw_get_account_state(address, block)
    if account is None or account.storage is None:
        found, state_hash = Account(0, None, None), b""
    else:
        state = account.storage.state
        init = state.state_init if state.type_ == "account_active" else None
        head = Head(shard_account.last_trans_lt, shard_account.last_trans_hash)
        found = Account(account.storage.balance.grams, init, head)
        state_hash = init.serialize().hash if init else b""
    return (block.root_hash, found.balance_nano, state_hash, found.head), found


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


async def _identity(client: LiteClient) -> tuple[int, str]:
    info = await client.get_masterchain_info()
    _, block = await client.lookup_block(_MASTERCHAIN, _WHOLE_SHARD, seqno=info["last"]["seqno"])
    return block.global_id, info["init"]["root_hash"]


@asynccontextmanager
async def open_ton(
    config: Mapping[str, Any] | Path,
    key: WalletKey,
    *,
    network: Network,
    purse: Purse | None = None,
    dropped: Dropped = lambda _server, _why: None,
) -> AsyncIterator[TonLedger]:
    """The wallet of `key` on the network that `config`, a TON global config or a file with one, leads to, kept in
    order with other processes and within its owner's limits by `purse`. `dropped` is told which server is not to be
    believed, and why.

    Nothing is asked before the ledger is used, so a chain that is down does not keep a program from starting. Raises
    `NetworkMismatch` if the config names another network, and `ChainError` if it is not a config.
    """
    if isinstance(config, Path):
        config = await _read(config)
    entries, chain = _parse(config, network)
    failure: Exception | None = None
    async with trio_asyncio.open_loop() as loop:
        servers = [LiteServer(entry, loop, chain) for entry in entries]
        try:
            yield TonLedger(LiteServers(Panel(servers, voices_needed(network), dropped)), key, network, purse)
        except Exception as error:
            # Raised from in here, it would come out of the loop's nurseries as a group of a group.
            failure = error
        finally:
            for server in servers:
                await server.aclose()
    if failure is not None:
        raise failure


def voices_needed(network: Network) -> int:
    """How many servers must say the same: a devnet has one, and where money is real one could be anybody's."""
    return 1 if network.name == DEVNET else 2


async def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(await trio.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ChainError(f"cannot read the TON config {path}: {error}") from error
    if not isinstance(config, dict):
        raise ChainError(f"{path} is not a TON config")
    return config


def _parse(config: Mapping[str, Any], network: Network) -> tuple[list[_Entry], _Chain]:
    told = config.get("bombyx")
    if told and (told.get("name"), told.get("global_id")) != (network.name, network.global_id):
        raise NetworkMismatch(f"the config is for {told.get('name')} ({told.get('global_id')}), not for {network.name}")
    if network.global_id != GLOBAL_IDS.get(network.name, network.global_id):
        raise NetworkMismatch(f"{network.name} has not the global id {network.global_id}")
    try:
        entries = [
            _Entry(socket.inet_ntoa(struct.pack(">i", each["ip"])), int(each["port"]), str(each["id"]["key"]))
            for each in config.get("liteservers", ())
        ]
        zero_state = base64.b64decode(config.get("validator", {}).get("zero_state", {}).get("root_hash", ""))
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ChainError(f"the TON config cannot be read: {error!r}") from error
    named, needed = len({entry.key for entry in entries}), voices_needed(network)
    if named < needed:
        raise ChainError(f"the TON config names {named or 'no'} lite-server, and on {network.name} {needed} must agree")
    return entries, _Chain(network, zero_state.hex())
