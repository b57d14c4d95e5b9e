"""Golden bytes for other implementations: one JSON file a topic, made from fixed seeds.

    python tests/vectors/make.py              says which files differ from what today's code makes
    python tests/vectors/make.py --overwrite   writes them anew

A difference is a change of the protocol that breaks every peer of an older version, so overwriting is a decision and
not a way to make a test pass. In the files a string that begins with `0x` is bytes in hex, and numbers are integers
except for `temperature` and `top_p`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from chain.contract.cells import channel_id, code
from chain.keys import Ed25519Signer
from chain.ledger import ChannelTerms
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, claim_bytes, claim_hash, sign_claim
from inference.engine import Message as Turn
from inference.engine import Request
from p2p.keys import peer_id_of
from p2p.protocol import advert, demand, negotiate, receipt, release, session
from p2p.protocol.price import FREE, Prices, Tokens, cost_nano
from p2p.protocol.unpaid import NO_CHANNEL, NO_KEY
from p2p.protocol.wire import Message, SignedBody, encode, frame, sign

HERE = Path(__file__).parent

NETWORK = "devnet"
GLOBAL_ID = -239
NOW = 1_800_000_000
SEEDS = {
    "provider": bytes(range(32)),  # its libp2p identity
    "client": bytes(range(32, 64)),  # its libp2p identity
    "payer": bytes(range(64, 96)),  # the channel's voucher key
    "payee": bytes(range(96, 128)),  # the channel's release key
}
SIGNERS = {role: Ed25519Signer(seed) for role, seed in SEEDS.items()}
PROVIDER = peer_id_of(SIGNERS["provider"].public_key)
CLIENT = peer_id_of(SIGNERS["client"].public_key)

TERMS = ChannelTerms(
    payer="0:" + "11" * 32,
    payee="0:" + "22" * 32,
    payer_key=SIGNERS["payer"].public_key,
    payee_key=SIGNERS["payee"].public_key,
    challenge_period_s=3600,
    open_before=NOW + 600,
    salt=b"\x55" * 32,
)
CHANNEL = b"\xc4" * 32
PRICES = Prices(input=100_000_000, cached_input=50_000_000, output=300_000_000)
TOKENS = Tokens(input=40, cached_input=0, output=3)
COST_NANO = cost_nano(PRICES, TOKENS)
SESSION = bytes(range(16))
SALT = bytes(range(16, 32))
NONCE = bytes(range(32, 48))
REQUEST = Request(model="example/model-1b", messages=(Turn(role="user", content="Hello, wörld"),), max_tokens=16)

CHANNEL_OFFER = advert.ChannelOffer(
    payee=TERMS.payee,
    payee_key=TERMS.payee_key,
    deposit_min_nano=50_000_000,
    challenge_period_s=TERMS.challenge_period_s,
)
ADVERT = advert.Advert(
    network=NETWORK,
    peer=PROVIDER,
    addresses=(f"/ip4/127.0.0.1/tcp/4001/p2p/{PROVIDER}",),
    seq=7,
    issued_at=NOW,
    expires_at=NOW + 600,
    models=(
        advert.ModelOffer(
            id="example/model-1b",
            family="example",
            quantisation="q8_0",
            digest="ab" * 32,
            context=8192,
            prices=PRICES,
            ttft_ms=120,
            tokens_per_s=40,
            slots_free=2,
            slots_total=4,
            features=("seed",),
        ),
    ),
    channel=CHANNEL_OFFER,
)
QUOTE = negotiate.Quote(
    network=NETWORK,
    provider=PROVIDER,
    client=CLIENT,
    payer_key=TERMS.payer_key,
    model="example/model-1b",
    digest="ab" * 32,
    prompt_tokens=64,
    max_tokens=16,
    prices=PRICES,
    window_nano=19_200,
    ttft_ms=120,
    tokens_per_s=40,
    channel=CHANNEL_OFFER,
    uses=1,
    issued_at=NOW,
    valid_until=NOW + 120,
    nonce=NONCE,
)
DEMAND = demand.Demand(
    network=NETWORK,
    client=CLIENT,
    addresses=(f"/ip4/127.0.0.1/tcp/4002/p2p/{CLIENT}",),
    family="example",
    seq=3,
    issued_at=NOW,
    expires_at=NOW + 600,
    wanted=demand.Wanted(
        model=QUOTE.model,
        family="example",
        per_day=5000,
        input_tokens=800,
        output_tokens=200,
        prices_max=PRICES,
        tier="attested",
        until=NOW + 30 * 86_400,
    ),
)
SIGNED_QUOTE = sign(QUOTE, SIGNERS["provider"])
FREE_QUOTE = structs.replace(QUOTE, payer_key=NO_KEY, prices=FREE, window_nano=1, free=True)
SIGNED_FREE_QUOTE = sign(FREE_QUOTE, SIGNERS["provider"])
PROGRESS = session.ProgressBody(network=NETWORK, session=SESSION, prompt_tokens_done=40)
RECEIPT = receipt.Receipt(
    network=NETWORK,
    session=SESSION,
    quote_id=SIGNED_QUOTE.id,
    client=CLIENT,
    provider=PROVIDER,
    model=QUOTE.model,
    digest=QUOTE.digest,
    request_hash=receipt.request_hash(SALT, encode(REQUEST)),
    response_hash=bytes.fromhex("334d016f755cd6dc58c53a86e183882f8ec14f52fb05345887c8a5edd42c87b7"),  # of "Hello!"
    sampling=receipt.Sampling(max_tokens=16, temperature=0.0, top_p=1.0, seed=0),
    tokens=TOKENS,
    reason="stop",
    prices=PRICES,
    session_total_nano=COST_NANO,
    channel=CHANNEL,
    channel_total_nano=COST_NANO,
    finished_at=NOW + 2,
    ttft_ms=110,
    duration_ms=200,
    promised_ttft_ms=120,
    promised_tokens_per_s=40,
)
SIGNED_RECEIPT = sign(RECEIPT, SIGNERS["provider"])
COUNTERSIGNED = receipt.countersign(SIGNED_RECEIPT, SIGNERS["client"])


def payment(amount_nano: int) -> session.Payment:
    """A voucher for `amount_nano` on the example channel, the only session of which this is."""
    claim = sign_claim(SIGNERS["payer"], VOUCHER_TAG, GLOBAL_ID, CHANNEL, amount_nano)
    return session.Payment(session_total_nano=amount_nano, channel_total_nano=amount_nano, signature=claim.signature)


START = session.Start(
    session=SESSION, quote=SIGNED_QUOTE, channel=CHANNEL, request=encode(REQUEST), salt=SALT, payment=payment(400)
)
NO_PAYMENT = session.Payment(session_total_nano=0, channel_total_nano=0, signature=bytes(64))
CLOSE = session.Close(countersignature=COUNTERSIGNED.countersignature, payment=payment(COST_NANO))
LAST_VOUCHER = sign_claim(SIGNERS["payer"], VOUCHER_TAG, GLOBAL_ID, CHANNEL, COST_NANO)
RELEASE = sign_claim(SIGNERS["payee"], RELEASE_TAG, GLOBAL_ID, CHANNEL, COST_NANO)
REFUSAL = negotiate.Refusal(reason="busy", detail="every slot is in use", prices=PRICES, retry_after_s=5)

MESSAGES: dict[str, tuple[Message, ...]] = {
    advert.PROTOCOL: (advert.Pull(),),
    negotiate.PROTOCOL: (
        negotiate.Ask(
            model=QUOTE.model, prompt_tokens=64, max_tokens=16, payer_key=TERMS.payer_key, nonce=NONCE, tier="open"
        ),
        negotiate.Ask(
            model=QUOTE.model,
            prompt_tokens=64,
            max_tokens=16,
            payer_key=TERMS.payer_key,
            nonce=NONCE,
            uses=5000,
            until=NOW + 86_400,
        ),
        negotiate.Offer(quote=SIGNED_QUOTE, final=True),
        negotiate.Counter(prices=Prices(90_000_000, 45_000_000, 270_000_000)),
        negotiate.Accept(quote_id=SIGNED_QUOTE.id),
        negotiate.GiveBack(quote_id=SIGNED_QUOTE.id),
        negotiate.Accepted(quote_id=SIGNED_QUOTE.id, hold_until=NOW + 30),
        REFUSAL,
        negotiate.Refusal(reason="busy"),
        negotiate.Ask(
            model=QUOTE.model, prompt_tokens=64, max_tokens=16, payer_key=NO_KEY, nonce=NONCE, tier="open", free=True
        ),
        negotiate.Offer(quote=SIGNED_FREE_QUOTE, final=True),
    ),
    session.PROTOCOL: (
        START,
        session.Begun(prompt_tokens=40, delivered_nano=0, accepted_nano=0),
        session.Payment(session_total_nano=400, channel_total_nano=400, signature=START.payment.signature),
        session.Progress(progress=sign(PROGRESS, SIGNERS["provider"])),
        session.Delta(text="Hello", tokens=1, total_tokens=1),
        session.Pause(due_nano=4000),
        session.Cancel(),
        session.Finished(receipt=SIGNED_RECEIPT),
        CLOSE,
        session.Heartbeat(),
        session.End(),
        structs.replace(START, quote=SIGNED_FREE_QUOTE, channel=NO_CHANNEL, payment=NO_PAYMENT),
    ),
    release.PROTOCOL: (
        release.CloseRequest(channel=CHANNEL, amount_nano=COST_NANO, signature=LAST_VOUCHER.signature),
        release.Released(channel=CHANNEL, amount_nano=COST_NANO, signature=RELEASE.signature),
        release.Released(
            channel=CHANNEL,
            amount_nano=COST_NANO,
            signature=RELEASE.signature,
            voucher_nano=LAST_VOUCHER.amount_nano,
            voucher_signature=LAST_VOUCHER.signature,
        ),
    ),
}


def plain(value: Any) -> Any:
    """As JSON can hold it: bytes become `0x…`."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.to_builtins(value, builtin_types=(bytes,)))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def frames() -> Any:
    """Every message as it stands on a stream. A field that has its default value is left out."""
    return {
        protocol: [{"fields": plain(message), "frame": plain(frame(message))} for message in messages]
        for protocol, messages in MESSAGES.items()
    }


def signed_objects() -> Any:
    """Signed bodies: what is signed (Ed25519) is `body`, the id is its SHA-256, `signed` is what travels."""
    bodies: dict[str, tuple[str, SignedBody]] = {
        "advert": ("provider", ADVERT),
        "demand": ("client", DEMAND),
        "quote": ("provider", QUOTE),
        "progress": ("provider", PROGRESS),
        "receipt": ("provider", RECEIPT),
    }
    objects: dict[str, Any] = {}
    for name, (signer, body) in bodies.items():
        signed = sign(body, SIGNERS[signer])
        objects[name] = {
            "signer": signer,
            "fields": plain(body),
            "body": plain(signed.body),
            "id": plain(signed.id),
            "signature": plain(signed.signature),
            "signed": plain(encode(signed)),
        }
    objects["receipt"] |= {
        "countersignature": plain(COUNTERSIGNED.countersignature),
        "countersigned": plain(encode(COUNTERSIGNED)),
        "request": plain(encode(REQUEST)),
        "salt": plain(SALT),
        "response": "Hello!",
    }
    return objects


def claims() -> Any:
    """Vouchers (signed by the payer's key) and releases (by the payee's): 48 bytes, the hash signed, the signature."""
    amounts = (0, 1, COST_NANO, (1 << 63) - 1)
    return [
        {
            "kind": kind,
            "signer": role,
            "global_id": GLOBAL_ID,
            "channel": plain(CHANNEL),
            "amount_nano": amount,
            "bytes": plain(claim_bytes(tag, GLOBAL_ID, CHANNEL, amount)),
            "hash": plain(claim_hash(tag, GLOBAL_ID, CHANNEL, amount)),
            "signature": plain(sign_claim(SIGNERS[role], tag, GLOBAL_ID, CHANNEL, amount).signature),
        }
        for kind, tag, role in (("voucher", VOUCHER_TAG, "payer"), ("release", RELEASE_TAG, "payee"))
        for amount in amounts
    ]


def channels() -> Any:
    """What a channel's account id commits to: the contract's code and these terms."""
    found = {"code_hash": plain(code().hash), "code_depth": code().get_depth(0)}
    return [found | {"terms": plain(TERMS), "channel": plain(channel_id(TERMS))}]


def identities() -> Any:
    """The keys of all the other files, and the peer ids that they give."""
    return {
        role: {
            "seed": plain(SEEDS[role]),
            "public_key": plain(signer.public_key),
            "peer_id": peer_id_of(signer.public_key),
        }
        for role, signer in SIGNERS.items()
    }


def costs() -> Any:
    """ceil(sum of tokens x price / 10^6). Prices and tokens are [input, cached input, output]."""
    cases = [
        (Prices(1, 1, 1), Tokens(0, 0, 0)),
        (Prices(1, 1, 1), Tokens(1, 0, 0)),
        (Prices(1, 1, 1), Tokens(400_000, 300_000, 300_000)),
        (Prices(1, 1, 1), Tokens(400_000, 300_000, 300_001)),
        (PRICES, TOKENS),
        (Prices((1 << 53) - 1, 0, 0), Tokens(1 << 31, 0, 0)),
    ]
    return [{"prices": plain(p), "tokens": plain(t), "cost_nano": cost_nano(p, t)} for p, t in cases]


def refused() -> Any:
    """Bytes that a reader must refuse, and why. `frames` begin a stream; `payloads` are what a frame holds."""
    beat = encode(session.Heartbeat())
    delta = {"type": "delta", "text": "a", "tokens": 1, "total_tokens": 1}

    def with_field(value: bytes) -> bytes:
        """A heartbeat with one more field, `x`."""
        return b"\x82" + beat[1:] + b"\xa1x" + value

    frames = {
        "a length above 2^20": b"\x81\x80\x40",
        "a length that does not end within three bytes": b"\x80\x80\x80",
        "a length with needless bytes": bytes([len(beat) | 0x80, 0]) + beat,
    }
    payloads = {
        "nothing": b"",
        "not a map": b"\xc0",
        "no type": b"\x80",
        "an unknown type": packed({"type": "unheard of"}),
        "trailing bytes": beat + b"\x00",
        "the same key twice": b"\x82" + beat[1:] * 2,
        "a key that is not a string": b"\x82" + beat[1:] + b"\x01\x02",
        "an extension type": with_field(b"\xd4\x05\x00"),
        "a timestamp": with_field(b"\xd6\xff\x00\x00\x00\x00"),
        "a string that is not UTF-8": with_field(b"\xa1\xff"),
        "nested nine deep": with_field(b"\x91" * 8 + b"\xc0"),
        "an array of 4097": with_field(b"\xdc\x10\x01" + b"\xc0" * 4097),
        "a missing field": packed({name: delta[name] for name in ("type", "text", "tokens")}),
        "a negative count": packed(delta | {"tokens": -1}),
        "a number for a string": packed(delta | {"text": 1}),
    }
    return {"frames": plain(frames), "payloads": plain(payloads)}


def packed(value: Any) -> bytes:
    """MessagePack as any library writes it."""
    return msgspec.msgpack.encode(value)


TOPICS = {
    "frames": frames,
    "signed_objects": signed_objects,
    "claims": claims,
    "channels": channels,
    "identities": identities,
    "costs": costs,
    "refused": refused,
}


def text(topic: str) -> str:
    """A topic's file, as today's code makes it."""
    make = TOPICS[topic]
    return json.dumps({"about": make.__doc__, "vectors": make()}, indent=1, ensure_ascii=False) + "\n"


def path(topic: str) -> Path:
    """Where a topic's file is."""
    return HERE / f"{topic}.json"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--overwrite", action="store_true", help="break with older versions: write the files anew")
    overwrite = parser.parse_args().overwrite
    changed = [
        topic for topic in TOPICS if not path(topic).exists() or path(topic).read_text(encoding="utf-8") != text(topic)
    ]
    for topic in changed:
        if overwrite:
            path(topic).write_text(text(topic), encoding="utf-8")
        sys.stdout.write(f"{path(topic).name}: {'written' if overwrite else 'differs'}\n")
    return int(bool(changed) and not overwrite)


if __name__ == "__main__":
    sys.exit(main())
