"""A Telegram bot that chats, summarises, drafts and translates, within what each of its users may spend in a day.

    pip install 'bombyx[telegram]'
    python -m p2p.node wallet create      # and send GRAM to it, or on a devnet: python -m p2p.node wallet fund
    TELEGRAM_BOT_TOKEN=… python -m examples.telegram_bot

The token is what BotFather gives. Network, wallet and model are those of `ask`: BOMBYX_HOME, BOMBYX_NETWORK and
BOMBYX_ASK_MODEL name others. Answers come from the home's channels, whose opening costs fees that are not the users'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from telegram import BotCommand
from telegram.error import TelegramError
from telegram.ext import Application

from examples.telegram_bot.allowance import Allowance, Limits, open_allowance
from examples.telegram_bot.bot import Bot
from p2p.config import Config, load
from p2p.embed_portal import AsyncioClient
from p2p.ending import explain
from p2p.errors import Error, LocalError, Unavailable

TOKEN = "TELEGRAM_BOT_TOKEN"  # noqa: S105 - the variable's name
AT_ONCE_MAX = 64  # messages that are being answered; others wait
COMMANDS = {
    "summarise": "what a text says, in few words",
    "draft": "a text such as you wish",
    "translate": "the same in another language",
    "budget": "what you may still spend today",
    "new": "forget what we said",
    "help": "what I can do",
}


def main() -> None:
    """Run the bot until Ctrl-C."""
    os.environ.setdefault("PTB_TIMEDELTA", "1")  # durations as the library's next release has them
    try:
        options = _options()
        token = os.environ.pop(TOKEN, "")
        if not token:
            raise LocalError(f"{TOKEN} is not set: ask BotFather for a token, and put it there")
        config = load(None, os.environ, {})
        limits = Limits(options.user_day_nano, options.day_nano, options.answer_nano)
        config.home_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_allowance(config.home_path / "telegram.sqlite", limits) as allowance:
            asyncio.run(_serve(token, options.api, config, allowance))
    except Error as error:
        sys.exit(explain(error, as_json=False))


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m examples.telegram_bot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--user-day-nano", type=int, default=10_000_000, metavar="N", help="each user's, a day (10^7)")
    parser.add_argument("--day-nano", type=int, default=100_000_000, metavar="N", help="all users', a day (10^8)")
    parser.add_argument("--answer-nano", type=int, default=1_000_000, metavar="N", help="an answer's, at most (10^6)")
    parser.add_argument("--api", default="https://api.telegram.org", metavar="URL", help="a Bot API server of your own")
    return parser.parse_args(words)


async def _serve(token: str, api: str, config: Config, allowance: Allowance) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    application = Application.builder().token(token).base_url(f"{api}/bot").concurrent_updates(AT_ONCE_MAX).build()
    try:
        async with application, AsyncioClient(config) as client:
            Bot(client, allowance).handle(application)
            assert application.updater is not None  # as the builder makes it
            await application.bot.set_my_commands([BotCommand(*each) for each in COMMANDS.items()])
            await application.updater.start_polling(allowed_updates=["message"])
            await application.start()
            await stop.wait()
            await application.updater.stop()
            await application.stop()
    except TelegramError as error:
        raise Unavailable(f"Telegram: {error.message}") from None


if __name__ == "__main__":
    main()
