"""Addresses as people write them: every form is understood, and no slip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Address

from chain.address import Destination, friendly, parse
from chain.errors import BadAddress
from chain.ledger import Network

MAINNET, TESTNET, DEVNET = Network("mainnet", -239), Network("testnet", -3), Network("devnet", -239)
RAW = "0:" + "5a" * 32
ACCOUNTS = st.tuples(st.sampled_from([0, -1]), st.binary(min_size=32, max_size=32))


def spelt(raw: str = RAW, *, bounce: bool = True, testnet: bool = False, url_safe: bool = True) -> str:
    text: str = Address(raw).to_str(is_bounceable=bounce, is_test_only=testnet, is_url_safe=url_safe)
    return text


@given(account=ACCOUNTS, bounce=st.booleans(), testnet=st.booleans(), url_safe=st.booleans())
def test_every_form_of_an_address_is_the_same_account(
    account: tuple[int, bytes], bounce: bool, testnet: bool, url_safe: bool
) -> None:
    raw = f"{account[0]}:{account[1].hex()}"
    text = spelt(raw, bounce=bounce, testnet=testnet, url_safe=url_safe)
    assert parse(text, TESTNET) == parse(text, DEVNET) == Destination(raw, bounce)
    assert parse(raw, MAINNET) == parse(raw.replace("a", "A"), MAINNET) == Destination(raw, bounce=False)


@given(account=ACCOUNTS, bounce=st.booleans())
def test_the_friendly_form_is_pytoniqs(account: tuple[int, bytes], bounce: bool) -> None:
    raw = f"{account[0]}:{account[1].hex()}"
    assert friendly(raw, MAINNET, bounce=bounce) == spelt(raw, bounce=bounce)
    assert friendly(raw, TESTNET, bounce=bounce) == spelt(raw, bounce=bounce, testnet=True)


@pytest.mark.parametrize("bounce", [True, False])
def test_an_address_for_testnets_is_refused_on_mainnet_alone(bounce: bool) -> None:
    text = spelt(bounce=bounce, testnet=True)
    with pytest.raises(BadAddress, match="test networks only"):
        parse(text, MAINNET)
    assert parse(text, TESTNET).address == RAW
    assert parse(spelt(bounce=bounce), TESTNET).address == RAW


@given(place=st.integers(0, 47), character=st.sampled_from("ABCXYZabcxyz0189-_"))
def test_one_mistyped_character_is_always_noticed(place: int, character: str) -> None:
    right = spelt()
    typed = right[:place] + character + right[place + 1 :]
    if typed == right:
        assert parse(typed, MAINNET).address == RAW
    else:
        with pytest.raises(BadAddress):
            parse(typed, MAINNET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the bank",
        RAW[:-1],
        RAW + "0",
        RAW.replace("0:", "1:"),
        RAW.replace("0:", "00:"),
        RAW.replace("0:", ""),
        f" {RAW}",
        RAW.replace("5a", "5g", 1),
        RAW.replace("5", "\u0665", 1),
        spelt()[:-1],
        spelt() + "A",
        spelt() + "\n",
        "+" + spelt()[1:46] + "_-",
        "A" * 48,
        "x" * 10_000,
    ],
)
def test_what_is_no_address_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse(text, MAINNET)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_an_unknown_workchain_or_tag_is_refused() -> None:
    import base64
    import binascii

    for start in (b"\x11\x01", b"\x12\x00", b"\x00\x00"):
        body = start + bytes(32)
        text = base64.urlsafe_b64encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "big")).decode()
        with pytest.raises(BadAddress, match="unknown kind"):
            parse(text, MAINNET)
