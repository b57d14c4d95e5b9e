"""The record of one answer."""

from __future__ import annotations

import hashlib
import math
from functools import partial

import msgspec
import pytest
from back_to_back import CHANNEL, CLIENT, NETWORK, PRICES, PROVIDER
from hypothesis import given
from hypothesis import strategies as st

from p2p.errors import RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol.price import Tokens, cost_nano
from p2p.protocol.receipt import (
    Receipt,
    ResponseHash,
    Sampling,
    SignedReceipt,
    countersign,
    request_hash,
    verify_receipt,
)
from p2p.protocol.wire import Signed, sign

TOKENS = Tokens(input=40, output=3)
RECEIPT = Receipt(
    network=NETWORK,
    session=b"s" * 16,
    quote_id=b"q" * 32,
    client=peer_id_of(CLIENT.public_key),
    provider=peer_id_of(PROVIDER.public_key),
    model="m",
    digest="d",
    request_hash=request_hash(b"t" * 16, b"a prompt"),
    response_hash=hashlib.sha256(b"an answer").digest(),
    sampling=Sampling(max_tokens=10, temperature=0.5, top_p=1.0, seed=7),
    tokens=TOKENS,
    reason="stop",
    prices=PRICES,
    session_total_nano=cost_nano(PRICES, TOKENS),
    channel=CHANNEL,
    channel_total_nano=cost_nano(PRICES, TOKENS),
    finished_at=1010,
    ttft_ms=90,
    duration_ms=150,
    promised_ttft_ms=100,
    promised_tokens_per_s=50,
)

verified = partial(verify_receipt, network=NETWORK, verify=verify_by_peer)


def receipt(**changes: object) -> Signed:
    return sign(msgspec.structs.replace(RECEIPT, **changes), PROVIDER)


def test_a_receipt_signed_by_both_stands_alone() -> None:
    assert verified(countersign(receipt(), CLIENT)) == RECEIPT


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (SignedReceipt(receipt()), "bad_signature"),
        (countersign(receipt(), PROVIDER), "bad_signature"),
        (SignedReceipt(receipt(), countersign(receipt(ttft_ms=1), CLIENT).countersignature), "bad_signature"),
        (countersign(Signed(receipt().body, b"s" * 64), CLIENT), "bad_signature"),
        (countersign(sign(RECEIPT, CLIENT), CLIENT), "bad_signature"),
        (countersign(receipt(client="nobody"), CLIENT), "bad_signature"),
        (countersign(receipt(network="mainnet"), CLIENT), "wrong_network"),
        (countersign(receipt(session_total_nano=1), CLIENT), "bad_receipt"),
        (countersign(receipt(tokens=Tokens(input=40, output=4)), CLIENT), "bad_receipt"),
        (countersign(receipt(session=b"short"), CLIENT), "malformed"),
        (countersign(receipt(request_hash=b"short"), CLIENT), "malformed"),
        (countersign(receipt(reason="bored"), CLIENT), "malformed"),
        (countersign(receipt(tokens=Tokens(input=-1)), CLIENT), "malformed"),
        (countersign(receipt(channel_total_nano=1 << 63), CLIENT), "malformed"),
    ],
)
def test_a_receipt_that_is_not_sound_is_refused(signed: SignedReceipt, code: str) -> None:
    with pytest.raises(RemoteError) as caught:
        verified(signed)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": -0.1},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"seed": 1 << 63},
        {"max_tokens": 0},
    ],
)
def test_sampling_is_made_of_sound_numbers(changes: dict[str, float]) -> None:
    odd = receipt(sampling=msgspec.structs.replace(RECEIPT.sampling, **changes))
    with pytest.raises(RemoteError, match="malformed"):
        verified(countersign(odd, CLIENT))


def test_the_request_s_hash_is_salted() -> None:
    assert request_hash(b"t" * 16, b"a prompt") == hashlib.sha256(b"t" * 16 + b"a prompt").digest()
    assert request_hash(b"u" * 16, b"a prompt") != request_hash(b"t" * 16, b"a prompt")


@given(st.lists(st.text(max_size=20)))
def test_the_response_s_hash_does_not_depend_on_the_pieces(pieces: list[str]) -> None:
    by_piece = ResponseHash()
    for piece in pieces:
        by_piece.add(piece)
    assert by_piece.digest() == hashlib.sha256("".join(pieces).encode()).digest()
