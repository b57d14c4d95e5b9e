"""What a channel costs on chain, beside what other channels on TON say of themselves, and from when that is little."""

from __future__ import annotations

from collections.abc import Sequence

from channel_fees import Life, closed_by_payee, deserted, released

GRAM = 10**9
SMALL_PART = 100  # "little" is a hundredth
OUTPUT_PRICES = (60_000_000, 180_000_000, 600_000_000)  # nano per million tokens
LIVES: dict[str, tuple[Life, int]] = {
    "open, close by release": (released(), 3_500_000),
    "open, top up, settle, close by payee": (closed_by_payee(), 5_600_000),
    "open, start close, settle by a watchtower, finalise": (deserted(), 5_600_000),
}

# From their own code and pages, when gas cost six times what it has since April 2026.
OTHERS = [
    ("ton-blockchain/payment-channels (FunC)", "two-way", "none stated"),
    ("xssnick/payment-channel-contract (Tolk)", "two-way", "accept 0.03, commit 0.03 GRAM, as constants"),
    ("TONresistor/payment-channel-402 (Tolk)", "two-way", "0.004 to 0.006 GRAM an operation, about 0.03 a life"),
    ("Cocoon (FunC)", "client to proxy to worker", "about 0.01 GRAM an operation"),
]


def run() -> Sequence[str]:
    """Markdown. Raises `AssertionError` if a life costs more than was promised."""
    for name, (life, most) in LIVES.items():
        assert life.total <= most, f"{name} costs {life.total} nano, of {most}"
    fees = {name: fee for life, _ in LIVES.values() for name, fee in life.fees.items()}
    return [
        "On the real TVM at mainnet's prices of August 2026, in nano, rent apart; W5 wallets included.",
        "",
        "| operation | gas | contract | forwarding | wallets | in all |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {fee.gas:,} | {fee.channel:,} | {fee.forwarding:,} | {fee.wallets:,} | {fee.total:,} |"
            for name, fee in fees.items()
        ),
        "",
        "| a channel's life | in all | promised |",
        "|---|---|---|",
        *(
            f"| {name} | {life.total / GRAM:.5f} GRAM | {most / GRAM:.4f} GRAM |"
            for name, (life, most) in LIVES.items()
        ),
        "",
        "What others state of themselves, not measured here, and before gas fell to a sixth in April 2026:",
        "",
        "| contract | money flows | fees |",
        "|---|---|---|",
        *(f"| {name} | {kind} | {says} |" for name, kind, says in OTHERS),
        "",
        "Output tokens over one channel from which its whole life costs under 1%:",
        "",
        "| price per million tokens | " + " | ".join(LIVES) + " |",
        "|---" * (1 + len(LIVES)) + "|",
        *(_row(price) for price in OUTPUT_PRICES),
    ]


def _row(price: int) -> str:
    counts = (-(-life.total * SMALL_PART * 1_000_000 // price) for life, _ in LIVES.values())
    return f"| {price / GRAM:.2f} GRAM | " + " | ".join(f"{count:,}" for count in counts) + " |"
