"""What a watchtower is given to watch: for each channel the highest voucher, and no secret.

A voucher is good for the payee alone, whoever carries it; so its owner loses nothing by handing it out but the secret
of how much was earned. Charges come from a file, from a folder of such files, or from the owner's own book.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from chain import private_file
from chain.errors import ChargesUnusable, NetworkMismatch
from chain.ledger import Network
from chain.records import open_records
from chain.voucher import Claim

MAX_FILE_BYTES = 1 << 26  # some hundred thousand channels
SUFFIX = ".json"


class Charges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of them: JSON, the byte strings in base64."""

    network: Network
    charges: tuple[Claim, ...]


def read(source: Path, network: Network) -> Sequence[Claim]:
    """Those in a file or in a folder's `.json` files; of several for one channel the highest.

    Raises `ChargesUnusable` or `NetworkMismatch`.
    """
    try:
        files = sorted(source.glob(f"*{SUFFIX}")) if source.is_dir() else [source]
        return highest(charge for file in files for charge in _file(file, network))
    except OSError as error:
        raise ChargesUnusable(f"cannot read the charges in {source}: {error.strerror}") from error


def read_book(path: Path, network: Network) -> Sequence[Claim]:
    """Those of a payee's book, which its owner may have open, and write to, at the same time.

    Raises `BookUnusable`, `ChargesUnusable` or `NetworkMismatch`.
    """
    if not path.exists():
        raise ChargesUnusable(f"there is no book {path} to watch over")
    with open_records(path, "payee", network) as records:
        claims = [known.claim for known in records.open_channels()]
    return [claim for claim in claims if claim]


def write(path: Path, charges: Iterable[Claim], network: Network) -> None:
    """For a watchtower elsewhere; takes the place of an older file. Raises `ChargesUnusable`."""
    content = msgspec.json.encode(Charges(network, tuple(charges)))
    try:
        private_file.replace(path, content)
    except OSError as error:
        raise ChargesUnusable(f"cannot write the charges to {path}: {error.strerror}") from error


def highest(charges: Iterable[Claim]) -> Sequence[Claim]:
    """One charge for each channel."""
    best: dict[bytes, Claim] = {}
    for charge in charges:
        known = best.get(charge.channel)
        if known is None or charge.amount_nano > known.amount_nano:
            best[charge.channel] = charge
    return list(best.values())


def _file(path: Path, network: Network) -> tuple[Claim, ...]:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    try:
        if len(content) > MAX_FILE_BYTES:
            raise ChargesUnusable(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        found = msgspec.json.decode(content, type=Charges)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChargesUnusable(f"{path} holds no charges: {error}") from error
    if found.network != network:
        raise NetworkMismatch(f"the charges in {path} are for {found.network.name} and not for {network.name}")
    return found.charges
