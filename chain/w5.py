"""The cells of a W5 wallet (WalletV5R1): its address, its first state, and the orders that its key signs.

Only the layout is here, from pytoniq; the key itself never reaches pytoniq.
"""

from __future__ import annotations

from typing import Any

from pytoniq.contract.wallets.wallet_v5 import WALLET_V5_R1_CODE, WalletV5R1, WalletV5WalletID
from pytoniq_core import Address, Builder, Cell, StateInit, begin_cell
from pytoniq_core.tlb.custom.wallet import WalletMessage, WalletV5R1Data

from chain.voucher import Signer

_SIGNED_EXTERNAL = 0x7369676E  # "sign"
_SEND_MODE = 3  # fees on top of the value, errors ignored: the only kind that W5 takes from outside


def state_init(public_key: bytes, global_id: int) -> StateInit:
    """Code and first data, to be sent along with the wallet's first order."""
    data = WalletV5R1.create_data_cell(public_key, wc=0, network_global_id=global_id)
    return StateInit(code=WALLET_V5_R1_CODE, data=data)


def wallet_address(public_key: bytes, global_id: int) -> str:
    """Raw form. The wallet's id, and so its address, holds the network's global id."""
    address: str = Address((0, state_init(public_key, global_id).serialize().hash)).to_str(is_user_friendly=False)
    return address


def seqno(data: Cell) -> int:
    """How many orders the wallet has taken, from its account data."""
    taken: int = WalletV5R1Data.deserialize(data.begin_parse()).seqno
    return taken


def order(signer: Signer, global_id: int, taken: int, valid_until: int, message: Any) -> Cell:
    """The body of an external message that has the wallet send `message`; good once, until `valid_until`."""
    wallet_id = WalletV5WalletID(network_global_id=global_id, workchain=0).pack()
    unsigned: Builder = begin_cell().store_uint(_SIGNED_EXTERNAL, 32).store_uint(wallet_id, 32)
    unsigned.store_uint(valid_until, 32).store_uint(taken, 32)
    unsigned.store_cell(WalletV5R1.pack_actions([WalletMessage(_SEND_MODE, message)]))
    return unsigned.store_bytes(signer.sign(unsigned.end_cell().hash)).end_cell()
