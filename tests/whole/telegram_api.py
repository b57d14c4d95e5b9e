"""What a bot sees of Telegram: its HTTP API on loopback, the messages of one person, and all that the bot shows."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from processes import LIMIT_S

TOKEN = "12345:token"
BOT = {"id": 12345, "is_bot": True, "first_name": "Silk", "username": "silk_bot"}
LENGTH_MAX = 4096


class Refusal(Exception):
    """What the API answers instead."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.body = {"ok": False, "error_code": status, "description": description, "parameters": parameters}


class Telegram:
    """One bot's side of it. Shapes: https://core.telegram.org/bots/api."""

    def __init__(self) -> None:
        self.shown: dict[int, str] = {}  # by the message's number: what the bot has it say now
        self.commands: list[dict[str, str]] = []
        self.floods = 0  # edits that are still to be refused
        self._numbers = itertools.count(1)
        self._updates: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._news = threading.Condition()

    def write(self, text: str, user: int = 7, **more: Any) -> int:
        """A person writes to the bot. The message's number."""
        number = next(self._numbers)
        message = self._message(number, text, user) | {"from": {"id": user, "is_bot": False, "first_name": "Ann"}}
        if text.startswith("/"):
            length = len(text.partition(" ")[0])
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
        self._updates.put({"update_id": number, "message": message | more})
        return number

    def wait(self, look: Callable[[list[str]], Any]) -> list[str]:
        """All that the bot shows, as soon as `look` finds it right."""
        with self._news:
            assert self._news.wait_for(lambda: look(list(self.shown.values())), LIMIT_S), self.shown
            return list(self.shown.values())

    def answer(self, text: str, user: int = 7, **more: Any) -> str:
        """A person writes, and this is what the bot has it come to: it ends with the cost, or is one sentence."""
        with self._news:
            self.shown.clear()
        self.write(text, user, **more)
        return "\n".join(self.wait(lambda shown: shown and shown[-1].endswith((")", ".", "?"))))

    def call(self, bot: str, method: str, fields: dict[str, str]) -> Any:
        """One method of the API. Raises `Refusal`."""
        if bot != f"bot{TOKEN}":
            raise Refusal(401, "Unauthorized")
        does: Callable[[dict[str, str]], Any] | None = getattr(self, f"_{method}", None)
        if does is None:
            raise Refusal(404, f"no {method} here")
        return does(fields)

    def _getMe(self, _: dict[str, str]) -> Any:
        return BOT

    def _deleteWebhook(self, _: dict[str, str]) -> bool:
        return True

    def _sendChatAction(self, _: dict[str, str]) -> bool:
        return True

    def _setMyCommands(self, fields: dict[str, str]) -> bool:
        self.commands = json.loads(fields["commands"])
        return True

    def _getUpdates(self, fields: dict[str, str]) -> Any:
        try:
            return [self._updates.get(timeout=min(1.0, float(fields.get("timeout", 0))))]
        except queue.Empty:
            return []

    def _sendMessage(self, fields: dict[str, str]) -> Any:
        return self._show(next(self._numbers), fields)

    def _editMessageText(self, fields: dict[str, str]) -> Any:
        number = int(fields["message_id"])
        with self._news:
            if self.floods:
                self.floods -= 1
                raise Refusal(429, "Too Many Requests: retry after 1", retry_after=1)
            if self.shown.get(number) == fields["text"].strip():
                raise Refusal(400, "Bad Request: message is not modified")
        return self._show(number, fields)

    def _show(self, number: int, fields: dict[str, str]) -> Any:
        text = fields["text"].strip()
        if not 0 < len(text) <= LENGTH_MAX:
            raise Refusal(400, "Bad Request: message is too long or empty")
        with self._news:
            self.shown[number] = text
            self._news.notify_all()
        return self._message(number, text, int(fields["chat_id"])) | {"from": BOT}

    def _message(self, number: int, text: str, chat: int) -> dict[str, Any]:
        return {
            "message_id": number,
            "date": 1_700_000_000,
            "chat": {"id": chat, "type": "private", "first_name": "Ann"},
            "text": text,
        }


@contextmanager
def open_telegram() -> Iterator[tuple[Telegram, str]]:
    """It, and its address."""
    telegram = Telegram()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            _, bot, method = self.path.split("/")
            status, answer = 200, {}
            try:
                called = telegram.call(bot, method, dict(urllib.parse.parse_qsl(body)))
                answer = {"ok": True, "result": called}
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body
            data = json.dumps(answer).encode()
            with suppress(ConnectionError):  # a bot that ends no longer waits for messages
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name there
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield telegram, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
