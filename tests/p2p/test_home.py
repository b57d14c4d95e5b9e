"""What a role keeps on disk, when several processes come to it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chain import wallet
from chain.ledger import Network
from chain.wallet import WalletKey
from p2p.config import Config
from p2p.errors import LocalError
from p2p.home import Home
from p2p.terminal import Terminal

DEVNET = Network("devnet", -239)


async def test_a_wallet_that_another_process_makes_at_the_same_moment_is_the_one_that_both_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, create, others = Home(Config(home=str(tmp_path)), "payer"), wallet.create, []

    def be_late(*arguments: Any) -> WalletKey:
        others.append(create(*arguments))
        return create(*arguments)

    monkeypatch.setattr(wallet, "create", be_late)
    key = await home.unlock(DEVNET, Terminal({}))
    assert [key.public_key] == [other.public_key for other in others]


async def test_a_wallet_that_cannot_be_made_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(Config(home=str(tmp_path)), "payer")
    monkeypatch.setattr(home, "wallet", home.folder / "none" / "wallet.key")
    with pytest.raises(LocalError, match="cannot write the wallet file"):
        await home.unlock(DEVNET, Terminal({}))


async def test_a_client_without_a_wallet_pays_from_what_the_provider_of_its_home_earns(tmp_path: Path) -> None:
    config, terminal = Config(home=str(tmp_path)), Terminal({})
    earned = await Home(config, "payee").unlock(DEVNET, terminal)
    client = Home(config, "payer")
    assert (await client.unlock(DEVNET, terminal)).public_key == earned.public_key
    await client.purse.spend(5)
    assert Home(config, "payee").purse.spent_today_nano() == 5, "one wallet, one limit for a day"
    assert client.book.parent == client.identity.parent == client.channel_key.parent == tmp_path / "client"


async def test_a_client_that_has_a_wallet_keeps_to_it(tmp_path: Path) -> None:
    config, terminal = Config(home=str(tmp_path)), Terminal({})
    own = await Home(config, "payer").unlock(DEVNET, terminal)
    assert (await Home(config, "payee").unlock(DEVNET, terminal)).public_key != own.public_key
    assert (await Home(config, "payer").unlock(DEVNET, terminal)).public_key == own.public_key
