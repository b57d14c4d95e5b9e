"""Core: the record of one paid answer, signed by the provider and then by the client.

A receipt holds no prompt and no answer, only hashes of them: the request's is salted, so that a guessed prompt cannot
be confirmed by a third party who lacks the salt. A receipt signed by one side binds that side only.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from p2p.errors import RemoteError
from p2p.protocol.price import Prices, Tokens, cost_nano
from p2p.protocol.wire import (
    BodySigner,
    Bytes16,
    Bytes32,
    Name,
    Nat,
    PeerVerifier,
    Signed,
    SignedBody,
    Size,
    open_signed,
)

SALT_BYTES = 16

Temperature = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seed = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Reason = Literal["stop", "length", "cancelled", "failed"]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What decides an answer besides the prompt and the weights."""

    max_tokens: Size
    temperature: Temperature
    top_p: Probability
    seed: Seed


class Receipt(SignedBody, frozen=True, kw_only=True, tag="bombyx/receipt/1"):
    """One answer: who, what, how much, how fast."""

    session: Bytes16
    quote_id: Bytes32
    client: Name
    provider: Name
    model: Name
    digest: Name
    request_hash: Bytes32
    response_hash: Bytes32
    sampling: Sampling
    tokens: Tokens
    reason: Reason
    prices: Prices
    session_total_nano: Nat
    channel: Bytes32
    channel_total_nano: Nat  # delivered on the channel, this session included
    finished_at: Nat
    ttft_ms: Nat
    duration_ms: Nat
    promised_ttft_ms: Nat
    promised_tokens_per_s: Nat


class SignedReceipt(msgspec.Struct, frozen=True):
    """A receipt as it is kept and shown to others. `countersignature` is the client's, over the same body."""

    receipt: Signed
    countersignature: bytes = b""


def request_hash(salt: bytes, request: bytes) -> bytes:
    """SHA-256 over the salt and the request exactly as it was sent."""
    return hashlib.sha256(salt + request).digest()


class ResponseHash:
    """SHA-256 over the answer's text in UTF-8, piece by piece."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, text: str) -> None:
        """The next piece of the answer."""
        self._hash.update(text.encode())

    def digest(self) -> bytes:
        """32 bytes."""
        return self._hash.digest()


def countersign(receipt: Signed, signer: BodySigner) -> SignedReceipt:
    """The client agrees."""
    return SignedReceipt(receipt, signer.sign(receipt.body))


def verify_receipt(signed: SignedReceipt, *, network: str, verify: PeerVerifier) -> Receipt:
    """A receipt that both sides signed and whose sums add up. Needs nothing but the receipt itself.

    Raises `RemoteError`: `bad_signature`, `wrong_network`, `malformed` or `bad_receipt`.
    """
    receipt = open_signed(signed.receipt, Receipt, by=lambda body: body.provider, network=network, verify=verify)
    if not verify(receipt.client, signed.receipt.body, signed.countersignature):
        raise RemoteError("bad_signature", "the client's countersignature is missing or wrong")
    if receipt.session_total_nano != cost_nano(receipt.prices, receipt.tokens):
        raise RemoteError("bad_receipt", "the total is not what the tokens cost")
    return receipt
