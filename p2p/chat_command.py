"""`chat`: a conversation, line by line. It is kept in memory until it ends, and nothing of it is on any disk."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import trio
from rich.markup import escape

from inference.engine import Message
from p2p.console import Session
from p2p.errors import Error, LocalError, Refused
from p2p.purchase import Purchase, amount

MAX_UNREAD_BYTES = 1 << 20
NEW = "/new"
STDIN = 0

Buy = Callable[[tuple[Message, ...]], Awaitable[Purchase]]


async def run(session: Session, buy: Buy) -> None:
    """Until the input ends. What is refused is said, and the conversation goes on from before it.

    Raises `LocalError` for what would be wrong with every question.
    """
    told: tuple[Message, ...] = ()
    all_nano = 0
    session.story.say(f"Type a question. {NEW} begins another conversation, Ctrl-D ends it.")
    async for line in _lines():
        if line == NEW:
            told = ()
            continue
        asked = (*told, Message("user", line))
        try:
            bought = await buy(asked)
        except LocalError:
            raise
        except Error as error:
            hint = f"; {NEW} begins another conversation" if isinstance(error, Refused) and told else ""
            session.story.say(f"[red]{escape(str(error))}[/]{hint}")
            continue
        told = (*asked, Message("assistant", bought.text))
        all_nano += bought.cost_nano
        if session.options.json:
            session.print_json(bought.summary)
        session.story.say(f"[dim]{amount(bought.cost_nano)}; {amount(all_nano)} in all[/]")


async def _lines() -> AsyncIterator[str]:
    """What is typed or piped in, but for empty lines. In a terminal each is asked for."""
    unread = b""
    while True:
        _prompt()
        while b"\n" not in unread:
            data = await _read()
            if not data:
                if last := _text(unread):
                    yield last
                return
            unread += data
            if len(unread) > MAX_UNREAD_BYTES:
                raise LocalError("that is too long for a line")
        line, _, unread = unread.partition(b"\n")
        if text := _text(line):
            yield text


async def _read() -> bytes:
    """Ctrl-C is heard meanwhile, as it would not be in a thread that reads."""
    with suppress(PermissionError):  # how epoll says that a file is always ready
        await trio.lowlevel.wait_readable(STDIN)
    return os.read(STDIN, 1 << 16)


def _prompt() -> None:
    if os.isatty(STDIN):
        sys.stderr.write("> ")
        sys.stderr.flush()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()
