"""`doctor` on the command line: what stands in the way of buying or selling here, and what to do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from enum import Enum
from functools import partial

import trio
from rich.markup import escape
from trio.to_thread import run_sync

from p2p import engine_checks, local_checks, network_checks
from p2p.console import Session
from p2p.engine_checks import Engines as Engines
from p2p.errors import Error, Unavailable
from p2p.findings import Finding, Verdict
from p2p.foreign import translated
from p2p.network_checks import Wiring as Wiring

CHECK_TIMEOUT_S = 20.0
ENGINE_TIMEOUT_S = 180.0  # for a server that loads its model when it is asked, and is tried out

ENGINE = "model"


class _Look(Enum):
    """How a verdict is shown: in a terminal's colours, in plain text elsewhere."""

    GOOD = "[green]ok  [/]"
    NOTE = "[yellow]note[/]"
    BAD = "[red]FAIL[/]"


async def run(session: Session, wiring: Wiring, engines: Engines) -> None:
    """Tell each finding as soon as it is there. Raises `Unavailable` at the end if something is wrong."""
    findings: list[Finding] = []
    for name, check in _checks(session, wiring, engines):
        for finding in await _examined(name, check):
            findings.append(finding)
            if not session.options.json:
                _tell(session, finding)
    if session.options.json:
        session.print_json([asdict(finding) for finding in findings])
    bad = sum(finding.verdict is Verdict.BAD for finding in findings)
    if bad:
        raise Unavailable(f"{bad} of {len(findings)} checks failed; see above what to do")


Check = Callable[[], Awaitable[Sequence[Finding]]]


def _checks(session: Session, wiring: Wiring, engines: Engines) -> Iterator[tuple[str, Check]]:
    """In the order in which one thing rests on another."""
    home = session.home()
    yield "keys", partial(run_sync, local_checks.keys, home)
    yield "disk", partial(run_sync, local_checks.disk, home.folder)
    if session.role == "payee":
        yield ENGINE, partial(engine_checks.engine, session.config.provide, engines)
        yield "owner", partial(engine_checks.wishes, session.config.provide)
        yield "ports", partial(run_sync, local_checks.ports, session.config.listen)
    yield "chain", lambda: network_checks.chain(session.network(), home, wiring)
    yield "peers", lambda: network_checks.peers(session.network(), wiring)
    if session.role == "payee":
        yield "reach", lambda: network_checks.reach(session.network(), wiring)


async def _examined(name: str, check: Check) -> Sequence[Finding]:
    timeout_s = ENGINE_TIMEOUT_S if name == ENGINE else CHECK_TIMEOUT_S
    try:
        with trio.fail_after(timeout_s), translated():
            return await check()
    except Error as error:
        return [Finding(name, Verdict.BAD, str(error))]
    except trio.TooSlowError:
        return [Finding(name, Verdict.BAD, f"no answer within {timeout_s:.0f} s", "look at the connection")]


def _tell(session: Session, finding: Finding) -> None:
    session.story.say(f"{_Look[finding.verdict.name].value}  {finding.check:<10} {escape(finding.what)}")
    if finding.advice:
        session.story.say(f"{'':<17}→ {escape(finding.advice)}")
