"""What a paid answer costs a provider: processor time for 1,000 deltas, and where it goes.

    PYTHONPATH=. python tests/bench/bench_answer.py [--deltas N]

A devnet, a bootstrap peer and a provider of the scripted model in processes of their own; a client in this one asks one
question after the other. Only the provider's process is measured, its engine's child apart. Each token of the script
comes as one delta, 100 a second, so that nothing is coalesced: the dearest way to send them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
sys.path[:0] = [str(TESTS / "whole"), str(TESTS / "bench")]
from bench_transport import cpu_s  # noqa: E402
from local import SCRIPTED, start_bare  # noqa: E402
from processes import Processes  # noqa: E402

from inference.engine import Message  # noqa: E402
from p2p import arguments, node, wiring  # noqa: E402
from p2p.config import load as load_config  # noqa: E402
from p2p.terminal import Terminal  # noqa: E402


class Report(NamedTuple):
    """Of the provider's process. A sample is a stack, the innermost function first, and how often it was seen."""

    deltas: int
    answers: int
    cpu_s: float
    samples: list[tuple[list[str], int]]


# Whose a moment is: of the first of these that is found from the inside of the stack outwards; else the scheduler's.
PARTS = {
    "p2p/net/": "Noise, Yamux and the socket",
    "inference/": "the engine's pipe",
    "p2p/protocol/session": "the session's core",
    "chain/": "vouchers, book and chain",
    "p2p/": "the session's shell, with its frames",
    "libp2p/": "the rest of libp2p",
}
SCHEDULER = "Trio's scheduler"
THE_LOOP = ("trio/_core/_run.py:unrolled_run", "trio/_core/_run.py:run")  # outside of it is nothing of a task
DONE = {
    SCHEDULER: "nothing waits for what is there already: locks that are free, events that are set, deadlines put off",
    "Noise, Yamux and the socket": "what waits is sealed and written as one, past libp2p's two locks at the socket",
    "the engine's pipe": "frames that wait are written and read together, and decoded straight into structs",
    "the session's shell, with its frames": "what comes while the stream is busy goes out as one delta",
    "vouchers, book and chain": "one commit for all that wait, in a thread; a voucher pays for part of a window",
}


async def ask(network: Path, home: Path, deltas: int, begin: Callable[[], None]) -> tuple[int, int]:
    """Buy answers until there were so many deltas; returns deltas and answers."""
    options = arguments.parse(["ask", "--network", str(network), "--home", str(home), "--faucet", "unused"])
    config = load_config(None, {}, arguments.overrides(options))
    session = node._session(options, config, Terminal(os.environ), ())
    got = answers = 0
    async with wiring.open_client(session, session.network()) as (ours, peer):
        await wiring.fund(ours.network, ours.ledger.wallet.address)
        while got < deltas:
            prompt = (Message("user", f"question {answers}"),)
            async with peer.chat(prompt, model=SCRIPTED, max_tokens=400) as answer:
                async for _ in answer:
                    pass
            if answers == 0:
                begin()  # the channel is open, and all is warm
            else:
                got += answer.completion_tokens
            answers += 1
    return got, answers - 1


def measure(deltas: int) -> Report:
    with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
        bare = start_bare(processes)
        out = Path(directory) / "samples.json"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS / "bench"), os.environ.get("PYTHONPATH", "")])
        command = ("p2p.node", "provide", "--network", bare.file, "--home", Path(directory) / "seller", "--faucet")
        provider = processes.serve("sampled", out, *command, "--engine", "scripted")
        provider.records("ready")
        before = []

        def begin() -> None:
            before.append(cpu_s(provider.pid))
            provider.signal(signal.SIGUSR1)

        got, answers = trio.run(ask, bare.file, Path(directory) / "buyer", deltas, begin)
        spent_s = cpu_s(provider.pid) - before[0]
        provider.close_stdin()
        provider.wait()
        return Report(got, answers, spent_s, json.loads(out.read_text()))


def part_of(stack: Sequence[str]) -> str:
    for function in itertools.takewhile(lambda one: not one.endswith(THE_LOOP), stack):
        inside = function.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")
        for folder, part in PARTS.items():
            if inside.startswith(folder):
                return part
    return SCHEDULER


def table(report: Report) -> Sequence[str]:
    seen: Counter[str] = Counter()
    for stack, times in report.samples:
        seen[part_of(stack)] += times
    return [
        f"{report.cpu_s / report.deltas * 1000:.2f} s of processor time for 1,000 deltas, of one token each, at 100 a",
        f"second; {report.deltas:,} deltas in {report.answers} answers, negotiations and vouchers included.",
        "",
        "| part | share | what was done about it |",
        "|---|---|---|",
        *(f"| {part} | {times / seen.total():.0%} | {DONE.get(part, '')} |" for part, times in seen.most_common()),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deltas", type=int, default=5_000)
    sys.stdout.write("\n".join(table(measure(parser.parse_args().deltas))) + "\n")
