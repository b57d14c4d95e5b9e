"""`earnings` on the command line: what was earned with which model on which day, and what it cost to be paid."""

from __future__ import annotations

from collections.abc import Sequence

from chain.records import DayFees, Earning, open_records
from p2p.console import Session
from p2p.foreign import translated
from p2p.home import Home
from p2p.purchase import amount


async def earnings(session: Session) -> None:
    """The provider's, from its receipts; `settled` is the part of them that is paid out on chain."""
    network = session.network().chain_network
    with translated(), open_records(Home(session.config, "payee").book, "payee", network) as records:
        earned, fees = records.earnings(), records.fees()
        settled_nano = sum(channel.settled_nano for channel in records.channels())
    fee_nano = sum(day.fee_nano for day in fees)
    if session.options.json:
        session.print_json({"models": earned, "fees": fees, "settled_nano": settled_nano, "fee_nano": fee_nano})
        return
    if not earned:
        session.story.say("Nothing was sold yet.")
    for day in sorted({each.day for each in earned} | {each.day for each in fees}):
        session.story.table(day, _rows(day, earned, fees))
    session.story.table(
        "in all",
        [("settled", amount(settled_nano)), ("fees", amount(fee_nano)), ("left", amount(settled_nano - fee_nano))],
    )


def _rows(day: str, earned: Sequence[Earning], fees: Sequence[DayFees]) -> list[tuple[str, str]]:
    rows = [
        (
            each.model or "model not known",
            f"{each.answers} answers, earned {amount(each.earned_nano)}, settled {amount(each.settled_nano)}",
        )
        for each in earned
        if each.day == day
    ]
    return rows + [
        (f"{each.settlements} settlements", f"fees {amount(each.fee_nano)}") for each in fees if each.day == day
    ]
