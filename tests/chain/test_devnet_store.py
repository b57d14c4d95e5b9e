"""A chain on disk: it goes on where it ended, whatever ended it, and a damaged file is refused in one line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytoniq_core import Address

from chain.devnet.chain import Chain
from chain.devnet.store import Block, StateUnusable, Step, open_store
from chain.devnet.vm import Vm

NOW = 1_790_000_000
GRAM = 10**9
SOMEONE, OTHER = Address((0, b"\x01" * 32)), Address((-1, b"\x02" * 32))
VM = Vm.from_package()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devnet.state"


def lived(path: Path) -> Chain:
    """A chain on which something happened, its file closed again."""
    with open_store(path) as store:
        chain = Chain(VM, lambda: NOW, store)
        chain.faucet(SOMEONE, 5 * GRAM)
        chain.advance(86400)
        chain.faucet(OTHER, GRAM)
        chain.faucet(SOMEONE, 1)
    return chain


def test_a_chain_goes_on_where_it_ended(path: Path) -> None:
    before = lived(path)
    with open_store(path) as store:
        after = Chain(VM, lambda: NOW, store)
        assert after.blocks == before.blocks
        assert after.now() == before.now() == NOW + 86400
        for address in (SOMEONE, OTHER):
            assert [each.cell for each in after.transactions(address)] == [
                each.cell for each in before.transactions(address)
            ]
            assert all(
                after.account(address, block.seqno) == before.account(address, block.seqno) for block in before.blocks
            )
        (given_again,) = after.faucet(SOMEONE, 7)
        assert given_again.transaction.lt > after.transactions(SOMEONE)[-2].transaction.lt
        assert after.head.seqno == before.head.seqno + 1
    with open_store(path) as store:
        assert Chain(VM, lambda: NOW, store).balance(SOMEONE) == after.balance(SOMEONE) > before.balance(SOMEONE)


def test_the_servers_key_is_the_files(path: Path, tmp_path: Path) -> None:
    with open_store(path) as first, open_store(tmp_path / "another") as other:
        seed = first.server_seed
        assert seed != other.server_seed
    with open_store(path) as again:
        assert again.server_seed == seed


def test_a_file_is_one_devnets_at_a_time(path: Path) -> None:
    lived(path)
    with open_store(path), pytest.raises(StateUnusable, match="in use"), open_store(path):
        pass


def test_a_clock_that_went_back_does_not_take_the_chain_back(path: Path) -> None:
    before = lived(path).now()
    with open_store(path) as store:
        assert Chain(VM, lambda: NOW - 10**6, store).now() == before


def refused(path: Path) -> str:
    with pytest.raises(StateUnusable) as caught, open_store(path) as store:
        Chain(VM, lambda: NOW, store)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    return line


@pytest.mark.parametrize(
    "content", [b"not a database, and long enough to be looked at" * 50, b"\0" * 4096, b"SQLite format 3\0"]
)
def test_what_is_no_state_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    content = path.read_bytes()
    assert "not a devnet's" in refused(path)
    assert path.read_bytes() == content


def test_a_folder_and_a_place_that_is_not_there_are_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    refused(tmp_path / "no" / "such" / "folder")


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    lived(path)
    _alter(path, "PRAGMA user_version = 99")
    assert "version" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE steps SET account = (SELECT account FROM steps WHERE block = 5) WHERE block = 2",
        "UPDATE steps SET executed = zeroblob(10) WHERE block = 2",
        "UPDATE blocks SET time = time + 1 WHERE seqno = 3",
        "UPDATE blocks SET digest = 'text'",
        "UPDATE steps SET account_id = 7",
        "DELETE FROM blocks WHERE seqno = 3",
        "DELETE FROM blocks WHERE seqno = 1",
        "DELETE FROM steps WHERE block = 4",
        "DELETE FROM server",
        "UPDATE server SET seed = x'00'",
        "DROP TABLE steps",
    ],
)
def test_rows_that_were_changed_are_refused(path: Path, change: str) -> None:
    lived(path)
    _alter(path, change)
    refused(path)


def _alter(path: Path, change: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(change)
    connection.close()


@settings(max_examples=99, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_damage_anywhere_is_refused_in_one_line_or_does_no_harm(path: Path, place: int, change: int, cut: bool) -> None:
    """Of a changed byte or a cut file: either the chain is whole, or the file is refused."""
    for each in path.parent.iterdir():
        each.unlink()
    before = lived(path)
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= change
    path.write_bytes(content[:place] if cut else content)
    after: Chain | str
    try:
        with open_store(path) as store:
            after = Chain(VM, lambda: NOW, store)
    except StateUnusable as error:
        after = str(error)
    if isinstance(after, str):
        assert len(after.splitlines()) == 1
    elif place or not cut:  # a file without a byte is a new one
        assert after.blocks == before.blocks
        assert after.balance(SOMEONE) == before.balance(SOMEONE)


def test_after_a_write_that_failed_nothing_more_is_written(path: Path) -> None:
    """Or there would be a gap, and what was told in between would be lost."""
    with open_store(path) as store:
        chain = Chain(VM, lambda: NOW, store)
        step = Step(0, bytes(32), b"", b"")
        with pytest.raises(StateUnusable, match="cannot write"):
            store.append(Block(1, NOW, 1, 2), 0, [step])  # there is a first block already
        with pytest.raises(StateUnusable, match="cannot write"):
            chain.tick()
