"""Identities: peer ids without libp2p, and the seed file."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.keys import Ed25519Signer
from p2p.errors import LocalError, RemoteError
from p2p.keys import load_or_create_seed, peer_id_of, public_key_of, verify_by_peer


def test_the_peer_id_is_libp2ps() -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    for seed in (bytes(32), bytes(range(32)), b"\xff" * 32):
        theirs = str(ID.from_pubkey(create_new_key_pair(seed).public_key))
        assert peer_id_of(Ed25519Signer(seed).public_key) == theirs


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_gives_its_key_back(public_key: bytes) -> None:
    assert public_key_of(peer_id_of(public_key)) == public_key


@given(st.text(max_size=80))
def test_junk_is_a_bad_peer_id(junk: str) -> None:
    with pytest.raises(RemoteError) as caught:
        public_key_of(junk)
    assert caught.value.code == "bad_peer_id"


def test_other_kinds_of_key_are_bad_peer_ids() -> None:
    for foreign in ("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", peer_id_of(bytes(32))[:-1], "1" * 60):
        with pytest.raises(RemoteError, match="bad_peer_id"):
            public_key_of(foreign)


def test_a_key_of_the_wrong_length_is_our_mistake() -> None:
    with pytest.raises(LocalError):
        peer_id_of(bytes(31))


def test_verify_by_peer() -> None:
    signer, stranger = Ed25519Signer(b"a" * 32), Ed25519Signer(b"b" * 32)
    peer = peer_id_of(signer.public_key)
    assert verify_by_peer(peer, b"text", signer.sign(b"text"))
    assert not verify_by_peer(peer, b"other", signer.sign(b"text"))
    assert not verify_by_peer(peer, b"text", stranger.sign(b"text"))
    assert not verify_by_peer(peer, b"text", b"short")
    assert not verify_by_peer("junk", b"text", signer.sign(b"text"))


def test_a_seed_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "identity"
    seed = load_or_create_seed(path)
    assert len(seed) == 32
    assert load_or_create_seed(path) == seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_seed_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    load_or_create_seed(path)
    path.chmod(0o640)
    with pytest.raises(LocalError, match="chmod 600"):
        load_or_create_seed(path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_seed_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(LocalError, match="32 bytes"):
        load_or_create_seed(path)
    assert path.read_bytes() == content


def test_a_seed_that_cannot_be_made_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="identity"):
        load_or_create_seed(tmp_path / "file" / "identity")


def test_racing_processes_agree_on_one_seed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        seeds = set(pool.map(lambda _: load_or_create_seed(tmp_path / "identity"), range(64)))
    assert len(seeds) == 1
