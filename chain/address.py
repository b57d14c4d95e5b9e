"""TON addresses as people write them, read strictly: a slip must not send money to nobody.

A raw address is a workchain, a colon and 64 hex digits. A user-friendly one (TEP-2) is base64, in either alphabet, of a
tag byte, a workchain byte, 32 bytes of account id, and their CRC-16.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from chain.errors import BadAddress
from chain.ledger import Network

_RAW = re.compile(r"(0|-1):([0-9a-fA-F]{64})")
_FRIENDLY = re.compile(r"[A-Za-z0-9_-]{48}|[A-Za-z0-9+/]{48}")
_BOUNCEABLE, _NON_BOUNCEABLE, _TESTNET_ONLY = 0x11, 0x51, 0x80
_WORKCHAINS = {0x00: 0, 0xFF: -1}


class Destination(NamedTuple):
    """Where money goes."""

    address: str  # raw, in lower case
    bounce: bool  # whether it comes back if there is no contract


def parse(text: str, network: Network) -> Destination:
    """The account that `text` names. Only a bounceable user-friendly address asks for money to come back.

    Raises `BadAddress` if it is none, has a wrong checksum, or is for testnets only while `network` is mainnet.
    """
    raw = _RAW.fullmatch(text)
    if raw:
        return Destination(text.lower(), bounce=False)
    if not _FRIENDLY.fullmatch(text):
        raise BadAddress(f"{text[:80]!r} is not a TON address")
    decoded = base64.b64decode(text.translate(str.maketrans("-_", "+/")))
    if binascii.crc_hqx(decoded, 0):
        raise BadAddress(f"the checksum of {text} is wrong: a character was mistyped or lost")
    tag, workchain = decoded[0], _WORKCHAINS.get(decoded[1])
    if workchain is None or tag & ~_TESTNET_ONLY not in (_BOUNCEABLE, _NON_BOUNCEABLE):
        raise BadAddress(f"{text} is an address of an unknown kind")
    if tag & _TESTNET_ONLY and network.name == "mainnet":
        raise BadAddress(f"{text} is an address for test networks only: what is sent there on mainnet may be lost")
    return Destination(f"{workchain}:{decoded[2:34].hex()}", bounce=tag & ~_TESTNET_ONLY == _BOUNCEABLE)


def friendly(address: str, network: Network, *, bounce: bool = False) -> str:
    """The user-friendly form of a raw address, marked as for testnets only anywhere but on mainnet."""
    workchain, account = address.split(":")
    tag = (_BOUNCEABLE if bounce else _NON_BOUNCEABLE) | (0 if network.name == "mainnet" else _TESTNET_ONLY)
    body = bytes([tag, int(workchain) & 0xFF]) + bytes.fromhex(account)
    return base64.urlsafe_b64encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "big")).decode()
