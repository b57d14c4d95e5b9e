"""Vouchers created and verified per second on one core, against bare Ed25519 in the same run.

    PYTHONPATH=. python tests/bench/bench_vouchers.py [--json]

Bare Ed25519 is libsodium through PyNaCl's bindings over 32 bytes that are ready: what a voucher cannot be cheaper than.
Each round times all four in turn, so that a machine that slows down slows all of them; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

from chain.channel import Payee, Payer
from chain.keys import Ed25519Signer, verify
from chain.voucher import Claim

ROUNDS, PER_ROUND = 25, 400
RATIO_MIN = 0.8  # promised
SEED, CHANNEL, GLOBAL_ID = b"v" * 32, bytes(range(32)), -239
DEPOSIT_NANO = 1 << 62


def measure() -> dict[str, float]:
    """Rates per second, and the two ratios."""
    public_key, secret_key = crypto_sign_seed_keypair(SEED)
    message = bytes(32)
    signed = crypto_sign(message, secret_key)
    payer = Payer(CHANNEL, GLOBAL_ID, Ed25519Signer(SEED), deposited_nano=DEPOSIT_NANO)
    payee = Payee(CHANNEL, GLOBAL_ID, public_key, verify, deposited_nano=DEPOSIT_NANO)
    rounds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[int], object]) -> None:
        began = time.process_time()
        for number in range(PER_ROUND):
            work(number)
        rounds.setdefault(name, []).append(PER_ROUND / (time.process_time() - began))

    claims: list[Claim] = []
    for _ in range(ROUNDS):
        claims.clear()
        timed("bare signatures", lambda _: crypto_sign(message, secret_key))
        timed("vouchers created", lambda _: claims.append(payer.authorise(payer.authorised_nano + 1)))
        timed("bare verifications", lambda _: crypto_sign_open(signed, public_key))
        timed("vouchers verified", lambda number: payee.accept(claims[number]))
        assert payee.accepted == claims[-1]
    rates = {name: median(each) for name, each in rounds.items()}
    ratios = {
        "created / bare": ("vouchers created", "bare signatures"),
        "verified / bare": ("vouchers verified", "bare verifications"),
    }
    for name, (ours, bare) in ratios.items():
        rates[name] = median(one / other for one, other in zip(rounds[ours], rounds[bare], strict=True))
    return rates


def table(rates: dict[str, float]) -> list[str]:
    """In Markdown."""
    rows = [
        ("created and signed", "vouchers created", "bare signatures", "created / bare"),
        ("checked and verified", "vouchers verified", "bare verifications", "verified / bare"),
    ]
    return [
        "| vouchers | per second and core | bare Ed25519 | ratio |",
        "|---|---|---|---|",
        *(
            f"| {what} | {rates[ours]:,.0f} | {rates[bare]:,.0f} | {rates[ratio]:.2f} |"
            for what, ours, bare, ratio in rows
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    rates = measure()
    print(json.dumps(rates) if parser.parse_args().json else "\n".join(table(rates)))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
