"""The file that says how to join a network: its bootstrap peers and its chain's lite-servers."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from chain.ledger import GLOBAL_IDS, Network
from p2p.errors import LocalError


class ChainMark(msgspec.Struct, frozen=True):
    """What a Bombyx network adds to a TON global configuration."""

    name: str
    global_id: int
    control: str = ""  # a devnet's faucet
    unpaid: bool = False  # there is no chain: nothing costs anything


class NetworkFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`chain` is a TON global configuration with our mark under `bombyx`."""

    bootstraps: tuple[str, ...]
    swarm_key: str = ""  # a private network's: the fingerprint of the key that its members have
    chain: dict[str, Any]

    @property
    def mark(self) -> ChainMark:
        return msgspec.convert(self.chain["bombyx"], ChainMark)

    @property
    def unpaid(self) -> bool:
        return self.mark.unpaid

    def require_money(self) -> None:
        """Raises `LocalError` where there is none."""
        if self.unpaid:
            raise LocalError(f"{self.mark.name} is a network without money: there is nothing to be paid or earned")

    @property
    def chain_network(self) -> Network:
        return Network(self.mark.name, self.mark.global_id)


def read_chain(path: Path, name: str = "") -> dict[str, Any]:
    """A TON global configuration that bears our mark. One of TON's own does not: then `name` is mainnet or testnet.

    Raises `LocalError`.
    """
    chain: dict[str, Any] = _read(path, dict[str, Any], "chain configuration")
    if name and "bombyx" in chain:
        raise LocalError(f"{path} says by itself for which network it is: leave the name away")
    if name:
        chain["bombyx"] = {"name": name, "global_id": GLOBAL_IDS[name]}
    _check_mark(chain, path)
    return chain


def unpaid_chain(swarm_key: str) -> dict[str, Any]:
    """In place of a chain's configuration, for the private network with the key of that fingerprint."""
    return {"bombyx": {"name": f"unpaid-{swarm_key}", "global_id": 0, "unpaid": True}}


def read_network(path: Path) -> NetworkFile:
    """Raises `LocalError` that says how to get such a file."""
    if not path.exists():
        raise LocalError(
            f"there is no network file {path}; start a network with `python -m p2p.node` in another terminal, "
            "or name a file with --network"
        )
    network: NetworkFile = _read(path, NetworkFile, "network file")
    _check_mark(network.chain, path)
    if network.unpaid and not network.swarm_key:
        raise LocalError(f"{path} is wrong: a network without money is private, and has the fingerprint of a key")
    return network


def write_network(path: Path, network: NetworkFile) -> None:
    """Whole or not at all. Raises `LocalError`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(network)) + b"\n")
        draft.replace(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from None
    finally:
        with suppress(OSError):
            draft.unlink()


def _check_mark(chain: dict[str, Any], path: Path) -> None:
    try:
        mark = msgspec.convert(chain.get("bombyx"), ChainMark)
    except msgspec.ValidationError as error:
        raise LocalError(f"{path} has no usable `bombyx` entry for its chain: {error}") from None
    if mark.global_id != GLOBAL_IDS.get(mark.name, mark.global_id):
        raise LocalError(f"{path} is wrong: the global id of {mark.name} is not {mark.global_id}")


def _read(path: Path, type_: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except OSError as error:
        raise LocalError(f"cannot read the {what} {path}: {os.strerror(error.errno or 0)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LocalError(f"{path} is not a {what}: {error}") from None
