"""Where a session's save events go: into the book, in one commit."""

from __future__ import annotations

from collections.abc import Sequence

from chain.book import Book
from chain.keeper import BookKeeper
from chain.records import Receipt
from p2p.foreign import translated
from p2p.protocol.receipt import Receipt as ReceiptBody
from p2p.protocol.session import Save, SaveClaim, SaveDelivered, SaveLost, SaveReceipt
from p2p.protocol.unpaid import is_to_be_saved
from p2p.protocol.wire import decode, encode


async def save_events(keeper: BookKeeper, peer: str, events: Sequence[Save]) -> None:
    """Put all of them on disk, or none. Raises `LocalError` or `PaymentError`."""

    events = [event for event in events if is_to_be_saved(event)]
    if not events:
        return

    def write(book: Book) -> None:
        for event in events:
            _write_one(book, peer, event)

    with translated():
        await keeper.do(write)


def _write_one(book: Book, peer: str, event: Save) -> None:
    match event:
        case SaveClaim(claim, delivered_nano):
            book.save_claim(claim)
            book.save_delivered(claim.channel, delivered_nano)
        case SaveDelivered(channel, delivered_nano):
            book.save_delivered(channel, delivered_nano)
        case SaveLost(channel, lost_nano):
            book.save_lost(channel, lost_nano)
        case SaveReceipt(signed):
            body: ReceiptBody = decode(signed.receipt.body, ReceiptBody)
            book.save_receipt(
                Receipt(
                    session=body.session,
                    peer=peer,
                    signed=encode(signed),
                    cost_nano=body.session_total_nano,
                    at=body.finished_at,
                    model=body.model,
                    channel=body.channel,
                    channel_total_nano=body.channel_total_nano,
                )
            )
