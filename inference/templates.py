"""A model's chat template: conversations in, prompts out. It is foreign code, and so it runs in `template_process`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import trio

from inference.engine import Message
from inference.errors import BadRequest, BadSettings, EngineError

_PATIENCE_S = 10.0  # a prompt takes a millisecond; Python's start a tenth of a second on a quiet machine
_REPLY_MAX_BYTES = 64 << 20


class _Reply(msgspec.Struct, frozen=True):
    text: str | None = None
    refused: str = ""
    failed: str = ""


class Template:
    """Made by `open_template`. One conversation at a time, for each takes a moment."""

    def __init__(self, source: str, marks: Mapping[str, str]) -> None:
        self._source = source
        self._marks = marks
        self._turn = trio.Lock()
        self._process: trio.Process | None = None

    async def render(self, messages: tuple[Message, ...]) -> str:
        """The prompt up to where the model is to go on; an answer that is begun is its end.

        Raises `BadRequest` where the template takes no such conversation, `EngineError` where it fails or is slow.
        """
        begun = messages[-1].content if messages[-1].role == "assistant" else ""
        asked = messages[:-1] if begun else messages
        given = {"messages": msgspec.to_builtins(asked), "add_generation_prompt": True, **self._marks}
        async with self._turn:
            reply = await self._ask(given)
        if reply.refused:
            raise BadRequest(reply.refused)
        if reply.text is None:
            raise EngineError(reply.failed)
        return reply.text + begun

    async def check(self) -> None:
        """Raises `BadSettings` for what is no template, or fails on a plain question."""
        try:
            await self.render((Message("user", "Hello."),))
        except (BadRequest, EngineError) as error:
            raise BadSettings(str(error)) from None

    async def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        await pipe.aclose()

    async def _ask(self, given: dict[str, Any]) -> _Reply:
        """A process that was left in the middle of a reply is of no more use: the next gets another."""
        whole = False
        try:
            with trio.move_on_after(_PATIENCE_S):
                reply = await self._exchange({"template": self._source}) if self._process is None else _Reply("")
                if reply.text is not None:
                    reply = await self._exchange(given)
                whole = True
                return reply
        except (trio.BrokenResourceError, msgspec.MsgspecError):
            raise EngineError("the model's template ended its process") from None
        finally:
            if not whole:
                await self.close()
        raise EngineError("the model's template takes too long")

    async def _exchange(self, given: dict[str, Any]) -> _Reply:
        if self._process is None:
            self._process = await _spawn()
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        await stdin.send_all(msgspec.json.encode(given) + b"\n")
        received = bytearray()
        while not received.endswith(b"\n"):
            more = await stdout.receive_some()
            if not more or len(received) > _REPLY_MAX_BYTES:
                raise trio.BrokenResourceError
            received += more
        return msgspec.json.decode(bytes(received), type=_Reply)


async def _spawn() -> trio.Process:
    """With nothing of our environment, which may hold what a stranger's template need not know."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "inference.template_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])},
        start_new_session=True,
    )


@asynccontextmanager
async def open_template(source: str, marks: Mapping[str, str]) -> AsyncIterator[Template]:
    """Try a template out. `marks` are the tokens that it may name. Raises `BadSettings`."""
    if find_spec("jinja2") is None:
        raise BadSettings("Jinja is not installed: pip install 'bombyx[exllama]'")
    template = Template(source, marks)
    try:
        await template.check()
        yield template
    finally:
        await template.close()
