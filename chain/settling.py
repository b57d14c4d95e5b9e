"""Core: when a payee carries its voucher to the chain.

To settle costs a fee, and nothing is lost by waiting while the payer keeps still: vouchers are cumulative. So it is
done when the fee is a trifle of what it brings home, or when waiting has become a risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FEE_NANO = 1_280_000
"""What settling cost on a devnet with mainnet's prices of August 2026; until a settlement of our own tells better."""

NEARLY_USED_UP_PERCENT = 90
WORTH_A_TRIP_PERCENT = 10  # of the deposit: a channel that is nearly used up is not settled for each last crumb


class Reason(Enum):
    """Why a voucher is carried to the chain, in words for a trace."""

    CLOSING = "the payer started to close"
    RISK = "more is unsettled than the limit"
    CHEAP = "the fee is a small part of what is unsettled"
    USED_UP = "the deposit is nearly used up"
    OLD = "it has been unsettled for long"
    RETIRED = "our book of the channel is incomplete"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What there is to be said of a channel when it is looked at."""

    authorised_nano: int  # by the highest voucher
    settled_nano: int
    deposited_nano: int
    closing: bool
    unsettled_for_s: float = 0.0  # since what is settled was all that there was
    retired: bool = False  # nothing more will be earned there, so to wait saves no fee

    @property
    def unsettled_nano(self) -> int:
        """What a settlement would bring."""
        return max(0, self.authorised_nano - self.settled_nano)


@dataclass(frozen=True, kw_only=True)
class SettlePolicy:
    """The payee's settings."""

    risk_nano: int  # the most that may stay unsettled on a channel, whatever it costs
    fee_percent: int = 1  # of what is unsettled, that a fee may be; 0 for never on this account
    after_s: float = 7 * 86_400.0  # for which something may stay unsettled
    retired_wait_s: float = 7 * 86_400.0  # for vouchers that an incomplete book lacks, before we close without them

    def why(self, channel: Standing, fee_nano: int) -> Reason | None:
        """Why to settle now, if there is reason to; `fee_nano` is what it will cost.

        What does not exceed its own fee is only settled under a risk limit that is as low: otherwise it would be
        money thrown away, also when the payer closes.
        """
        unsettled = channel.unsettled_nano
        if unsettled and unsettled >= self.risk_nano:
            return Reason.RISK
        if unsettled <= fee_nano:
            return None
        used_up = channel.authorised_nano * 100 >= channel.deposited_nano * NEARLY_USED_UP_PERCENT
        worth_it = unsettled * 100 >= channel.deposited_nano * WORTH_A_TRIP_PERCENT
        reasons = {
            Reason.CLOSING: channel.closing,
            Reason.CHEAP: fee_nano * 100 <= unsettled * self.fee_percent,
            Reason.USED_UP: used_up and worth_it,
            Reason.OLD: channel.unsettled_for_s >= self.after_s,
            Reason.RETIRED: channel.retired,
        }
        return next((reason for reason, found in reasons.items() if found), None)
