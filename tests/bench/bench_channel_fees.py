"""What each operation of a channel costs, and from which volume of tokens its life costs less than one per cent.

    python tests/bench/bench_channel_fees.py

At mainnet's prices of August 2026, both W5 wallets included. Deterministic: it measures fees and not time.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "chain"), str(HERE.parent.parent)]

from channel_fees import Fee, Life, closed_by_payee, deserted, released  # noqa: E402

GRAM = 10**9
SHARE = 100  # one per cent

# Nano for a million tokens: 0.10, 0.30, 1 and 5 dollars at 1.60 dollars for a GRAM.
PRICES_NANO = (62_500_000, 187_500_000, 625_000_000, 3_125_000_000)

# Other payment channels on TON, in GRAM for one operation as their authors tell it, all from before the prices of
# April 2026 fell to a sixth: what divides by six is comparable.
OTHERS = (
    ("payment-channel-402 (README)", "init 0.004, top-up 0.004, commit 0.005, cooperative close 0.006; alone 0.015"),
    ("ton-payment-network (constants)", "accept 0.03, commit 0.03"),
    ("Cocoon (documentation)", "about 0.01 for each"),
)


def main() -> None:
    """Print the tables as Markdown."""
    lives = {
        "open, close by release": released(),
        "open, top-up, settle, close by payee": closed_by_payee(),
        "open, start close, settle by a watchtower, finalise": deserted(),
    }
    fees = {name: fee for life in lives.values() for name, fee in life.fees.items()}
    rows = ["| operation | whole fee, nano | wallets | forwarding | channel | its gas |", "|---|--:|--:|--:|--:|--:|"]
    rows += [_row(name, fee) for name, fee in fees.items()]
    prices = " | ".join(f"{price / GRAM:g} GRAM" for price in PRICES_NANO)
    rows += ["", f"| life | whole fee, nano | under 1% from | {prices} |", "|---|--:|--:|" + "--:|" * len(PRICES_NANO)]
    rows += [_volume(name, life) for name, life in lives.items()]
    rows += ["", "Volumes are in million tokens at that price for a million.", ""]
    rows += ["| other channels on TON, before April 2026 | GRAM |", "|---|---|"]
    rows += [f"| {name} | {told} |" for name, told in OTHERS]
    sys.stdout.write("\n".join(rows) + "\n")


def _row(name: str, fee: Fee) -> str:
    return f"| {name} | " + " | ".join(f"{part:,}" for part in fee) + " |"


def _volume(name: str, life: Life) -> str:
    spent = life.total * SHARE
    tokens = " | ".join(f"{spent / price:.2f}" for price in PRICES_NANO)
    return f"| {name} | {life.total:,} | {spent / GRAM:.2f} GRAM | {tokens} |"


if __name__ == "__main__":
    main()
