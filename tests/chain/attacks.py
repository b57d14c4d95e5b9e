"""All attacks on the channel contract, by name."""

from __future__ import annotations

import attacks_accounts
import attacks_calls
import attacks_claims
import attacks_messages
import attacks_money
from attack import Attack

_THEMES = (attacks_calls, attacks_claims, attacks_messages, attacks_money, attacks_accounts)

ATTACKS: dict[str, Attack] = {attack.name: attack for theme in _THEMES for attack in theme.ATTACKS}

assert len(ATTACKS) == sum(len(theme.ATTACKS) for theme in _THEMES), "two attacks of one name"

# Of the findings that an audit of the payment channel "pc402" lists, each with the attacks that try it here, or why it
# cannot apply to a channel that is one cumulative amount.
FINDINGS: dict[str, tuple[str, ...] | str] = {
    "F1 a commit is replayed": (
        "settles the same voucher again",
        "settles every older voucher",
        "settles a voucher again after a top-up",
    ),
    "F2 a cooperative close without a sequence number is replayed": (
        "the payer closes by an old release, below what was settled",
        "the payer deploys a closed channel again and closes it by an old release",
    ),
    "F3 the two half channels are not checked against each other": "there is one direction, and one amount",
    "F4 the quarantine is extended for ever": ("the payer starts to close again and again, to move the end",),
    "F5 a challenge replaces both sides": "there is no challenge: a voucher only ever adds to what the payee has",
    "F6 a top-up during a dispute": ("the payer tops up while closing, so that the payee goes on serving",),
    "F7 a fine hits the honest": "there are no fines",
    "F8 anybody may finish": (
        "a stranger finalises a second early",
        "a stranger finalises an open channel",
        "finalises with value for gas and not for messages",
    ),
    "F9 the order of payouts": ("dust is all that is owed, so that its payout fails the payer's close",),
    "F10 the gas of conditional payments": "there are no conditional payments; no operation has a loop",
    "F11 is not among those that the notes name": "nothing to try",
    "F12 bounces are switched off": ("a settle pretends to have bounced", "a top-up pretends to have bounced"),
    "F13 the order of payouts when the balance is short": (
        "four years' rent and the payee closes, and a stranger pokes the channel",
        "four years' rent and the payer closes by release, and a stranger pokes the channel",
    ),
}
