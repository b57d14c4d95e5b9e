"""Signed claims: exact bytes, and nothing but the right key, tag, network, channel and amount."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.keys import Ed25519Signer, verify
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, claim_bytes, claim_hash, claim_is_good, sign_claim

PAYER = Ed25519Signer(b"v" * 32)
CHANNEL = bytes(range(32))
GLOBAL_ID = -239


def good(claim: Claim, *, key: bytes = PAYER.public_key, tag: int = VOUCHER_TAG, global_id: int = GLOBAL_ID) -> bool:
    return claim_is_good(verify, key, tag, global_id, claim)


@given(
    st.sampled_from([VOUCHER_TAG, RELEASE_TAG]),
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.binary(min_size=32, max_size=32),
    st.integers(0, (1 << 64) - 1),
)
def test_a_claim_is_48_bytes_big_endian(tag: int, global_id: int, channel: bytes, amount: int) -> None:
    data = claim_bytes(tag, global_id, channel, amount)
    assert data == tag.to_bytes(4, "big") + global_id.to_bytes(4, "big", signed=True) + channel + amount.to_bytes(
        8, "big"
    )
    assert claim_hash(tag, global_id, channel, amount) == hashlib.sha256(b"\x00\x60" + data).digest()


@given(st.integers(0, (1 << 64) - 1))
def test_a_signed_claim_is_good(amount: int) -> None:
    assert good(sign_claim(PAYER, VOUCHER_TAG, GLOBAL_ID, CHANNEL, amount))


def test_a_claim_is_good_for_its_key_tag_network_and_channel_only() -> None:
    claim = sign_claim(PAYER, VOUCHER_TAG, GLOBAL_ID, CHANNEL, 7)
    assert not good(claim, key=Ed25519Signer(b"w" * 32).public_key)
    assert not good(claim, tag=RELEASE_TAG)
    assert not good(claim, global_id=-3)
    assert not good(Claim(bytes(32), 7, claim.signature))
    assert not good(Claim(CHANNEL, 8, claim.signature))


@pytest.mark.parametrize(
    "claim",
    [
        Claim(CHANNEL, -1, b"s" * 64),
        Claim(CHANNEL, 1 << 64, b"s" * 64),
        Claim(CHANNEL[:31], 7, b"s" * 64),
        Claim(CHANNEL + b"x", 7, b"s" * 64),
        Claim(CHANNEL, 7, b"s" * 63),
        Claim(CHANNEL, 7, b""),
    ],
)
def test_what_is_no_claim_is_not_good(claim: Claim) -> None:
    assert not good(claim)


@given(st.binary(max_size=40), st.integers(), st.binary(max_size=70))
def test_anything_at_all_is_not_good_and_raises_nothing(channel: bytes, amount: int, signature: bytes) -> None:
    assert not good(Claim(channel, amount, signature))
