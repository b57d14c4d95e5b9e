"""Today's code writes and reads exactly the committed bytes, and without our code they mean what the files say."""

from __future__ import annotations

import hashlib
import json
import struct
import typing
from typing import Any

import make
import msgpack
import pytest
from nacl.signing import SigningKey, VerifyKey

from chain.keys import verify
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, claim_is_good
from p2p.errors import RemoteError
from p2p.keys import public_key_of, verify_by_peer
from p2p.protocol import advert, negotiate, receipt, release, session
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from p2p.protocol.wire import FrameReader, Signed, SignedBody, decode, encode, open_signed

UNIONS: dict[str, tuple[Any, ...]] = {
    advert.PROTOCOL: (advert.Pull,),
    negotiate.PROTOCOL: (negotiate.ToProvider, negotiate.ToClient),
    session.PROTOCOL: (session.ToProvider, session.ToClient),
    release.PROTOCOL: (release.CloseRequest, release.ToClient),
}
BODIES: dict[str, type[SignedBody]] = {
    "advert": advert.Advert,
    "quote": negotiate.Quote,
    "progress": session.ProgressBody,
    "receipt": receipt.Receipt,
}


def load(topic: str) -> Any:
    return json.loads(make.path(topic).read_text(encoding="utf-8"))["vectors"]


def raw(text: str) -> bytes:
    assert text.startswith("0x")
    return bytes.fromhex(text[2:])


FRAMES = [
    pytest.param(protocol, vector, id=f"{protocol} {vector['fields']['type']}")
    for protocol, vectors in load("frames").items()
    for vector in vectors
]


@pytest.mark.parametrize("topic", make.TOPICS)
def test_todays_code_makes_the_committed_bytes(topic: str) -> None:
    assert make.path(topic).read_text(encoding="utf-8") == make.text(topic), "see the head of tests/vectors/make.py"


def test_every_message_has_a_vector() -> None:
    written = {
        (protocol, vector["fields"]["type"]) for protocol, vectors in load("frames").items() for vector in vectors
    }
    known = {
        (protocol, part.__struct_config__.tag)
        for protocol, unions in UNIONS.items()
        for union in unions
        for part in (typing.get_args(union) or (union,))
    }
    # A refusal is the same message wherever it is said.
    assert written == {(protocol, tag) for protocol, tag in known if tag != "refusal"} | {
        (negotiate.PROTOCOL, "refusal")
    }


@pytest.mark.parametrize(("protocol", "vector"), FRAMES)
def test_a_frame_is_read_and_written_to_the_byte(protocol: str, vector: Any) -> None:
    (payload,) = FrameReader().feed(raw(vector["frame"]))
    readings = []
    for union in UNIONS[protocol]:
        try:
            readings.append(decode(payload, union))
        except RemoteError:
            continue  # it is for the other direction
    assert readings
    for message in readings:
        assert encode(message) == payload
        assert make.plain(message) == vector["fields"]


@pytest.mark.parametrize(("protocol", "vector"), FRAMES)
def test_a_frame_is_a_length_and_a_map(protocol: str, vector: Any) -> None:
    data = raw(vector["frame"])
    size, start = data[0], 1
    if size >= 0x80:
        size, start = (size & 0x7F) | data[1] << 7, 2
    assert len(data) == start + size
    assert make.plain(msgpack.unpackb(data[start:])) == vector["fields"]


@pytest.mark.parametrize("name", BODIES)
def test_a_signed_object_is_its_body_and_a_signature_over_it(name: str) -> None:
    vector = load("signed_objects")[name]
    body = raw(vector["body"])
    assert make.plain(msgpack.unpackb(body)) == vector["fields"]
    assert hashlib.sha256(body).digest() == raw(vector["id"])
    key = raw(load("identities")[vector["signer"]]["public_key"])
    VerifyKey(key).verify(body, raw(vector["signature"]))
    assert msgpack.unpackb(raw(vector["signed"])) == {"body": body, "signature": raw(vector["signature"])}


@pytest.mark.parametrize(("name", "kind"), BODIES.items())
def test_a_signed_object_opens(name: str, kind: type[SignedBody]) -> None:
    vector = load("signed_objects")[name]
    signed: Signed = decode(raw(vector["signed"]), Signed)
    opened = open_signed(signed, kind, by=lambda _: make.PROVIDER, network=make.NETWORK, verify=verify_by_peer)
    assert make.plain(opened) == vector["fields"]


def test_a_countersigned_receipt_is_verified_from_its_bytes_alone() -> None:
    vector = load("signed_objects")["receipt"]
    signed: SignedReceipt = decode(raw(vector["countersigned"]), SignedReceipt)
    opened = verify_receipt(signed, network=make.NETWORK, verify=verify_by_peer)
    assert opened.request_hash == hashlib.sha256(raw(vector["salt"]) + raw(vector["request"])).digest()
    assert opened.response_hash == hashlib.sha256(vector["response"].encode()).digest()
    assert opened.quote_id == raw(load("signed_objects")["quote"]["id"])


@pytest.mark.parametrize("vector", load("claims"))
def test_a_claim_is_its_fields_hashed_and_signed(vector: Any) -> None:
    tag = {"voucher": VOUCHER_TAG, "release": RELEASE_TAG}[vector["kind"]]
    assert raw(vector["bytes"]) == struct.pack(
        ">Ii32sQ", tag, vector["global_id"], raw(vector["channel"]), vector["amount_nano"]
    )
    assert raw(vector["hash"]) == hashlib.sha256(b"\x00\x60" + raw(vector["bytes"])).digest()
    key = raw(load("identities")[vector["signer"]]["public_key"])
    VerifyKey(key).verify(raw(vector["hash"]), raw(vector["signature"]))
    claim = Claim(raw(vector["channel"]), vector["amount_nano"], raw(vector["signature"]))
    assert claim_is_good(verify, key, tag, vector["global_id"], claim)


@pytest.mark.parametrize("role", make.SEEDS)
def test_an_identity_is_its_seed(role: str) -> None:
    vector = load("identities")[role]
    assert bytes(SigningKey(raw(vector["seed"])).verify_key) == raw(vector["public_key"])
    assert public_key_of(vector["peer_id"]) == raw(vector["public_key"])


@pytest.mark.parametrize("vector", load("costs"))
def test_a_cost_is_rounded_up_once(vector: Any) -> None:
    total = sum(price * count for price, count in zip(vector["prices"], vector["tokens"], strict=True))
    assert vector["cost_nano"] == (total + 999_999) // 1_000_000


@pytest.mark.parametrize(("why", "data"), load("refused")["frames"].items())
def test_a_frame_that_must_be_refused_is(why: str, data: str) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        FrameReader().feed(raw(data))


@pytest.mark.parametrize(("why", "data"), load("refused")["payloads"].items())
def test_a_payload_that_must_be_refused_is(why: str, data: str) -> None:
    with pytest.raises(RemoteError, match="malformed"):
        decode(raw(data), session.ToClient)
