"""`watch` on the command line: a watchtower, and the charges that are handed to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from chain import charges
from chain.ledger import Network
from chain.settling import SettlePolicy
from chain.voucher import Claim
from chain.watch import Watchtower
from p2p.console import Session
from p2p.foreign import translated
from p2p.home import Home
from p2p.wallet_commands import Wiring


class Sources:
    """Where charges come from: the files and folders that were named or, where none was, the provider's own book."""

    def __init__(self, paths: Sequence[Path], book: Path, network: Network) -> None:
        self._paths = paths
        self._book = book
        self._network = network

    async def read(self) -> Sequence[Claim]:
        """As they are now. Raises `chain.errors`."""
        return await trio.to_thread.run_sync(self._read)

    def _read(self) -> Sequence[Claim]:
        if not self._paths:
            return charges.read_book(self._book, self._network)
        return charges.highest(charge for path in self._paths for charge in charges.read(path, self._network))


async def watch(session: Session, wiring: Wiring) -> None:
    """Watch until told to stop, or write down what there is to be watched. Raises `p2p.errors`."""
    options, network = session.options, session.network()
    network.require_money()
    sources = Sources(options.charges or (), Home(session.config, "payee").book, network.chain_network)
    with translated():
        found = await sources.read()  # a wrong path is told now, and not in a line that scrolls by
        if options.export:
            charges.write(options.export, found, network.chain_network)
            session.story.say(f"{len(found)} channels to be watched are in {options.export}.")
            return
        home = Home(session.config, "payer")
        key = await home.unlock(network.chain_network, session.terminal)
        async with wiring.open_ledger(network, key, home.purse) as ledger:
            if options.faucet:
                await wiring.fund(network, ledger.wallet.address)
            session.trace("ready", wallet=ledger.wallet.address, channels=len(found))
            session.story.say(f"Watching; the fees are paid from {ledger.wallet.address}. Ctrl-C ends it.")
            session.up.set()
            policy = SettlePolicy(risk_nano=session.config.watch.risk_nano, fee_percent=0)
            tower = Watchtower(ledger=ledger, charges=sources.read, policy=policy, report=session.trace)
            await tower.run()
