"""What one role keeps on disk: its keys, its book, and what it spent."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from chain import backup, wallet
from chain.errors import WalletUnusable
from chain.ledger import Network
from chain.purse import Limits, Purse
from chain.records import Role
from chain.wallet import Bare, WalletKey
from p2p.arguments import PROGRAM
from p2p.config import Config
from p2p.errors import LocalError
from p2p.foreign import translated
from p2p.terminal import Terminal

ROLE_NAMES: dict[Role, str] = {"payer": "client", "payee": "provider"}


class Home:
    """The files of `role`."""

    def __init__(self, config: Config, role: Role) -> None:
        """Makes the folder. Raises `LocalError`."""
        self.role: Role = role
        self.folder = config.home_path / ROLE_NAMES[role]
        wallet_folder = self._wallet_folder(config)
        self.wallet = wallet_folder / backup.WALLET_FILE
        self.channel_key = self.folder / backup.CHANNEL_KEY_FILE
        self.identity = self.folder / backup.IDENTITY_FILE
        self.book = self.folder / backup.BOOK_FILE
        limits = Limits(config.wallet.day_max_nano, config.wallet.channel_max_nano)
        self.purse = Purse(wallet_folder, limits, time.time)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make {self.folder}: {error.strerror}; name another place with --home") from None

    def _wallet_folder(self, config: Config) -> Path:
        """A client without a wallet pays from its provider's, if there is one: from what that earns."""
        earning = config.home_path / ROLE_NAMES["payee"]
        own, other = (folder / backup.WALLET_FILE for folder in (self.folder, earning))
        return earning if other.exists() and not own.exists() else self.folder

    def has_wallet(self, network: Network) -> bool:
        """Whether there is one, or one is made on first use."""
        return self.wallet.exists() or network.name == wallet.DEVNET

    async def unlock(self, network: Network, terminal: Terminal) -> WalletKey:
        """The wallet's key. On a devnet it is made on first use, and has no passphrase. Raises `LocalError`."""
        with translated():
            if network.name == wallet.DEVNET and not self.wallet.exists():
                await trio.to_thread.run_sync(self._make_wallet)
            if not self.wallet.exists():
                provider = " --provider" if self.role == "payee" else ""
                raise LocalError(f"there is no wallet yet: {PROGRAM} wallet create{provider}")
            file = wallet.read(self.wallet)
            file.check_fits(network)
            return await trio.to_thread.run_sync(file.unlock, terminal.passphrase() if file.locked else "")

    def _make_wallet(self) -> None:
        try:
            wallet.create(self.wallet, Bare.DEVNET)
        except WalletUnusable:
            if not self.wallet.exists():  # else another process was faster
                raise
