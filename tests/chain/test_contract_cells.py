"""Cells to and from the contract: what goes in comes out, and what is not ours is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, StateInit, begin_cell

from chain.contract import cells
from chain.errors import ChannelUnusable
from chain.ledger import ChannelTerms
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, claim_bytes, claim_hash

KEYS = st.binary(min_size=32, max_size=32)
U32 = st.integers(0, 2**32 - 1)
ADDRESSES = KEYS.map(lambda account: f"0:{account.hex()}")
TERMS = st.builds(
    ChannelTerms,
    payer=ADDRESSES,
    payee=ADDRESSES,
    payer_key=KEYS,
    payee_key=KEYS,
    challenge_period_s=U32,
    open_before=U32,
    salt=KEYS,
)
SOME_TERMS = ChannelTerms(
    payer="0:" + "a1" * 32,
    payee="0:" + "b2" * 32,
    payer_key=b"\x01" * 32,
    payee_key=b"\x02" * 32,
    challenge_period_s=3600,
    open_before=1_790_000_600,
    salt=b"\x03" * 32,
)


def test_the_code_is_the_one_whose_hash_is_pinned() -> None:
    assert cells.code().hash == cells.code_hash()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(TERMS)
def test_terms_come_back_from_the_state_that_they_give(terms: ChannelTerms) -> None:
    channel = cells.channel_id(terms)
    state = cells.channel_state(channel, cells.state_init(terms), 7)
    assert state.terms == terms
    assert (state.deposited_nano, state.settled_nano, state.close_at, state.balance_nano) == (0, 0, 0, 7)


@pytest.mark.parametrize("field", ["payer", "payee", "payer_key", "payee_key", "salt"])
def test_every_term_moves_the_address(field: str) -> None:
    other: Any = "0:" + "ff" * 32 if field in ("payer", "payee") else b"\xff" * 32
    changed = msgspec.structs.replace(SOME_TERMS, **{field: other})
    assert cells.channel_id(changed) != cells.channel_id(SOME_TERMS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payer_key", b"\x01" * 31),
        ("payee_key", b""),
        ("salt", b"\x01" * 33),
        ("payer", "0:a1"),
        ("payee", "not an address"),
        ("payee", "5:" + "b2" * 32),
        ("challenge_period_s", -1),
        ("open_before", 2**32),
    ],
)
def test_terms_that_no_channel_can_have_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ChannelUnusable):
        cells.channel_id(msgspec.structs.replace(SOME_TERMS, **{field: value}))


def test_other_code_is_not_a_channel() -> None:
    init = StateInit(code=Cell.empty(), data=cells.state_init(SOME_TERMS).data)
    with pytest.raises(ChannelUnusable, match="contract"):
        cells.channel_state(cells.channel_id(SOME_TERMS), init, 0)


@pytest.mark.parametrize("data", [Cell.empty(), begin_cell().store_coins(1).store_ref(Cell.empty()).end_cell()])
def test_our_code_on_foreign_data_is_not_a_channel(data: Cell) -> None:
    with pytest.raises(ChannelUnusable):
        cells.channel_state(bytes(32), StateInit(code=cells.code(), data=data), 0)


def test_a_channel_born_with_a_deposit_is_refused() -> None:
    """Anyone can deploy our code with any data. The address tells: it commits to the first data, which are empty."""
    honest = cells.state_init(SOME_TERMS)
    rich = begin_cell().store_coins(10**18).store_coins(0).store_uint(0, 64).store_ref(honest.data.refs[0]).end_cell()
    born_rich = StateInit(code=cells.code(), data=rich)
    with pytest.raises(ChannelUnusable, match="opened empty"):
        cells.channel_state(born_rich.serialize().hash, born_rich, 10**18)
    assert cells.channel_state(cells.channel_id(SOME_TERMS), born_rich, 0).deposited_nano == 10**18


def test_an_account_without_code_is_not_a_channel() -> None:
    with pytest.raises(ChannelUnusable):
        cells.channel_state(bytes(32), StateInit(code=None, data=None), 0)


def test_each_body_names_its_operation() -> None:
    claim = Claim(bytes(32), 5, bytes(64))
    bodies = {
        "open": cells.open_channel(10**9),
        "top_up": cells.top_up(10**9),
        "settle": cells.settle(claim),
        "close_by_payee": cells.close_by_payee(claim),
        "close_by_release": cells.close_by_release(claim),
        "start_close": cells.start_close(),
        "finalise": cells.finalise(),
    }
    assert {op: cells.operation(body) for op, body in bodies.items()} == {op: op for op in bodies}


@pytest.mark.parametrize("body", [Cell.empty(), begin_cell().store_uint(0xD53276DB, 32).end_cell()])
def test_other_bodies_name_none(body: Cell) -> None:
    assert cells.operation(body) is None


def test_a_claim_is_carried_as_amount_and_signature() -> None:
    claim = Claim(b"\x09" * 32, 12345, b"\x0a" * 64)
    carried = (12345).to_bytes(8, "big") + claim.signature
    for body, before in (
        (cells.settle(claim), 96),
        (cells.close_by_payee(claim), 97),
        (cells.close_by_release(claim), 96),
    ):
        assert body.bits[before:].tobytes() == carried
        assert not body.refs


@pytest.mark.parametrize("tag", [VOUCHER_TAG, RELEASE_TAG])
def test_what_is_signed_is_the_hash_of_a_cell(tag: int) -> None:
    signed = begin_cell().store_bytes(claim_bytes(tag, -3, b"\x09" * 32, 12345)).end_cell()
    assert signed.hash == claim_hash(tag, -3, b"\x09" * 32, 12345)
