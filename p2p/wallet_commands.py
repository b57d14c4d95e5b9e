"""`wallet` on the command line: show, make, lock, back up and empty a role's wallet."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio
from rich.markup import escape

from chain import address, backup, mnemonic, wallet
from chain.ledger import Ledger
from chain.purse import Purse
from chain.wallet import DEVNET, Bare, Lock, WalletKey
from p2p.arguments import PROGRAM
from p2p.console import Session
from p2p.errors import LocalError
from p2p.foreign import translated
from p2p.gram import nano_of
from p2p.home import ROLE_NAMES, Home
from p2p.network_file import NetworkFile
from p2p.purchase import amount

WARNING = "Whoever sees these words can take all that the wallet holds. Nobody honest will ever ask you for them."


class Paymaster(Ledger, Protocol):
    """A ledger that can also pay somebody without a channel."""

    async def transfer(self, to: str, amount_nano: int) -> str:
        """Returns the hash of the wallet's transaction, hex."""
        ...


@dataclass(frozen=True)
class Wiring:
    """What stands behind the seams, given by `p2p.node`."""

    open_ledger: Callable[[NetworkFile, WalletKey, Purse], AbstractAsyncContextManager[Paymaster]]
    fund: Callable[[NetworkFile, str], Awaitable[None]]


async def run(session: Session, wiring: Wiring) -> None:
    """The action that was asked for. Raises `p2p.errors`."""
    action = session.options.action
    if action in WITH_LEDGER:
        session.network().require_money()
        await WITH_LEDGER[action](session, wiring)
    else:
        await ON_DISK[action](session)


async def show(session: Session, wiring: Wiring) -> None:
    """Address, balance, and what protects it."""
    home, network = session.home(), session.network()
    key = await home.unlock(network.chain_network, session.terminal)
    with translated():
        async with wiring.open_ledger(network, key, home.purse) as ledger:
            _tell(session, home, network, ledger.wallet.address, await ledger.wallet.balance())


async def fund(session: Session, wiring: Wiring) -> None:
    """Play money from a devnet's faucet."""
    network = session.network()
    key = await session.home().unlock(network.chain_network, session.terminal)
    await wiring.fund(network, key.address(network.chain_network))
    await show(session, wiring)


async def send(session: Session, wiring: Wiring) -> None:
    """Withdraw to another address, once it was confirmed."""
    options, home, network = session.options, session.home(), session.network()
    nano = nano_of(options.amount)
    with translated():
        to = address.parse(options.address, network.chain_network).address
        key = await home.unlock(network.chain_network, session.terminal)
        if not options.yes and not session.terminal.agrees(f"Send {amount(nano)} to {to} on {network.mark.name}."):
            raise LocalError("nothing was sent")
        async with wiring.open_ledger(network, key, home.purse) as ledger:
            transaction = await ledger.transfer(options.address, nano)
            balance = await ledger.wallet.balance()
    result = {"to": to, "sent_nano": nano, "transaction": transaction, "balance_nano": balance}
    _say(session, result, f"Sent {amount(nano)} to {to}. The wallet holds {amount(balance)}.")


async def create(session: Session) -> None:
    """A wallet with fresh words."""
    session.network().require_money()
    network = session.network().chain_network
    _require_none(session.home())
    bare = session.options.no_passphrase or network.name == DEVNET
    key = await _store(session, lambda: WalletKey.from_words(mnemonic.generate()), bare=bare)
    hint = f"Keep a copy: `{PROGRAM} wallet export-words` shows its words, `{PROGRAM} wallet backup FILE` saves it all."
    _say(session, {"address": key.address(network)}, f"Your wallet is {key.address(network)}.\n{hint}")


async def import_words(session: Session) -> None:
    """A wallet from the words of another, which may hold real money: so it is locked on a devnet as well."""
    network = session.network().chain_network
    _require_none(session.home())
    with translated():
        words = mnemonic.parse(session.terminal.words())
    key = await _store(session, lambda: WalletKey.from_words(words), bare=session.options.no_passphrase)
    _say(session, {"address": key.address(network)}, f"Your wallet is {key.address(network)}.")


async def export_words(session: Session) -> None:
    """Show the words, to a terminal and after a warning."""
    if session.options.json:
        raise LocalError("the words are shown on a terminal alone")
    home, network = session.home(), session.network().chain_network
    if not session.terminal.agrees(f"{WARNING} They will stand on this screen."):
        raise LocalError("nothing was shown")
    key = await home.unlock(network, session.terminal)
    if not key.words:
        raise LocalError(f"this wallet was made without words: {PROGRAM} wallet backup FILE saves its key")
    session.terminal.show_secret(" ".join(key.words))


async def change_passphrase(session: Session) -> None:
    """Lock the wallet with another passphrase, or with none."""
    home, network = session.home(), session.network().chain_network
    with translated():
        file = wallet.read(home.wallet)
        old = session.terminal.passphrase() if file.locked else ""
        key = await trio.to_thread.run_sync(file.unlock, old)
        bare = _bare(session) if session.options.no_passphrase else None
        lock: Lock = bare or session.terminal.choose_other_passphrase()
        await trio.to_thread.run_sync(wallet.relock, home.wallet, key, lock)
    protection = "no passphrase" if bare else "a new passphrase"
    _say(session, {"address": key.address(network), "locked": not bare}, f"The wallet has {protection} now.")


async def save_backup(session: Session) -> None:
    """Keys and book in one file. A wallet's own passphrase locks it too, so that there is one to remember."""
    home, network, path = session.home(), session.network().chain_network, session.options.file
    if path.exists():
        raise LocalError(f"{path} exists already: name a new file")
    with translated():
        file = wallet.read(home.wallet)
        if file.locked:
            passphrase = session.terminal.passphrase()
            await trio.to_thread.run_sync(file.unlock, passphrase)
        else:
            passphrase = session.terminal.choose_passphrase()
        taken = await trio.to_thread.run_sync(backup.take, home.folder, home.role, network)
        await trio.to_thread.run_sync(backup.write, path, taken, passphrase)
    result = {"file": str(path), "keys": sorted(taken.keys), "book_bytes": len(taken.book)}
    _say(session, result, f"{path} holds the {ROLE_NAMES[home.role]}'s keys and book.")


async def restore(session: Session) -> None:
    """Keys and book back from a file."""
    home, path = session.home(), session.options.file
    if any(home.folder.iterdir()):
        raise LocalError(f"{home.folder} is not empty: name another place with --home, or move away what is there")
    with translated():
        saved = await trio.to_thread.run_sync(backup.read, path, session.terminal.passphrase())
        if saved.role != home.role:
            raise LocalError(
                f"{path} is a {ROLE_NAMES[saved.role]}'s: give --provider for one, and nothing for a client"
            )
        await trio.to_thread.run_sync(backup.restore, saved, home.folder, int(time.time()))
    _say(
        session,
        {"network": saved.network.name, "keys": sorted(saved.keys), "book_bytes": len(saved.book)},
        f"Restored to {home.folder}, for {saved.network.name}. Channels from before are not used any more: "
        f"they are to be settled and closed, see {PROGRAM} channels.",
    )


async def _store(session: Session, make: Callable[[], WalletKey], *, bare: bool) -> WalletKey:
    """A new wallet file, locked unless `bare`."""
    path = session.home().wallet
    with translated():
        lock: Lock = _bare(session) if bare else session.terminal.choose_passphrase()
        return await trio.to_thread.run_sync(lambda: wallet.store(path, make(), lock))


def _bare(session: Session) -> Bare:
    return Bare.DEVNET if session.network().mark.name == DEVNET else Bare.BY_CHOICE


def _require_none(home: Home) -> None:
    """Said before anything is asked for; `wallet.store` makes sure."""
    if home.wallet.exists():
        raise LocalError(f"there is a wallet already: {home.wallet}")


def _tell(session: Session, home: Home, network: NetworkFile, raw: str, balance_nano: int) -> None:
    spent, limit = home.purse.spent_today_nano(), session.config.wallet.day_max_nano
    locked = wallet.read(home.wallet).locked
    result = {"address": raw, "balance_nano": balance_nano, "spent_today_nano": spent, "locked": locked}
    if session.options.json:
        session.print_json(result)
        return
    session.story.table(
        f"wallet of the {ROLE_NAMES[home.role]} on {network.mark.name}",
        [
            ("address", raw),
            ("in other wallets", address.friendly(raw, network.chain_network)),
            ("balance", amount(balance_nano)),
            ("spent today", f"{amount(spent)} of {amount(limit)}"),
            ("protected by", "a passphrase" if locked else "the file's permissions alone"),
        ],
    )


def _say(session: Session, result: dict[str, Any], line: str) -> None:
    if session.options.json:
        session.print_json(result)
    else:
        session.story.say(escape(line))


WITH_LEDGER: dict[str, Callable[[Session, Wiring], Awaitable[None]]] = {"show": show, "fund": fund, "send": send}
ON_DISK: dict[str, Callable[[Session], Awaitable[None]]] = {
    "create": create,
    "import": import_words,
    "export-words": export_words,
    "passphrase": change_passphrase,
    "backup": save_backup,
    "restore": restore,
}
