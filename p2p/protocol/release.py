"""Core: closing a channel together, on `/bombyx/channel/1`.

The client hands over its last voucher and asks to close; the provider answers with a release for what was delivered,
which the client carries to the chain. A provider with a session still running on the channel refuses.

Either side's book may be an old one, brought back from a backup. The provider learns from the request what the client
has signed; the client learns it from the answer, and believes it because the signature is its own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from chain.voucher import Claim
from p2p.protocol.negotiate import Refusal
from p2p.protocol.wire import Bytes32, Bytes64, Message, Nat

PROTOCOL = "/bombyx/channel/1"

MaybeSignature = Annotated[bytes, msgspec.Meta(max_length=64)]


class CloseRequest(Message, frozen=True, kw_only=True, tag="close_request"):
    """Let us close `channel`; the highest voucher comes along in case it was lost."""

    channel: Bytes32
    amount_nano: Nat
    signature: MaybeSignature  # empty where nothing was ever signed


class Released(Message, frozen=True, kw_only=True, tag="released"):
    """The provider's release claim (`chain.voucher.RELEASE_TAG`)."""

    channel: Bytes32
    amount_nano: Nat
    signature: Bytes64
    voucher_nano: Nat = 0  # the client's highest voucher, if it is above the one that came with the request
    voucher_signature: MaybeSignature = b""


ToClient = Released | Refusal


def released(request: CloseRequest, release: Claim, highest: Claim | None) -> Released:
    """The answer to `request`, with the highest voucher that we hold if the client seems to have forgotten it."""
    forgotten = highest if highest and highest.signature and highest.amount_nano > request.amount_nano else None
    return Released(
        channel=release.channel,
        amount_nano=release.amount_nano,
        signature=release.signature,
        voucher_nano=forgotten.amount_nano if forgotten else 0,
        voucher_signature=forgotten.signature if forgotten else b"",
    )
