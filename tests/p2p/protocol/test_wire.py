"""Bytes to messages: whatever comes, it is a typed message or `RemoteError("malformed")`."""

from __future__ import annotations

import typing
from collections.abc import Callable

import msgpack
import msgspec
import pytest
from back_to_back import CLIENT, NETWORK, PROVIDER
from hypothesis import given
from hypothesis import strategies as st

from chain.keys import Ed25519Signer
from p2p.errors import LocalError, RemoteError
from p2p.keys import peer_id_of, verify_by_peer
from p2p.protocol import negotiate, release, session
from p2p.protocol.advert import Advert, Pull
from p2p.protocol.negotiate import Ask, Quote, Refusal
from p2p.protocol.receipt import Receipt, SignedReceipt
from p2p.protocol.session import Begun, Delta, Heartbeat, Payment, ProgressBody, Start
from p2p.protocol.wire import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_FRAME_BYTES,
    MAX_ITEMS,
    FrameReader,
    Name,
    Signed,
    SignedBody,
    decode,
    encode,
    frame,
    open_signed,
    sign,
)

INBOUND: dict[str, typing.Any] = {
    "negotiate.ToProvider": negotiate.ToProvider,
    "negotiate.ToClient": negotiate.ToClient,
    "session.ToProvider": session.ToProvider,
    "session.ToClient": session.ToClient,
    "release.CloseRequest": release.CloseRequest,
    "release.ToClient": release.ToClient,
    "Pull": Pull,
    "Signed": Signed,
    "SignedReceipt": SignedReceipt,
    "Advert": Advert,
    "Quote": Quote,
    "Receipt": Receipt,
    "ProgressBody": ProgressBody,
}
"""Everything that is decoded from a peer's bytes."""

ASK = {
    "type": "ask",
    "model": "m",
    "prompt_tokens": 1,
    "max_tokens": 1,
    "payer_key": b"k" * 32,
    "nonce": b"n" * 16,
}
HEARTBEAT = b"\x81\xa4type\xa9heartbeat"


class Note(SignedBody, frozen=True, kw_only=True, tag="test/note/1"):
    author: Name
    text: Name = ""


def nested(depth: int) -> object:
    value: object = {"type": "heartbeat"}
    for _ in range(depth - 1):
        value = [value]
    return {"type": "heartbeat", "x": value}


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def assert_malformed(payload: bytes, kind: typing.Any) -> None:
    with pytest.raises(RemoteError) as caught:
        decode(payload, kind)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="a byte that MessagePack never uses"),
        pytest.param(b"\xc0", id="nil"),
        pytest.param(packed([1, 2]), id="an array"),
        pytest.param(packed("ask"), id="a string"),
        pytest.param(packed({}), id="no type"),
        pytest.param(packed({"type": "nonsense"}), id="an unknown type"),
        pytest.param(packed({"type": 1}), id="a type that is no string"),
        pytest.param(packed(ASK)[:-1], id="cut short"),
        pytest.param(packed(ASK) + b"\x00", id="trailing bytes"),
        pytest.param(b"\x82\xa4type\xa9heartbeat\xa4type\xa9heartbeat", id="a key twice"),
        pytest.param(b"\x82\xa4type\xa9heartbeat\xc4\x01a\x01", id="a key of bytes"),
        pytest.param(packed({"type": "heartbeat", 1: 2}), id="a key that is a number"),
        pytest.param(b"\x82\xa4type\xa9heartbeat\xa1x\xd4\x05\x00", id="an extension"),
        pytest.param(b"\x82\xa4type\xa9heartbeat\xa1x\xc7\x00\x05", id="an empty extension"),
        pytest.param(b"\x82\xa4type\xa9heartbeat\xa1x\xd6\xff\x00\x00\x00\x00", id="a timestamp"),
        pytest.param(b"\x81\xa4type\xa2\xff\xfe", id="not UTF-8"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of four thousand million"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="four gigabytes of bytes"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="four gigabytes of text"),
        pytest.param(b"\x91" * 100_000, id="a hundred thousand arrays in each other"),
        pytest.param(b"\x81\xa1a" * 100_000, id="a hundred thousand maps in each other"),
        pytest.param(packed(nested(MAX_DEPTH)), id="one level too deep"),
        pytest.param(packed({"type": "heartbeat", "x": [0] * (MAX_ITEMS + 1)}), id="one item too many"),
        pytest.param(packed({"type": "heartbeat", "x": [{}] * MAX_CONTAINERS}), id="too many maps"),
        pytest.param(packed({"type": "heartbeat", "x": [[]] * MAX_CONTAINERS}), id="too many arrays"),
        pytest.param(packed({"type": "heartbeat", "x": b"x" * MAX_FRAME_BYTES}), id="over the size limit"),
    ],
)
def test_what_is_no_message_is_malformed(payload: bytes) -> None:
    for kind in INBOUND.values():
        assert_malformed(payload, kind)


@pytest.mark.parametrize(
    "payload",
    [
        HEARTBEAT,
        packed({"type": "heartbeat", "since": "a newer version"}),
        packed(nested(MAX_DEPTH - 1)),
        packed({"type": "heartbeat", "x": [0] * MAX_ITEMS}),
        packed({"type": "heartbeat", "x": [{}] * (MAX_CONTAINERS - 2)}),
        packed({"type": "heartbeat", "x": b"x" * (MAX_FRAME_BYTES - 30)}),
    ],
)
def test_what_is_within_the_limits_is_read_and_unknown_fields_are_ignored(payload: bytes) -> None:
    assert decode(payload, session.ToClient) == Heartbeat()


@pytest.mark.parametrize("field", [name for name in ASK if name != "type"])
def test_a_missing_field_is_malformed(field: str) -> None:
    assert_malformed(packed({name: value for name, value in ASK.items() if name != field}), negotiate.ToProvider)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("model", b"m"),
        ("model", None),
        ("model", "m" * 257),
        ("prompt_tokens", "1"),
        ("prompt_tokens", 1.0),
        ("prompt_tokens", True),
        ("prompt_tokens", 0),
        ("prompt_tokens", -1),
        ("prompt_tokens", 1 << 31),
        ("max_tokens", 0),
        ("max_tokens", (1 << 64) - 1),
        ("max_tokens", -(1 << 63)),
        ("payer_key", b"k" * 31),
        ("payer_key", b"k" * 33),
        ("payer_key", "a2trawtra2tra2tra2tra2tra2tra2tra2tra2tra2s="),
        ("nonce", b"n" * 7),
        ("nonce", b"n" * 65),
        ("tier", "secret"),
    ],
)
def test_a_wrong_type_or_a_value_out_of_bounds_is_malformed(field: str, value: object) -> None:
    ask: Ask = decode(packed(ASK), negotiate.ToProvider)
    assert ask.model == "m"
    assert_malformed(packed(ASK | {field: value}), negotiate.ToProvider)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (Begun(prompt_tokens=1, delivered_nano=0, accepted_nano=0), {"prompt_tokens": 0}),
        (Begun(prompt_tokens=1, delivered_nano=0, accepted_nano=0), {"delivered_nano": 1 << 63}),
        (Delta(text="a", tokens=1, total_tokens=1), {"tokens": -1}),
        (Delta(text="a", tokens=1, total_tokens=1), {"text": b"a"}),
        (Refusal(reason="busy"), {"retry_after_s": -1}),
        (Refusal(reason="busy"), {"detail": "x" * 1025}),
        (Refusal(reason="busy"), {"prices": [1, 2, 1 << 53]}),
        (Refusal(reason="busy"), {"prices": [1, 2]}),
    ],
)
def test_the_provider_s_messages_are_bounded_too(message: msgspec.Struct, changes: dict[str, object]) -> None:
    plain: dict[str, object] = msgpack.unpackb(encode(message))
    again: typing.Any = decode(packed(plain), session.ToClient)
    assert again == message
    assert_malformed(packed(plain | changes), session.ToClient)


@pytest.mark.parametrize("field", ["session", "channel", "salt"])
def test_an_id_of_the_wrong_length_is_malformed(field: str) -> None:
    start = Start(
        session=b"s" * 16,
        quote=Signed(b"body", b"s" * 64),
        channel=b"c" * 32,
        request=b"",
        salt=b"t" * 16,
        payment=Payment(session_total_nano=0, channel_total_nano=0, signature=b"s" * 64),
    )
    again: typing.Any = decode(encode(start), session.ToProvider)
    assert again == start
    assert_malformed(encode(msgspec.structs.replace(start, **{field: b"short"})), session.ToProvider)


def test_a_channel_on_which_nothing_was_signed_can_be_closed_too() -> None:
    request = release.CloseRequest(channel=b"c" * 32, amount_nano=0, signature=b"")
    assert decode(encode(request), release.CloseRequest) == request


def unbounded(kind: typing.Any, path: str) -> list[str]:
    """The integers, floats and names of a type that a peer could make as large as it likes."""
    match kind:
        case msgspec.inspect.IntType(ge=ge, le=le) | msgspec.inspect.FloatType(ge=ge, le=le):
            return [path] if ge is None or le is None else []
        case msgspec.inspect.StrType(max_length=limit) | msgspec.inspect.BytesType(max_length=limit):
            return [path] if limit is None else []
        case msgspec.inspect.StructType(fields=fields):
            return [found for field in fields for found in unbounded(field.type, f"{path}.{field.name}")]
        case msgspec.inspect.UnionType(types=types):
            return [found for one in types for found in unbounded(one, path)]
        case msgspec.inspect.VarTupleType(item_type=item):
            return unbounded(item, path + "[]")
    return []


def test_nothing_but_text_and_sealed_bodies_is_bounded_by_the_frame_alone() -> None:
    found = {
        path.partition(".")[2]
        for name, kind in INBOUND.items()
        for part in (typing.get_args(kind) or (kind,))
        for path in unbounded(msgspec.inspect.type_info(part), name.replace(".", "_"))
    }
    assert found == {
        "body",
        "request",
        "text",
        "quote.body",
        "progress.body",
        "receipt.body",
        "countersignature",
    }


def outcome(attempt: Callable[[], typing.Any]) -> tuple[str | None, typing.Any]:
    """The code of the `RemoteError` that an attempt raised, or what it gave. Any other exception fails the test."""
    try:
        return None, attempt()
    except RemoteError as error:
        return error.code, None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_malformed(payload: bytes) -> None:
    for kind in INBOUND.values():
        code, message = outcome(lambda kind=kind: decode(payload, kind))  # type: ignore[misc]
        assert code == "malformed" or message is not None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def almost_messages(draw: st.DrawFn) -> tuple[typing.Any, bytes]:
    """A right type with anything in its fields."""
    kind = draw(st.sampled_from(list(INBOUND.values())))
    part = draw(st.sampled_from(typing.get_args(kind) or (kind,)))
    tag = part.__struct_config__.tag_field, part.__struct_config__.tag
    fields = {name: draw(PLAIN) for name in part.__struct_fields__ if draw(st.booleans()) or part is not Pull}
    return kind, packed({tag[0]: tag[1], **fields} if tag[0] else fields)


@given(almost_messages())
def test_a_known_type_with_anything_in_it_is_a_message_or_malformed(case: tuple[typing.Any, bytes]) -> None:
    kind, payload = case
    code, message = outcome(lambda: decode(payload, kind))
    assert code == "malformed" or decode(encode(message), kind) == message


def test_an_error_does_not_repeat_what_the_peer_sent() -> None:
    with pytest.raises(RemoteError) as caught:
        decode(packed({"type": "a secret prompt"}), session.ToClient)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# Frames


@given(st.lists(st.binary(max_size=400), max_size=8), st.data())
def test_frames_come_out_whole_however_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(length(len(payload)) + payload for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = FrameReader()
    got = [
        payload
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for payload in reader.feed(stream[begin:end])
    ]
    assert got == payloads
    assert not reader.unfinished


def length(number: int) -> bytes:
    """An unsigned varint, written apart from the code under test."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, MAX_FRAME_BYTES])
def test_a_frame_of_any_size_up_to_the_limit_is_read(size: int) -> None:
    reader = FrameReader()
    assert reader.feed(length(size)[:1]) == ([b""] if size == 0 else [])
    assert reader.feed(length(size)[1:] + b"x" * size) == ([] if size == 0 else [b"x" * size])


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(length(MAX_FRAME_BYTES + 1), id="one byte over the limit"),
        pytest.param(b"\xff\xff\x7f", id="the most that three bytes can say"),
        pytest.param(b"\x80\x80\x80", id="a length that does not end"),
        pytest.param(b"\xff" * 10, id="a huge length"),
        pytest.param(b"\x80\x00", id="zero in two bytes"),
        pytest.param(b"\x85\x00", id="five in two bytes"),
        pytest.param(b"\x85\x80\x00", id="five in three bytes"),
    ],
)
def test_a_frame_length_that_is_too_large_or_has_another_spelling_is_refused(header: bytes) -> None:
    for cut in range(len(header)):
        reader = FrameReader()
        code, _ = outcome(lambda: (reader.feed(header[:cut]), reader.feed(header[cut:] + b"rest")))  # noqa: B023
        assert code == "malformed"


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_stream_gives_frames_or_is_malformed(stream: bytes, step: int) -> None:
    reader = FrameReader()
    got = b""

    def feed() -> None:
        nonlocal got
        for begin in range(0, len(stream), step):
            got += b"".join(length(len(payload)) + payload for payload in reader.feed(stream[begin : begin + step]))

    code, _ = outcome(feed)
    assert stream.startswith(got)
    assert code == "malformed" or reader.unfinished == (len(got) < len(stream))


def test_a_frame_cut_short_is_noticed() -> None:
    reader = FrameReader()
    assert reader.feed(frame(Heartbeat())[:-1]) == []
    assert reader.unfinished


@pytest.mark.parametrize("size", [0, 100, 127, 128, 20_000, MAX_FRAME_BYTES - 44])
def test_a_written_frame_is_read_back(size: int) -> None:
    message = Delta(text="x" * size, tokens=1, total_tokens=1)
    assert frame(message) == length(len(encode(message))) + encode(message)
    assert FrameReader().feed(frame(message)) == [encode(message)]


def test_a_message_that_fits_no_frame_is_our_own_fault() -> None:
    with pytest.raises(LocalError, match="fit a frame"):
        frame(Delta(text="x" * MAX_FRAME_BYTES, tokens=1, total_tokens=1))


# Signed objects


def note(**changes: typing.Any) -> Note:
    return msgspec.structs.replace(Note(network=NETWORK, author=peer_id_of(CLIENT.public_key), text="hello"), **changes)


def opened(signed: Signed, network: str = NETWORK) -> Note:
    return open_signed(signed, Note, by=lambda body: body.author, network=network, verify=verify_by_peer)


def test_a_signed_body_opens_for_its_signer_and_network() -> None:
    signed = sign(note(), CLIENT)
    assert opened(signed) == note()
    assert signed.id == sign(note(), PROVIDER).id, "the id is the body's alone"


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (sign(note(), PROVIDER), "bad_signature"),
        (sign(note(author="nobody"), CLIENT), "bad_signature"),
        (Signed(encode(note()), b""), "bad_signature"),
        (Signed(encode(note()), sign(note(text="bye"), CLIENT).signature), "bad_signature"),
        (sign(note(network="mainnet"), CLIENT), "wrong_network"),
        (Signed(b"\xc1", b"s" * 64), "malformed"),
    ],
)
def test_a_signed_body_that_is_not_right_is_refused(signed: Signed, code: str) -> None:
    with pytest.raises(RemoteError) as caught:
        opened(signed)
    assert caught.value.code == code


def test_a_signature_fits_one_purpose_only() -> None:
    class Other(SignedBody, frozen=True, kw_only=True, tag="test/other/1"):
        author: Name

    signed = sign(Other(network=NETWORK, author=peer_id_of(CLIENT.public_key)), CLIENT)
    with pytest.raises(RemoteError, match="malformed"):
        opened(signed)


def test_a_body_without_its_domain_is_refused_though_signed() -> None:
    # A receipt is countersigned as it came: without a domain it could be an advert of the client's as well.
    bare = packed({name: value for name, value in msgpack.unpackb(encode(note())).items() if name != "domain"})
    with pytest.raises(RemoteError, match="malformed"):
        opened(Signed(bare, CLIENT.sign(bare)))


def test_fields_of_a_newer_version_survive_because_the_bytes_are_kept() -> None:
    newer = packed(msgpack.unpackb(encode(note())) | {"mood": "bright"})
    signed = Signed(newer, CLIENT.sign(newer))
    assert opened(signed) == note()
    again: Signed = decode(encode(signed), Signed)
    assert again == signed
    assert b"bright" in again.body


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64))
def test_nobody_else_s_signature_opens(seed: bytes, forged: bytes) -> None:
    for signature in (forged, Ed25519Signer(seed).sign(encode(note()))):
        with pytest.raises(RemoteError, match="bad_signature"):
            opened(Signed(encode(note()), signature))
