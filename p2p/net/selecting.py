"""Saying what a new stream is for: in the same breath as the greeting, as js-libp2p does.

Fault: the library waits for the greeting's answer in between: a round trip for each stream that a request takes.
https://github.com/multiformats/multistream-select is the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from libp2p.abc import IMultiselectCommunicator
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.exceptions import MultiselectClientError, MultiselectCommunicatorError
from libp2p.protocol_muxer.multiselect_client import (
    DEFAULT_NEGOTIATE_TIMEOUT,
    MULTISELECT_PROTOCOL_ID,
    MultiselectClient,
)


class SelectAtOnce(MultiselectClient):
    """Where there is one protocol to choose from; of several it asks as the library does."""

    async def select_one_of(
        self,
        protocols: Sequence[TProtocol],
        communicator: IMultiselectCommunicator,
        negotiate_timeout: int = DEFAULT_NEGOTIATE_TIMEOUT,
    ) -> TProtocol:
        """Raises `MultiselectClientError` if the other side does not speak it, or does not answer in time."""
        if len(protocols) != 1:
            return await super().select_one_of(protocols, communicator, negotiate_timeout)
        (protocol,) = protocols
        expected = (MULTISELECT_PROTOCOL_ID, str(protocol))
        try:
            with trio.fail_after(negotiate_timeout):
                for line in expected:
                    await communicator.write(line)
                for line in expected:
                    if (said := await communicator.read()) != line:
                        raise MultiselectClientError(f"asked for {protocol}, it says {said!r:.100}")
        except MultiselectCommunicatorError as error:
            raise MultiselectClientError(f"asked for {protocol}: {error}") from error
        except trio.TooSlowError:
            raise MultiselectClientError(f"asked for {protocol}, no answer within {negotiate_timeout} s") from None
        return protocol
