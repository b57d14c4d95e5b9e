"""Core: what Kademlia servers are asked and answer, and how near two of them are.

The messages are those of libp2p's kad-dht (https://github.com/libp2p/specs/tree/master/kad-dht); their bytes are the
rim's business. Peer ids and addresses are in libp2p's binary forms, and addresses mean nothing to a core.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

K = 20  # the specification's: servers that hold a record, contacts in an answer, entries of a bucket
ALPHA = 3  # questions under way at a time in one look-up
MAX_KEY_BYTES = 80
MAX_ADDRESSES = 8  # of one contact
MAX_ADDRESS_BYTES = 128
PROVIDERS_PER_ANSWER = 64
# An answer may name more than ours do: js-libp2p names all that it knows. So many are looked at.
MAX_PROVIDERS_TAKEN = 256


class Contact(NamedTuple):
    """A peer, by its binary id, and where it was last said to be."""

    peer: bytes
    addresses: tuple[bytes, ...]


class FindNode(NamedTuple):
    """Which servers are closest to `key`? For a peer, the key is its id."""

    key: bytes


class GetProviders(NamedTuple):
    """Who announced `key`, and which servers are closer to it?"""

    key: bytes


class AddProvider(NamedTuple):
    """The sender announces `key`; without addresses, it takes the announcement back. Nothing answers it."""

    key: bytes
    addresses: tuple[bytes, ...]


class GetValue(NamedTuple):
    """Which value has `key`? We keep none, so the answer is the closer servers alone."""

    key: bytes


class Ping(NamedTuple):
    """Still there?"""


Request = FindNode | GetProviders | AddProvider | GetValue | Ping


class Response(NamedTuple):
    """What a server knows. Both parts are empty in the answer to one who asks too often."""

    closer: tuple[Contact, ...] = ()
    providers: tuple[Contact, ...] = ()


def kad_id(data: bytes) -> int:
    """Where a key or a binary peer id lies: 256 bits, whose distance is XOR."""
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def shared_prefix_bits(one: int, other: int) -> int:
    """How many leading bits two ids have in common: 256 for the same id."""
    return 256 - (one ^ other).bit_length()
