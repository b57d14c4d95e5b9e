"""What tests on a devnet have in common: wallets with money, channels, and a line that can be cut."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
import trio.testing

from chain.devnet.control import open_control
from chain.keys import Ed25519Signer
from chain.ledger import ChannelTerms, Ledger, Network
from chain.ton import open_ton
from chain.tonledger import TonLedger
from chain.voucher import VOUCHER_TAG, Signer, sign_claim
from chain.wallet import WalletKey

GRAM = 10**9
CHALLENGE_S = 3600
RENT_NANO = 1000  # more than what a channel pays for existing during one test, with its time travel
VOUCHER_KEY, RELEASE_KEY = Ed25519Signer(b"\3" * 32), Ed25519Signer(b"\4" * 32)


class Devnet(msgspec.Struct):
    """A running `python -m chain.devnet`."""

    config: dict[str, Any]
    network: Network

    async def fund(self, key: WalletKey, amount_nano: int = 20 * GRAM) -> None:
        async with open_control(self.config["bombyx"]["control"]) as control:
            await control.faucet(key.address(self.network), amount_nano)

    async def advance(self, seconds: int) -> None:
        async with open_control(self.config["bombyx"]["control"]) as control:
            await control.advance(seconds)

    @asynccontextmanager
    async def funded(self, *keys: WalletKey) -> AsyncIterator[list[TonLedger]]:
        """Ledgers of wallets that hold money and have been deployed, by paying each other a little."""
        for key in keys:
            await self.fund(key)
        async with open_ton(self.config, keys[0], network=self.network) as ledger:
            await ledger.transfer(ledger.wallet.address, 1)
            if len(keys) == 1:
                yield [ledger]
            else:
                async with self.funded(*keys[1:]) as others:
                    yield [ledger, *others]


@contextmanager
def running_devnet(folder: Path) -> Iterator[Devnet]:
    path = folder / "ton.json"
    command = [sys.executable, "-m", "chain.devnet", "--json", "--until-stdin-closes", "--config-out", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "the devnet did not start"
        config = json.loads(path.read_bytes())
        yield Devnet(config, Network(config["bombyx"]["name"], config["bombyx"]["global_id"]))


fresh = iter(range(1, 1 << 20))


def new_key() -> WalletKey:
    return WalletKey(next(fresh).to_bytes(32, "big"))


async def new_terms(payer: Ledger, payee: Ledger) -> ChannelTerms:
    return ChannelTerms(
        payer=payer.wallet.address,
        payee=payee.wallet.address,
        payer_key=VOUCHER_KEY.public_key,
        payee_key=RELEASE_KEY.public_key,
        challenge_period_s=CHALLENGE_S,
        open_before=await payer.now() + 600,
        salt=next(fresh).to_bytes(32, "big"),
    )


def signed(ledger: Ledger, channel: bytes, amount: int, key: Signer = VOUCHER_KEY, tag: int = VOUCHER_TAG) -> bytes:
    return sign_claim(key, tag, ledger.network.global_id, channel, amount).signature


async def opened(payer: Ledger, payee: Ledger, deposit_nano: int = GRAM) -> bytes:
    terms = await new_terms(payer, payee)
    await payer.open(terms, deposit_nano)
    return payer.channel_id(terms)


class Relay:
    """Stands between client and lite-server, and can fall silent, hang up and come back."""

    def __init__(self, config: dict[str, Any], nursery: trio.Nursery) -> None:
        self._server = config["liteservers"][0]
        self._nursery = nursery
        self._port = 0
        self._serving = trio.CancelScope()
        self.chunks_left = 0  # that the client may still send before all is cut; 0 for no end
        self.was_cut = trio.Event()
        self.back = trio.Event()

    async def start(self) -> None:
        (listener,) = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
        self._port = listener.socket.getsockname()[1]
        self._serving = trio.CancelScope()
        self._nursery.start_soon(self._serve, listener, self._serving)

    async def cut(self) -> None:
        self._serving.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def cut_after(self, chunks: int) -> None:
        """Cut the line when the client has sent so many times, and be back a little later."""
        self.back = trio.Event()
        self.was_cut = trio.Event()
        self.chunks_left = chunks
        await self.was_cut.wait()
        await trio.sleep(0.2)
        await self.start()
        self.back.set()

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        return config | {"liteservers": [self._server | {"port": self._port}]}

    async def _serve(self, listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(self._relay, [listener])

    async def _relay(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._server["port"])
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, client, server, client, nursery.cancel_scope)
            nursery.start_soon(self._copy, server, client, client, nursery.cancel_scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, client: trio.SocketStream, done: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                if source is client and self.chunks_left:
                    self.chunks_left -= 1
                    if not self.chunks_left:
                        self._serving.cancel()
                        self.was_cut.set()
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        done.cancel()
