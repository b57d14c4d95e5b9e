"""The full counts, written to docs/BENCHMARKS.md: `make proof`, or one part by name with `--only`.

    PYTHONPATH=. python tests/proof [--only PART] [--seed N] [--out FILE]

Every part prints Markdown. A part that does not hold says so on the page, and the program fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "BENCHMARKS.md"
FOLDERS = ("p2p", "p2p/protocol", "p2p/net", "inference", "whole", "chain", "bench", "fuzz", "gpu", "vectors", "proof")
sys.path[:0] = [str(ROOT), *(str(TESTS / folder) for folder in FOLDERS)]

HANDOVERS = 50
ENGINE_CANCELS = 200
ANSWERS, EMBEDDED_ANSWERS = 2000, 300
KILLS, LANES = 200, 5  # each lane mostly waits: half a minute for every kill

GATEWAY_CROWDS = ((1, 20), (8, 20), (32, 20), (100, 600))  # streaming clients at once, and for how many seconds

HEADING = """\
# Benchmarks

Written by `make proof`, each section by the run that it names at its end; not edited by hand. The machine may have had
other work to do: ratios within one run say more than rates."""

Part = Callable[[int], Sequence[str]]


class DoesNotHold(Exception):
    """A promise was broken; the page says how."""


def sequences(seed: int) -> Sequence[str]:
    """Channels and sessions under every kind of misfortune."""
    import channel_sequences

    return channel_sequences.run(seed)


def crashes(seed: int) -> Sequence[str]:
    """SIGKILLs in the middle of paid answers."""
    import crashes

    with tempfile.TemporaryDirectory() as directory:
        report = crashes.run_crashes(Path(directory), kills=KILLS, lanes=LANES, seed=seed)
    if report.faults:
        raise DoesNotHold("\n".join(report.faults))
    return [
        "Providers and clients on a real network on this machine (devnet, bootstrap peer, scripted engine; three",
        "answers at once over each channel) were killed by SIGKILL while answers were under way, and started again on",
        "their homes. A witness outside of all books wrote down what each side handed over and received. Losses are",
        "taken from the last agreement before a kill to the first after it, where both ends' totals must be the same;",
        "at the end the channels were closed, and both books and the chain agreed. No kill may cost the client more",
        "than one window, or the provider more than one for each answer under way.",
        "",
        *crashes.table(report),
        "",
        *crashes.summary(report),
    ]


def failover(seed: int) -> Sequence[str]:
    """SIGKILLs of a provider in mid-answer, where another goes on."""
    import handovers

    with tempfile.TemporaryDirectory() as directory:
        report = handovers.run_handovers(Path(directory), kills=HANDOVERS, seed=seed)
    if report.faults:
        raise DoesNotHold("\n".join(report.faults))
    return [
        "A user has a channel to two providers, each a process of its own, and asks the cheaper one for 300 tokens. It",
        "is killed by SIGKILL once some of them have come, and the user's node goes on with the other from the text so",
        "far. Each of these answers was whole, to the letter, and no channel was opened for it.",
        "",
        *handovers.table(report),
    ]


def market(seed: int) -> Sequence[str]:
    """Two thousand short answers of five providers that all have a fault, and three hundred of the embedded model."""
    import fair
    import fair_page as page

    with tempfile.TemporaryDirectory() as directory:
        scripted = fair.run_fair(Path(directory), fair.scripted(ANSWERS, seed))
    with tempfile.TemporaryDirectory() as directory:
        embedded = fair.run_fair(Path(directory), fair.embedded(EMBEDDED_ANSWERS, seed))
    lines = [*page.INTRODUCTION, "", *page.table(scripted), "", page.AND_EMBEDDED, "", *page.table(embedded)]
    if faults := [*fair.faults(scripted), *fair.dishonesty(embedded)]:
        raise DoesNotHold("\n".join([*faults, "", *lines]))
    return lines


def vouchers(_seed: int) -> Sequence[str]:
    """Rates beside bare Ed25519."""
    import bench_vouchers

    rates = bench_vouchers.measure()
    if min(rates["created / bare"], rates["verified / bare"]) < bench_vouchers.RATIO_MIN:
        raise DoesNotHold("\n".join(bench_vouchers.table(rates)))
    return ["Medians; each ratio is the median of ratios within a round.", "", *bench_vouchers.table(rates)]


def fees(_seed: int) -> Sequence[str]:
    """What the chain takes."""
    import channel_costs

    return channel_costs.run()


def checks(_seed: int) -> Sequence[str]:
    """The contract without each of its checks. Needs the contract's compiler."""
    import javascript

    if reason := javascript.unavailable(ROOT / "chain" / "contract"):
        return [f"Not run: {reason}."]
    return ["```", *_printed("tests/chain/mutate_contract.py"), "```"]


def transport(_seed: int) -> Sequence[str]:
    """Our Noise and Yamux beside the library's and js-libp2p's."""
    return _printed("tests/bench/bench_transport.py")


def answer(_seed: int) -> Sequence[str]:
    """What a provider computes for an answer besides the answer."""
    return _printed("tests/bench/bench_answer.py")


def standing(_seed: int) -> Sequence[str]:
    """What a standing quote saves at a distance."""
    import distance
    import trio

    with tempfile.TemporaryDirectory() as directory:
        found = trio.run(distance.measure, Path(directory), 15)
    return [
        f"Over libp2p, {1000 * distance.RTT_S:.0f} ms there and back between client and provider, a channel open, one",
        "counter-offer: from a request to the first byte of its prompt on the wire, 15 times each.",
        "",
        *distance.table(found),
    ]


def cancels(seed: int) -> Sequence[str]:
    """Calls cancelled at every await."""
    import transport_life

    return transport_life.cancels(seed)


def engine_cancels(seed: int) -> Sequence[str]:
    """Readers who leave engines' answers."""
    import leaving

    return [
        f"{ENGINE_CANCELS} answers of each engine, four at a time where there are two places, were left after some",
        "pieces or some time of up to 0.3 s, by dice. Then all places were free, and an answer as before. Behind a",
        "worker nobody waits for the engine to stop; how long that takes was seen",
        f"{leaving.ALONE} times with nothing else under way.",
        "",
        *leaving.run(seed, ENGINE_CANCELS),
    ]


def visits(seed: int) -> Sequence[str]:
    """Connections that come and go."""
    import transport_life

    return transport_life.visits(seed)


def worker_kills(_seed: int) -> Sequence[str]:
    """SIGKILLs of engines' processes under providers that live on."""
    import worker_kills as kills
    from processes import Processes

    reports = []
    for setting in kills.SETTINGS:
        with tempfile.TemporaryDirectory() as directory, Processes(Path(directory)) as processes:
            reports.append(kills.run_kills(processes, setting))
    lines = [
        f"{kills.STREAMS} answers of {kills.ALONE.clients} clients over libp2p are under way at a provider when the",
        "process of its engine gets a SIGKILL, where no other provider is there, and where one can go on. Known is the",
        "error, or the first piece from another. Then the next answer is asked for. The loop's lag is that of the",
        "provider's node from the first question to that answer, looked at all the time: less what its thread waited",
        "for a core and what a hypervisor took of the cores, and plainly.",
        "",
        *kills.table(reports),
    ]
    if faults := [fault for report in reports for fault in report.faults]:
        raise DoesNotHold("\n".join([*faults, "", *lines]))
    return lines


def inputs(seed: int) -> Sequence[str]:
    """A million inputs for every decoder of bytes that are not ours."""
    import transport_life

    return transport_life.inputs(seed)


KADEMLIA_SERVERS = 1000
SWARM, SWARM_PROCESSES, CHURN_S = 30, 6, 20


def cold_starts(seed: int) -> Sequence[str]:
    """Who is found, and who hears of whom, in a network at rest."""
    import swarm
    import trio

    with tempfile.TemporaryDirectory() as directory:
        measure = partial(swarm.measure_cold_starts, providers=SWARM, processes=SWARM_PROCESSES, trials=100, seed=seed)
        report = trio.run(measure, Path(directory))
    lines = swarm.table(report)
    if not all(one.found == SWARM and one.quoted for one in report.attempts) or set(report.heard) != {1.0}:
        raise DoesNotHold("\n".join(lines))
    return [
        f"{SWARM} providers, each a libp2p host of its own, in {SWARM_PROCESSES} processes on this machine, and two",
        "bootstrap peers. In each trial one provider gossips a new advert, and a client that knows the bootstrap peers",
        "and nothing else finds every provider, pulls its advert from it, and agrees with one.",
        "",
        *lines,
    ]


def churn(seed: int) -> Sequence[str]:
    """What clients meet while providers die and come back."""
    import swarm
    import trio

    with tempfile.TemporaryDirectory() as directory:
        measure = partial(
            swarm.measure_churn, providers=SWARM, processes=SWARM_PROCESSES, for_s=600, every_s=CHURN_S, seed=seed
        )
        report = trio.run(measure, Path(directory))
    return [
        f"The same {SWARM} providers for ten minutes. Every {CHURN_S} seconds one of the processes is killed,",
        f"with SIGKILL. Its providers start again {swarm.AWAY_S:.0f} seconds later, under the same identities,",
        "at other ports. Meanwhile one client after the other begins from nothing.",
        "",
        *swarm.table(report),
    ]


def abuse(seed: int) -> Sequence[str]:
    """What honest customers notice of strangers' abuse."""
    import siege

    with tempfile.TemporaryDirectory() as directory:
        report = siege.run_siege(Path(directory), siege.FULL, peace_s=60.0, hold_s=12.0, seed=seed)
    if faults := [*report.lost, *report.kept]:
        raise DoesNotHold("\n".join([*faults, "", *siege.table(report)]))
    return [
        "A bootstrap peer and a provider, each a process of its own, are abused from four addresses that nobody else",
        "uses, both at once, by one abuse after the other. Meanwhile a customer buys one answer after the other from",
        "the provider, and newcomers connect to it and pull its advert. Cut off is what the nodes did not let come to",
        "its end. Waits are a median and a 95th percentile. Memory is what was resident before and after; it had to",
        f"come back to {siege.WITHIN:.0%} of the first line's within {siege.SETTLE_S:.0f} seconds.",
        "",
        *siege.table(report),
    ]


def kademlia(seed: int) -> Sequence[str]:
    """The DHT's core in a network of a thousand, in virtual time."""
    import kad_churn

    report = kad_churn.measure(servers=KADEMLIA_SERVERS, seed=seed)
    if not all(report.at_rest.found) or not all(report.under_churn.found):
        raise DoesNotHold("\n".join(kad_churn.table(report)))
    return [
        f"{KADEMLIA_SERVERS:,} servers in virtual time, 10 to 150 ms apart. Each of {kad_churn.CLIENTS} providers,",
        "which are clients of the DHT, announces a name of its own and renews it each four minutes; others look for",
        "one every six seconds. Under churn half of the servers fall silent within ten minutes, each replaced by one",
        "that knows only the first of all; so do half of the providers, and are not replaced.",
        "",
        *kad_churn.table(report),
    ]


def audits(seed: int) -> Sequence[str]:
    """What is found of answers that are not the model's."""
    import model_audits

    lines, holds = model_audits.run(seed)
    if not holds:
        raise DoesNotHold("\n".join(lines))
    return lines


def memory(_seed: int) -> Sequence[str]:
    """What `models fit` says beside what is taken, and what happens under a hard limit."""
    import memory_grid

    lines, holds = memory_grid.run()
    if not holds:
        raise DoesNotHold("\n".join(lines))
    return [
        "The embedded model in a worker, as `models fit` reckons it and as the kernel counted it (the most that was",
        "ever resident, each slot having answered); then under a hard limit, with the longest context that fits, and",
        "with one that does not.",
        "",
        *lines,
    ]


def gateway(_seed: int) -> Sequence[str]:
    """Streaming clients at one gateway, ever more of them, and many for ten minutes."""
    import gateway_crowd

    crowds = []
    for clients, duration_s in GATEWAY_CROWDS:
        with tempfile.TemporaryDirectory() as directory:
            crowds.append(gateway_crowd.run_crowd(Path(directory), clients=clients, duration_s=duration_s))
    lines = [
        "Clients stream 100 tokens each through the gateway, again and again, from one provider of the scripted",
        "engine, whose schedule is 50 ms to the first token and 10 ms to the next; the medians stand beside it.",
        "Gateway, provider, devnet and clients share this machine. Memory is the gateway's, resident.",
        "",
        *gateway_crowd.table(crowds),
    ]
    if failed := [f"{one.clients} clients: {len(one.failed)} failed: {one.failed[0]}" for one in crowds if one.failed]:
        raise DoesNotHold("\n".join([*failed, "", *lines]))
    return lines


def examples(_seed: int) -> Sequence[str]:
    """Those that CI leaves out, and the calls of frameworks."""
    import heavy_examples

    with tempfile.TemporaryDirectory() as directory:
        report = heavy_examples.run(Path(directory))
    if report.faults:
        raise DoesNotHold("\n".join([*report.faults, "", *heavy_examples.table(report)]))
    return [
        "Each is installed in an environment of its own, and asks the gateway of a small network with the scripted",
        "engine one question. LangChain and LlamaIndex then pass a test file of calls of the embedded model: plain,",
        "streamed, in asyncio, with tools, held to a schema, embeddings. All is paid on a devnet. The other examples",
        "are in `make test`.",
        "",
        *heavy_examples.table(report),
    ]


PARTS: dict[str, tuple[str, Part]] = {
    "sequences": ("Money under misfortune", sequences),
    "crashes": ("Killed in the middle of paid answers", crashes),
    "market": ("A market of cheats", market),
    "failover": ("Another goes on", failover),
    "vouchers": ("Vouchers", vouchers),
    "fees": ("Fees on chain", fees),
    "checks": ("The contract without each of its checks", checks),
    "cold-starts": ("Found from nothing", cold_starts),
    "churn": ("Providers that die and come back", churn),
    "abuse": ("What strangers' abuse costs others", abuse),
    "kademlia": ("A thousand servers of the DHT", kademlia),
    "audits": ("Answers that are not the model's", audits),
    "gateway": ("Clients at a gateway", gateway),
    "memory": ("What a model takes", memory),
    "transport": ("Transport", transport),
    "answer": ("What an answer costs the provider's processor", answer),
    "standing": ("A price agreed on beforehand", standing),
    "cancels": ("Cancelled at every await", cancels),
    "visits": ("Connections that come and go", visits),
    "engine-cancels": ("Answers of engines that are left", engine_cancels),
    "worker-kill": ("Engines that are killed", worker_kills),
    "inputs": ("A million inputs", inputs),
    "examples": ("Examples that install much", examples),
}


def _printed(script: str) -> Sequence[str]:
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    if done.returncode:
        raise DoesNotHold(f"{script} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout.rstrip().splitlines()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (docs/BENCHMARKS.md)")
    arguments = parser.parse_args()
    broken = False
    names = arguments.only or list(PARTS)
    for number, name in enumerate(names, 1):
        title, part = PARTS[name]
        sys.stderr.write(f"{datetime.now():%H:%M} part {number} of {len(names)}, some minutes: {title}\n")
        began = time.monotonic()
        try:
            lines = part(arguments.seed)
        except (DoesNotHold, AssertionError) as fault:
            lines, broken = ["**Does not hold.**", "", str(fault)], True
        section = "\n".join([*lines, "", _circumstances(arguments.seed, time.monotonic() - began)])
        sys.stdout.write(f"## {title}\n\n{section}\n\n")
        sys.stdout.flush()
        _put(arguments.out, title, section)  # at once: what follows may take an hour, and fail
    return int(broken)


def _circumstances(seed: int, took_s: float) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"*{took_s:.0f} s at commit {commit.stdout.strip() or 'unknown'}, {when}; seed {seed}; {machine}.*"


def _put(page: Path, title: str, section: str) -> None:
    """Replace the section of this title; the order of the page is that of `PARTS`, and what others wrote comes last."""
    sections = {}
    if page.exists():
        for old in page.read_text().split("\n## ")[1:]:
            name, _, text = old.partition("\n")
            sections[name] = text.strip()
    sections[title] = section
    ours = [name for name, _ in PARTS.values() if name in sections]
    names = [*ours, *(name for name in sections if name not in ours)]
    page.write_text("\n\n".join([HEADING, *(f"## {name}\n\n{sections[name]}" for name in names)]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
