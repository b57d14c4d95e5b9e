"""A headless Chromium at our command, through the pipe over which it speaks its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ lists the methods and events.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
from javascript import NODE, unavailable

from inference.nursery import open_background

HERE = Path(__file__).parent
PATIENCE_S = 60.0  # on a busy machine
LOOK_EVERY_S = 0.02
COMMANDS_FD, EVENTS_FD = 3, 4  # as --remote-debugging-pipe has it

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)

Record = dict[str, Any]


def missing() -> str:
    """Why no Chromium can be started here; empty where one can."""
    if unavailable(HERE) and not shutil.which("chromium"):
        return (
            "no Chromium here: neither npm's (`make test` installs it where npm's registry can be reached) nor Debian's"
        )
    return ""


needs_chromium = pytest.mark.skipif(bool(missing()), reason=missing())


@cache
def _program() -> tuple[str, dict[str, str]]:
    """The program, and what its environment needs beyond ours. npm's is preferred: it is the same everywhere."""
    if unavailable(HERE):
        found = shutil.which("chromium")
        assert found is not None
        return found, {}
    unpacked = HERE / "node_modules" / ".unpacked"
    unpacked.mkdir(exist_ok=True)
    command = [str(NODE), str(HERE / "unpack.mjs")]
    said = subprocess.run(
        command, env=os.environ | {"TMPDIR": str(unpacked)}, check=True, capture_output=True, text=True, timeout=120
    )
    where = json.loads(said.stdout)
    return where["program"], {"LD_LIBRARY_PATH": where["libraries"], "FONTCONFIG_FILE": where["fonts"]}


class Page:
    """One page. What it asks of the network and what it complains of is kept."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._browser = browser
        self._session = session

    async def do(self, method: str, **params: object) -> Record:
        return await self._browser.do(method, params, self._session)

    async def go(self, url: str) -> None:
        await self.do("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression comes to. Raises `AssertionError` where it throws."""
        came = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in came, f"{expression}: {came['exceptionDetails']}"
        return came["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Once it comes to something true, that."""
        with trio.move_on_after(PATIENCE_S):
            while not (value := await self.evaluate(expression)):  # noqa: ASYNC110 - it is in another process
                await trio.sleep(LOOK_EVERY_S)
            return value
        raise AssertionError(f"not within {PATIENCE_S:g} s: {expression}\n{await self.text()}\n{self.complaints}")

    async def text(self, selector: str = "body") -> str:
        """What a reader sees there; empty where there is no such thing."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def sees(self, text: str, selector: str = "body") -> None:
        """Wait until it says so."""
        place = f"(document.querySelector({json.dumps(selector)})?.innerText ?? '')"
        await self.until(f"{place}.replace(/\\s+/g, ' ').includes({json.dumps(text)})")

    async def click(self, selector: str) -> None:
        """With the mouse, in the middle of it, once it is there and can be pressed."""
        quoted = json.dumps(selector)
        await self.until(f"document.querySelector({quoted}) && !document.querySelector({quoted}).disabled")
        x, y = await self.evaluate(
            f"{{ const it = document.querySelector({quoted}); it.scrollIntoView({{block: 'nearest'}});"
            "const box = it.getBoundingClientRect(); [box.x + box.width / 2, box.y + box.height / 2] }"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def write(self, text: str) -> None:
        """Into what has the focus."""
        await self.do("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        """A key, with its virtual code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.do("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def choose(self, label: str, value: str) -> None:
        """In a list."""
        await self.evaluate(
            f"{{ const list = document.querySelector('select[aria-label=\"{label}\"]');"
            f"list.value = {json.dumps(value)}; list.dispatchEvent(new Event('change', {{bubbles: true}})) }}"
        )

    async def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        await self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 500,
        )  # fmt: skip

    async def dark(self, on: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """As PNG."""
        return base64.b64decode((await self.do("Page.captureScreenshot", format="png"))["data"])

    def heard(self, method: str, params: Record) -> None:
        """An event of this page."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(params["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(params["entry"]["text"])


class Browser:
    """Sends commands and sorts what comes back."""

    def __init__(self, commands: trio.abc.SendStream, events: trio.abc.ReceiveStream) -> None:
        self._commands = commands
        self._events = events
        self._ids = itertools.count(1)
        self._answers: dict[int, Record] = {}
        self._news = trio.Condition()
        self._pages: dict[str, Page] = {}
        self._turn = trio.Lock()

    async def run(self) -> None:
        """Until the browser ends."""
        rest = b""
        async for data in self._events:
            *said, rest = (rest + data).split(b"\0")
            for one in map(json.loads, said):
                if "id" in one:
                    async with self._news:
                        self._answers[one["id"]] = one
                        self._news.notify_all()
                elif page := self._pages.get(one.get("sessionId", "")):
                    page.heard(one["method"], one["params"])

    async def do(self, method: str, params: Record, session: str = "") -> Record:
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        async with self._turn:
            await self._commands.send_all(json.dumps(command).encode() + b"\0")
        with trio.fail_after(PATIENCE_S):
            async with self._news:
                while number not in self._answers:
                    await self._news.wait()
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: Record = answer["result"]
        return result

    async def page(self) -> Page:
        target = await self.do("Target.createTarget", {"url": "about:blank"})
        attached = await self.do("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Network", "Runtime", "Log"):
            await page.do(f"{domain}.enable")
        return page


@asynccontextmanager
async def open_browser(profile: Path) -> AsyncIterator[Browser]:
    """A Chromium with an empty profile, until the context is left."""
    program, more = await trio.to_thread.run_sync(_program)
    (theirs_read, commands), (events, theirs_write) = os.pipe(), os.pipe()
    # Out of the way of the numbers that they are to get.
    theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_read, theirs_write)]

    def place() -> None:
        os.dup2(theirs[0], COMMANDS_FD)
        os.dup2(theirs[1], EVENTS_FD)

    with (profile.parent / f"{profile.name}.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            env=os.environ | more,
            stderr=log,
            stdout=log,
            close_fds=False,
            preexec_fn=place,
            start_new_session=True,
        )
    for fd in (theirs_read, theirs_write, *theirs):
        os.close(fd)
    async with (
        trio.lowlevel.FdStream(commands) as out,
        trio.lowlevel.FdStream(events) as into,
        open_background() as background,
    ):
        browser = Browser(out, into)
        background.start_soon(browser.run)
        try:
            yield browser
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()
                with trio.move_on_after(PATIENCE_S):
                    await process.wait()
