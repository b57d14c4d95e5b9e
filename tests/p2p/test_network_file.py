"""The file that says how to join: written whole, read with care, and explained where it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chain.ledger import Network
from p2p.errors import LocalError
from p2p.network_file import NetworkFile, read_chain, read_network, unpaid_chain, write_network

CHAIN = {"bombyx": {"name": "devnet", "global_id": -239, "control": "127.0.0.1:1"}, "liteservers": [{"ip": 1}]}
FILE = NetworkFile(bootstraps=("/ip4/127.0.0.1/tcp/1/p2p/12D3KooW",), chain=CHAIN)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "network.json"
    write_network(path, FILE)
    write_network(path, FILE)
    assert read_network(path) == FILE
    assert [one.name for one in path.parent.iterdir()] == ["network.json"]
    assert FILE.chain_network == Network("devnet", -239)
    assert FILE.mark.control == "127.0.0.1:1"


def test_a_chain_configuration(tmp_path: Path) -> None:
    path = tmp_path / "chain.json"
    path.write_text(json.dumps(CHAIN))
    assert read_chain(path) == CHAIN


@pytest.mark.parametrize(("name", "global_id"), [("mainnet", -239), ("testnet", -3)])
def test_a_configuration_of_tons_own_gets_the_name_that_it_lacks(tmp_path: Path, name: str, global_id: int) -> None:
    path = tmp_path / "global.config.json"
    path.write_text(json.dumps({"liteservers": [{"ip": 1}]}))
    with pytest.raises(LocalError, match="no usable `bombyx` entry"):
        read_chain(path)
    chain = read_chain(path, name)
    assert NetworkFile(bootstraps=(), chain=chain).chain_network == Network(name, global_id)
    path.write_text(json.dumps(chain))
    assert read_chain(path) == chain
    with pytest.raises(LocalError, match="leave the name away"):
        read_chain(path, name)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a network file"),
        ("[]", "is not a network file"),
        ('{"bootstraps": [], "chain": {}}', "no usable `bombyx` entry"),
        ('{"bootstraps": [], "chain": {"bombyx": {"name": "devnet"}}}', "no usable `bombyx` entry"),
        ('{"bootstraps": [], "chain": {"bombyx": {"name": "testnet", "global_id": -239}}}', "the global id of testnet"),
        ('{"bootstraps": [1], "chain": {}}', "is not a network file"),
        ('{"bootstraps": [], "chain": {}, "extra": 1}', "is not a network file"),
    ],
)
def test_what_is_no_network_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(LocalError, match=complaint):
        read_network(path)


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="start a network"):
        read_network(tmp_path / "missing")
    with pytest.raises(LocalError, match="cannot read the chain configuration"):
        read_chain(tmp_path / "missing")
    with pytest.raises(LocalError, match="cannot read the network file"):
        read_network(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="cannot write"):
        write_network(tmp_path / "file" / "network.json", FILE)
    (tmp_path / "directory").mkdir()
    with pytest.raises(LocalError, match="cannot write"):
        write_network(tmp_path / "directory", FILE)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["directory", "file"], "no draft is left"


def test_a_network_without_money_is_private_and_named_after_its_key(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    network = NetworkFile(bootstraps=(), swarm_key="0123456789abcdef", chain=unpaid_chain("0123456789abcdef"))
    write_network(path, network)
    assert read_network(path) == network
    assert (network.unpaid, network.chain_network) == (True, Network("unpaid-0123456789abcdef", 0))
    with pytest.raises(LocalError, match="is a network without money"):
        network.require_money()
    FILE.require_money()
    write_network(path, NetworkFile(bootstraps=(), chain=unpaid_chain("")))
    with pytest.raises(LocalError, match="a network without money is private"):
        read_network(path)
