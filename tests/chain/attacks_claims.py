"""Attacks with vouchers and releases: forged, changed, replayed, carried elsewhere or used for another purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from attack import Attack, opened, payer_releases, settled_all, settled_once
from channel_world import (
    DEPOSIT,
    GRAM,
    NOW,
    PAYEE,
    PAYEE_KEY,
    PAYER,
    PAYER_KEY,
    SIGNED,
    STRANGER,
    STRANGER_KEY,
    World,
)
from pytoniq_core import Address

from chain.contract import cells
from chain.devnet.chain import GLOBAL_ID
from chain.voucher import RELEASE_TAG, VOUCHER_TAG, Claim, Signer, claim_bytes, sign_claim

MORE = SIGNED + 1  # than the payer ever signed
TESTNET = -3
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

OTHER_SALT = World(salt=bytes(31) + b"\x02").channel  # the same two, another time


def _settles(claim: Callable[[World], Claim], source: Address = PAYEE) -> Callable[[World], object]:
    return lambda world: world.settle(claim(world), source)


def _closes(claim: Callable[[World], Claim]) -> Callable[[World], object]:
    return lambda world: world.close_by_payee(claim(world))


def _releases(claim: Callable[[World], Claim]) -> Callable[[World], object]:
    return lambda world: world.close_by_release(claim(world))


def _signed_for(
    amount: int,
    *,
    channel: bytes | None = None,
    network: int = GLOBAL_ID,
    key: Signer = PAYER_KEY,
    tag: int = VOUCHER_TAG,
) -> Callable[[World], Claim]:
    """A claim that is good somewhere else."""
    return lambda world: sign_claim(key, tag, network, channel or world.channel, amount)


def _over(message: Callable[[bytes], bytes]) -> Callable[[World], Claim]:
    """A signature of the payer's over something else that is made of a claim's 48 bytes."""

    def claim(world: World) -> Claim:
        signed = message(claim_bytes(VOUCHER_TAG, GLOBAL_ID, world.channel, MORE))
        return Claim(world.channel, MORE, PAYER_KEY.sign(signed))

    return claim


def _resigned(amount: int, change: Callable[[bytes], bytes]) -> Callable[[World], Claim]:
    """The highest voucher with its signature changed, and perhaps its amount."""
    return lambda world: Claim(world.channel, amount, change(world.voucher(SIGNED).signature))


def _flipped(byte: int) -> Callable[[bytes], bytes]:
    return lambda signature: signature[:byte] + bytes([signature[byte] ^ 1]) + signature[byte + 1 :]


def _plus_order(signature: bytes) -> bytes:
    """The other form of the same signature that lax verifiers take."""
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    return signature[:32] + s.to_bytes(32, "little")


def _settled_then_topped_up(world: World) -> None:
    settled_all(world)
    world.top_up(GRAM)


def _first_of_two(world: World) -> None:
    opened(world)
    world.settle(world.voucher(SIGNED), STRANGER)


def _given_by_a_stranger(world: World) -> None:
    opened(world)
    world.send(STRANGER, cells.start_close(), 2 * GRAM, bounce=False)


def _every_older(world: World) -> None:
    for amount in (0, 1, SIGNED // 4, SIGNED // 2 - 1, SIGNED // 2):
        world.settle(world.voucher(amount))


def _redeployed() -> World:
    """The channel between the same two that came after the one whose claims are replayed."""
    return World(salt=bytes(31) + b"\x03", open_before=NOW + 900)


FORGED: dict[str, tuple[Address, Callable[[World], Claim]]] = {
    "signed by a stranger": (STRANGER, lambda w: w.voucher(MORE, signer=STRANGER_KEY)),
    "signed by the payee itself": (PAYEE, lambda w: w.voucher(MORE, signer=PAYEE_KEY)),
    "with a raised amount": (PAYEE, lambda w: msgspec.structs.replace(w.voucher(SIGNED), amount_nano=MORE)),
    "with a lowered amount": (PAYER, lambda w: msgspec.structs.replace(w.voucher(SIGNED), amount_nano=1)),
    "with the first bit of its signature flipped": (STRANGER, _resigned(SIGNED, _flipped(0))),
    "with the middle of its signature changed": (STRANGER, _resigned(SIGNED, _flipped(32))),
    "with the last bit of its signature flipped": (STRANGER, _resigned(SIGNED, _flipped(63))),
    "with the halves of its signature swapped": (STRANGER, _resigned(SIGNED, lambda s: s[32:] + s[:32])),
    "with an empty signature": (STRANGER, _resigned(MORE, lambda _: bytes(64))),
    "with the signature's other form": (STRANGER, _resigned(SIGNED, _plus_order)),
    "with a signature over the bare 48 bytes": (PAYEE, _over(lambda claim: claim)),
    "with a signature over the hash of the bare 48 bytes": (PAYEE, _over(lambda claim: hashlib.sha256(claim).digest())),
    "of testnet": (PAYEE, _signed_for(MORE, network=TESTNET)),
    "of network 0": (PAYEE, _signed_for(MORE, network=0)),
    "of another channel between the same two": (PAYEE, _signed_for(MORE, channel=OTHER_SALT)),
    "of channel 0": (PAYEE, _signed_for(MORE, channel=bytes(32))),
    "that is a release by the payee": (PAYEE, lambda w: w.release(MORE)),
    "that is a release by the payer": (PAYEE, lambda w: w.voucher(MORE, tag=RELEASE_TAG)),
    "under a tag of another kind": (PAYEE, _signed_for(MORE, tag=0)),
}
FORGED_RELEASES: dict[str, Callable[[World], Claim]] = {
    "signed by the payer": lambda w: w.release(0, signer=PAYER_KEY),
    "signed by a stranger": lambda w: w.release(0, signer=STRANGER_KEY),
    "with a lowered amount": lambda w: msgspec.structs.replace(w.release(SIGNED), amount_nano=1),
    "with an empty signature": lambda w: Claim(w.channel, 0, bytes(64)),
    "of another channel between the same two": _signed_for(0, channel=OTHER_SALT, key=PAYEE_KEY, tag=RELEASE_TAG),
    "of testnet": _signed_for(0, network=TESTNET, key=PAYEE_KEY, tag=RELEASE_TAG),
    "that is a voucher by the payer": lambda w: w.voucher(0),
    "that is a voucher by the payee": lambda w: w.release(0, tag=VOUCHER_TAG),
}


ATTACKS = (
    *(
        Attack(f"settles a voucher {how}", by, "ERR_BAD_SIGNATURE", _settles(claim, by))
        for how, (by, claim) in FORGED.items()
    ),
    *(
        Attack(f"closes with a voucher {how}", PAYEE, "ERR_BAD_SIGNATURE", _closes(claim))
        for how, (by, claim) in FORGED.items()
        if by == PAYEE
    ),
    *(
        Attack(f"the payer closes by a release {how}", PAYER, "ERR_BAD_SIGNATURE", _releases(claim))
        for how, claim in FORGED_RELEASES.items()
    ),
    Attack(
        "settles a voucher of the channel's former address",
        PAYEE,
        "ERR_BAD_SIGNATURE",
        _settles(_signed_for(MORE, channel=World().channel)),
        world=_redeployed,
    ),
    # replay
    Attack(
        "settles the same voucher again",
        PAYEE,
        "ERR_STALE_CLAIM",
        _settles(lambda w: w.voucher(SIGNED)),
        settled_all,
    ),
    Attack(
        "two strangers carry one voucher, and the second is paid again",
        PAYEE,
        "ERR_STALE_CLAIM",
        lambda w: w.settle(w.voucher(SIGNED), STRANGER),
        _first_of_two,
    ),
    Attack("settles every older voucher", PAYEE, "ERR_STALE_CLAIM", _every_older, settled_once),
    Attack(
        "settles a voucher again after a top-up",
        PAYEE,
        "ERR_STALE_CLAIM",
        _settles(lambda w: w.voucher(SIGNED)),
        _settled_then_topped_up,
    ),
    Attack("settles a voucher for nothing", STRANGER, "ERR_STALE_CLAIM", _settles(lambda w: w.voucher(0), STRANGER)),
    Attack(
        "the payee is made to close with an old voucher, and pays the payer",
        PAYER,
        "ERR_STALE_CLAIM",
        lambda w: w.close_by_payee(w.voucher(SIGNED // 2 - 10_000_000)),
        settled_once,
    ),
    Attack(
        "the payer closes by an old release, below what was settled",
        PAYER,
        "ERR_STALE_CLAIM",
        _releases(lambda w: w.release(SIGNED // 2 - 1)),
        settled_once,
    ),
    # more than there is
    Attack(
        "settles a voucher over the deposit, signed by the payer",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _settles(lambda w: w.voucher(DEPOSIT + 1)),
    ),
    Attack(
        "settles a voucher over the deposit and takes the prepaid rent",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _settles(lambda w: w.voucher(w.balance)),
    ),
    Attack(
        "settles the highest voucher that there can be",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _settles(lambda w: w.voucher(2**64 - 1)),
    ),
    Attack(
        "closes with a voucher over the deposit",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _closes(lambda w: w.voucher(DEPOSIT + 1)),
    ),
    Attack(
        "the payer closes by a release over the deposit",
        PAYER,
        "ERR_OVER_DEPOSIT",
        _releases(lambda w: w.release(DEPOSIT + 1)),
        after=payer_releases,
    ),
    Attack(
        "settles over the deposit what a stranger gave to the channel",
        PAYEE,
        "ERR_OVER_DEPOSIT",
        _settles(lambda w: w.voucher(2 * DEPOSIT)),
        _given_by_a_stranger,
    ),
)
