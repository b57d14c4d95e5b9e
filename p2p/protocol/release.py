"""Core: closing a channel together, on `/bombyx/channel/1`.

The client hands over its last voucher and asks to close; the provider answers with a release for what was delivered,
which the client carries to the chain. A provider with a session still running on the channel refuses.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

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


ToClient = Released | Refusal
