"""Our W5 orders are pytoniq's, bit for bit, though its wallet never sees the key."""

from __future__ import annotations

from pytoniq.contract.wallets.wallet_v5 import WalletV5R1, WalletV5WalletID
from pytoniq_core import Address
from pytoniq_core.tlb.custom.wallet import WalletV5R1Data

from chain import w5
from chain.keys import Ed25519Signer

GLOBAL_ID = -239
KEY = Ed25519Signer(bytes(range(32)))


def test_an_order_equals_pytoniqs() -> None:
    message = WalletV5R1.create_wallet_internal_message(Address((0, b"\7" * 32)), value=123, bounce=True)
    wallet_id = WalletV5WalletID(GLOBAL_ID, workchain=0).pack()
    theirs = WalletV5R1.raw_create_transfer_msg(
        WalletV5R1, KEY.seed + KEY.public_key, 5, wallet_id, [message], 1_800_000_000
    )
    assert w5.order(KEY, GLOBAL_ID, 5, 1_800_000_000, message.message).hash == theirs.hash


def test_the_first_state_has_taken_no_order() -> None:
    data = w5.state_init(KEY.public_key, GLOBAL_ID).data
    assert w5.seqno(data) == 0
    assert w5.seqno(WalletV5R1Data(seqno=41, wallet_id=1, public_key=KEY.public_key).serialize()) == 41
