"""`receipts` on the command line: list the receipts of a role's book, or verify one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from chain.records import Receipt, open_records
from p2p.console import Session
from p2p.errors import LocalError, RemoteError
from p2p.foreign import translated
from p2p.keys import verify_by_peer
from p2p.network_file import NetworkFile
from p2p.protocol.receipt import Receipt as ReceiptBody
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from p2p.protocol.unpaid import NO_CHANNEL
from p2p.protocol.wire import decode
from p2p.purchase import amount
from p2p.story import short


async def receipts(session: Session) -> None:
    """List receipts, or verify one with nothing but itself and the network's name."""
    network = session.network()
    if session.options.action == "verify":
        _verify(session, network)
        return
    with translated(), open_records(session.home().book, session.role, network.chain_network) as records:
        kept = records.receipts()
    if session.options.json:
        session.print_json([_as_json(one) for one in kept])
        return
    for one in kept:
        session.story.say(f"{one.session.hex()}  {short(one.peer)}  {amount(one.cost_nano)}")


def _as_json(one: Receipt) -> dict[str, Any]:
    return {
        "session": one.session.hex(),
        "peer": one.peer,
        "cost_nano": one.cost_nano,
        "at": one.at,
        "receipt": one.signed.hex(),
    }


def _said(receipt: ReceiptBody) -> dict[str, Any]:
    """What both sides signed for, in plain values; its times are the provider's word."""
    plain: dict[str, Any] = msgspec.to_builtins(receipt, builtin_types=(bytes,))
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in plain.items()}


def _verify(session: Session, network: NetworkFile) -> None:
    path: Path | None = session.options.file
    if path is None:
        raise LocalError("name the file: receipts verify FILE")
    try:
        content = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        raise LocalError(f"{path} holds no receipt in hex") from None
    try:
        receipt = verify_receipt(decode(content, SignedReceipt), network=network.mark.name, verify=verify_by_peer)
    except RemoteError as error:
        raise RemoteError(error.code, f"{path} is not a receipt that provider and client both signed") from error
    if session.options.json:
        session.print_json({"verified": True, **_said(receipt)})
        return
    cost = "for free" if receipt.channel == NO_CHANNEL else amount(receipt.session_total_nano)
    session.story.say(
        f"Good: {short(receipt.provider)} and {short(receipt.client)} both signed for {receipt.tokens.input} tokens "
        f"in, {receipt.tokens.output} out, {cost}."
    )
