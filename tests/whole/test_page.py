"""The gateway's page in a real browser, on a real network: what a person does, and what they see.

With BOMBYX_PICTURES=FOLDER the pictures that are taken on the way are kept there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from chromium import Page, needs_chromium, open_browser
from gateways import start_gateway
from handovers import BARGAIN, QUESTION, WHOLE
from local import CHEAP, Local, Provider, start_provider
from processes import Processes
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from p2p.gateway.app import application
from p2p.gateway.calls import DONE, data
from p2p.gateway.doors import Rules
from p2p.gateway.keys import Keys
from p2p.gateway.server import open_server
from p2p.gateway.webpage import page_routes

pytestmark = [pytest.mark.slow, needs_chromium]

DESKTOP, PHONE = (1280, 800), (390, 844)
PLACES = ("providers", "channels", "earnings", "settings")
# An answer of 400 tokens fits, also where the dearer provider gives all of it; one of 7,000 does not.
ANSWER_MAX_NANO, SHORT, LONG = 120_000, 400, 7000
# The page leaves temperature and seed to the gateway; with these the scripted answer is the one that we know.
KNOWN = """{
    const really = globalThis.fetch;
    globalThis.fetch = (url, wanted) => really(url, wanted.method === "POST" && url.startsWith("v1/")
        ? {...wanted, body: JSON.stringify({...JSON.parse(wanted.body), temperature: 0, seed: 0})} : wanted);
}"""
REFUSED = "the server responded with a status of 402"  # which a browser puts on its console by itself


class Shop(NamedTuple):
    """A gateway, and the two providers that it can buy from."""

    url: str
    cheap: Provider
    standby: Provider


@pytest.fixture
def shop(network: Local, processes: Processes) -> Shop:
    cheap = start_provider(processes, network.file, "cheap", *CHEAP, *BARGAIN)
    wishes = ("--answer-max-nano", str(ANSWER_MAX_NANO), "--preset", "cheap")
    return Shop(start_gateway(processes, network.file, "me", *wishes).url, cheap, network.provider)


@asynccontextmanager
async def open_page(url: str, folder: Path) -> AsyncIterator[Page]:
    """A page of a new browser. In the end all that it asked for was ours, and it had nothing to complain of."""
    async with open_browser(folder / "profile") as browser:
        page = await browser.page()
        await page.resize(*DESKTOP)
        await page.go(url)
        await page.until("document.querySelector('select[aria-label=Model]')?.value")
        yield page
        assert [request for request in page.requests if not request.startswith(f"{url}/")] == []
        assert [said for said in page.complaints if REFUSED not in said] == []


async def ask(page: Page, text: str) -> None:
    """In a new conversation."""
    if await page.evaluate("document.querySelector('.chat-head button') !== null"):
        await page.click(".chat-head button")
        await page.sees("Ask the network")
    await page.click("textarea")
    await page.write(text)
    await page.press("Enter", 13)
    await page.until("document.querySelector('.asked') !== null")


async def at(page: Page, place: str) -> None:
    await page.click(f'nav a[href="#{place}"]')
    await page.until(f"""document.querySelector('nav a[href="#{place}"][aria-current]') !== null""")


async def answers_of(page: Page, tokens: int) -> None:
    """From now on they are as long as that."""
    await at(page, "settings")
    await page.until("document.getElementById('max-tokens') !== null")
    await page.evaluate("document.getElementById('max-tokens').select()")
    await page.evaluate("document.getElementById('max-tokens').focus()")
    await page.write(str(tokens))
    await page.press("Enter", 13)
    await at(page, "chat")
    await page.until("document.querySelector('textarea') !== null")


async def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("BOMBYX_PICTURES"):
        await trio.Path(folder, f"{name}.png").write_bytes(await page.picture())


ANSWER = "document.querySelector('.answer:last-child')"
TEXT = f"{ANSWER}.querySelector('.prose').innerText.trim()"
LENGTH = f"({ANSWER}?.querySelector('.prose')?.innerText.length ?? 0)"


async def test_a_person_chats_and_pays(shop: Shop, tmp_path: Path) -> None:
    async with open_page(shop.url, tmp_path) as page:
        await page.evaluate(KNOWN)
        await picture(page, "welcome")
        await answers_of(page, SHORT)
        await page.choose("Preset", "cheap")
        await sees_an_answer_and_its_account(page, shop)
        await stops_one(page)
        await is_refused_what_goes_over_the_budget(page)
        await sees_who_sells(page, shop)
        await sees_one_provider_go_on_for_another(page, shop)
        await sees_it_on_a_phone_in_the_dark(page)
        await closes_a_channel(page, shop)


async def sees_an_answer_and_its_account(page: Page, shop: Shop) -> None:
    await ask(page, QUESTION)
    some = await page.until(LENGTH)
    assert await page.until(f"{LENGTH} > {some} && {LENGTH}") > some  # it streams
    await page.sees("checks passed", ".answer:last-child summary")
    assert await page.evaluate(TEXT) == WHOLE.strip()
    said = await page.text(".answer:last-child summary")
    assert f"…{shop.cheap.peer[-6:]}" in said
    assert "0.006 in, 0.018 out a million" in said
    assert await page.evaluate(f"/0\\.0000\\d+ GRAM/.test({ANSWER}.innerText)"), said
    await page.click(".answer:last-child summary")
    for looked_into in ("Receipt", "Promised speed", "Model", "Audits", "Machine"):
        await page.sees(looked_into, ".answer:last-child .checks")
    await page.sees("not checked", ".answer:last-child .checks")
    await page.until("!document.querySelector('.purse .number').innerText.startsWith('0 ')")  # the running budget
    await picture(page, "answer")


async def stops_one(page: Page) -> None:
    await ask(page, QUESTION)
    await page.until(LENGTH)
    await page.press("Escape", 27)
    await page.sees("stopped", ".answer:last-child summary")


async def is_refused_what_goes_over_the_budget(page: Page) -> None:
    await answers_of(page, LONG)
    await ask(page, QUESTION)
    await page.sees("This would go over the budget", ".answer:last-child .problem")
    await page.sees("have the budget raised where the gateway runs", ".answer:last-child .problem")
    await picture(page, "budget")
    await answers_of(page, SHORT)


async def sees_who_sells(page: Page, shop: Shop) -> None:
    await at(page, "providers")
    for provider in (shop.cheap, shop.standby):
        await page.sees(f"…{provider.peer[-6:]}", ".records")
    await page.sees("channel open", ".records")
    await picture(page, "providers")
    await at(page, "chat")


async def sees_one_provider_go_on_for_another(page: Page, shop: Shop) -> None:
    await ask(page, QUESTION)
    await page.until(f"{LENGTH} > 100")
    shop.cheap.process.signal(signal.SIGKILL)
    await page.sees(f"…{shop.standby.peer[-6:]} goes on from there", ".answer:last-child .note")
    await page.sees("checks passed", ".answer:last-child summary")
    assert await page.evaluate(TEXT) == WHOLE.strip()
    await page.click(".answer:last-child summary")
    await page.sees("the answer was not delivered whole", ".answer:last-child .checks")
    await picture(page, "handover")


async def sees_it_on_a_phone_in_the_dark(page: Page) -> None:
    await page.resize(*PHONE)
    await page.dark(on=True)
    for place in ("chat", *PLACES):
        await at(page, place)
        await page.until("document.querySelector('.talk, .page .fields, .page .records, .page .nothing') !== null")
        inside = "[...document.querySelectorAll('html, .talk, .page')].every(box => box.scrollWidth <= box.clientWidth)"
        assert await page.evaluate(inside), f"something of {place} hangs over"
        await picture(page, f"phone-{place}")
    await page.resize(*DESKTOP)
    await page.dark(on=False)


async def closes_a_channel(page: Page, shop: Shop) -> None:
    await at(page, "channels")
    rows = "[...document.querySelectorAll('.records tbody tr')]"
    row = f"{rows}.find(row => row.innerText.includes('{shop.standby.peer[-6:]}'))"
    await page.until(f"{row}?.querySelector('button') instanceof Element")
    await picture(page, "channels")
    await page.evaluate(f"{row}.querySelector('button').click()")
    await page.click("dialog button[type=submit]")
    await page.until(f"{row}?.innerText.includes('closed')")


HOSTILE = """# A title

<script>globalThis.pwned = 1</script> <img src=x onerror="globalThis.pwned = 2"> text

![seen](http://example.org/seen.png) [no](javascript:globalThis.pwned=3) [yes](https://example.org/) <b>bold</b>

<iframe srcdoc="<script>parent.pwned = 4</script>"></iframe>

```html
<script>globalThis.pwned = 5</script>
```
"""


async def test_what_a_model_writes_is_text_and_never_a_program(tmp_path: Path) -> None:
    """A scripted gateway, because no honest engine says such things at will."""

    async def hostile(_request: Request) -> Response:
        return Response(data({"choices": [{"delta": {"content": HOSTILE}, "finish_reason": "stop"}]}) + DONE)

    async def models(_request: Request) -> Response:
        return JSONResponse({"data": [{"id": "a/model"}]})

    async def allowance(_request: Request) -> Response:
        said = {"network": "devnet", "free": True, "limit": None, "day_max_nano": None, "today_nano": 0}
        return JSONResponse(said)

    routes = [
        Route("/v1/chat/completions", hostile, methods=["POST"]),
        Route("/v1/models", models),
        Route("/api/allowance", allowance),
        *page_routes(in_telegram=False),
    ]
    app = application(routes, Rules(), Keys(tmp_path, time.time))
    async with open_server(app, "127.0.0.1:0") as url, open_page(url, tmp_path) as page:
        await ask(page, "Be evil")
        await page.sees("A title", ".prose h3")
        await page.sees("<iframe srcdoc=", ".prose")
        await page.sees("[picture: seen]", ".prose")
        assert await page.evaluate("globalThis.pwned ?? 0") == 0
        found = "document.querySelectorAll('.prose :is(script, img, iframe, b, object, embed, style, form)').length"
        assert await page.evaluate(found) == 0
        assert await page.evaluate("[...document.querySelectorAll('.prose a')].map(a => a.href)") == [
            "https://example.org/"
        ]
