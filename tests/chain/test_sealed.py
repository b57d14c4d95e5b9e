"""Locked by a passphrase: the bytes stay as they are, and nothing but the passphrase opens them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.pwhash import argon2id
from nacl.secret import SecretBox

from chain.sealed import COST, COST_MAX, COST_MIN, Cost, Sealed, seal

SECRET, PASSPHRASE = b"attack at dawn", "correct horse"
GOLDEN = (
    b"argon2id 1 8192 000102030405060708090a0b0c0d0e0f\n"
    b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXlUQdbTTEIFf2C6dQU1evkXN9UvRlSGoxI4LYrHiL\n"
)


def counted(size: int) -> bytes:
    return bytes(range(size))


def sealed() -> Sealed:
    return seal(SECRET, PASSPHRASE, COST_MIN, counted)


def test_golden_bytes() -> None:
    assert sealed().encode() == GOLDEN
    found = Sealed.decode(GOLDEN)
    assert found == sealed()
    assert found.open(PASSPHRASE) == SECRET


def test_the_format_is_argon2id_and_secretbox_and_nothing_else() -> None:
    key = argon2id.kdf(32, PASSPHRASE.encode(), counted(16), opslimit=1, memlimit=8192)
    assert SecretBox(key).decrypt(sealed().box) == SECRET


@pytest.mark.slow
def test_the_cost_that_is_used_is_libsodiums_moderate_one() -> None:
    assert (argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE) == COST
    text = seal(SECRET, PASSPHRASE).encode()
    assert text.startswith(b"argon2id 3 268435456 ")
    found = Sealed.decode(text)
    assert found is not None
    assert found.open(PASSPHRASE) == SECRET


def test_no_two_are_alike() -> None:
    assert seal(SECRET, PASSPHRASE, COST_MIN).encode() != seal(SECRET, PASSPHRASE, COST_MIN).encode()


@pytest.mark.parametrize("wrong", ["", "correct hors", "correct horse ", "Correct horse", "x" * 5000])
def test_a_wrong_passphrase_opens_nothing(wrong: str) -> None:
    assert sealed().open(wrong) is None


def test_a_passphrase_is_the_same_however_its_accents_are_typed() -> None:
    assert seal(SECRET, "caf\u00e9 au lait", COST_MIN).open("cafe\u0301 au lait") == SECRET


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(GOLDEN) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_opens_nothing(place: int, byte: int) -> None:
    text = GOLDEN[:place] + bytes([byte]) + GOLDEN[place + 1 :]
    found = Sealed.decode(text)
    if found is not None and found.cost.passes > 3:
        return  # it would only take long to find that out
    assert (found is None or found.open(PASSPHRASE) is None) == (text != GOLDEN)


@pytest.mark.parametrize("length", range(len(GOLDEN)))
def test_a_part_of_it_opens_nothing(length: int) -> None:
    found = Sealed.decode(GOLDEN[:length])
    assert found is None or found.open(PASSPHRASE) is None


@pytest.mark.parametrize(
    "cost",
    [
        Cost(COST_MAX.passes + 1, 8192),
        Cost(1, COST_MAX.memory_bytes + 1),
        Cost(9999, 10**12 - 1),
        Cost(1, 7168),
        Cost(1, 8193),
    ],
)
def test_a_cost_that_is_not_ours_is_not_even_tried(cost: Cost) -> None:
    assert Sealed.decode(Sealed(cost, counted(16), bytes(60)).encode()) is None


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", GOLDEN + b"\n", GOLDEN + b" ", GOLDEN.replace(b"CAwQ", b"CA wQ"), GOLDEN.replace(b"argon", b"Argon")],
)
def test_only_the_one_spelling_is_read(text: bytes) -> None:
    assert Sealed.decode(text) is None


def test_a_box_without_a_nonce_opens_nothing() -> None:
    assert Sealed(COST_MIN, counted(16), b"").open(PASSPHRASE) is None
    assert Sealed(COST_MIN, counted(16), bytes(24)).open(PASSPHRASE) is None
