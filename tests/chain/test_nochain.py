"""Where there is no chain, nothing moves money, and nothing pretends to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from chain.errors import LedgerUnavailable
from chain.ledger import ChannelTerms, Ledger, Network
from chain.nochain import NoChain

LEDGER: Ledger = NoChain(Network("unpaid", 0))
CHANNEL = bytes(32)
TERMS = ChannelTerms(
    payer="", payee="", payer_key=CHANNEL, payee_key=CHANNEL, challenge_period_s=1, open_before=1, salt=CHANNEL
)


async def test_it_has_a_name_and_an_empty_wallet() -> None:
    assert LEDGER.network.name == "unpaid"
    assert (LEDGER.wallet.address, await LEDGER.wallet.balance()) == ("", 0)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: LEDGER.now(),
        lambda: LEDGER.channel(CHANNEL),
        lambda: LEDGER.open(TERMS, 1),
        lambda: LEDGER.top_up(CHANNEL, 1),
        lambda: LEDGER.settle(CHANNEL, 1, b""),
        lambda: LEDGER.close_by_payee(CHANNEL, None),
        lambda: LEDGER.close_by_release(CHANNEL, 1, b""),
        lambda: LEDGER.start_close(CHANNEL),
        lambda: LEDGER.finalise(CHANNEL),
        lambda: LEDGER.transactions(CHANNEL),
    ],
)
async def test_nothing_can_be_done_on_it(operation: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(LedgerUnavailable, match="there is no chain"):
        await operation()


def test_no_channel_has_a_name() -> None:
    with pytest.raises(LedgerUnavailable, match="there is no chain"):
        LEDGER.channel_id(TERMS)
