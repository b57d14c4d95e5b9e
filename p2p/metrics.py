"""Counters for Prometheus, made of what the trace is told; the names are in `docs/OPERATING.md`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from p2p.errors import LocalError
from p2p.trace import MESSAGES, SAID, Trace


def counting(registry: Any) -> Trace:
    """A trace that counts into the `prometheus_client.CollectorRegistry`."""
    from prometheus_client import Counter  # a tenth of a second to import, for those who want it

    def counter(name: str, what: str, *labels: str) -> Any:
        return Counter(f"bombyx_{name}", what, labels, registry=registry)

    records = counter("records", "What happened, by kind of trace record", "kind")
    messages = counter("messages", "Messages of the protocols", "way", "message")
    refusals = counter("refusals", "Requests that were refused, by reason", "reason")
    answers = counter("answers", "Answers sold and receipted", "model")
    tokens = counter("tokens", "Tokens sold, by direction (in: prompts, out: answers)", "model", "direction")
    earned = counter("earned_nano", "Earned by answers, in nano", "model")
    settled = counter("settlements", "Vouchers carried to the chain")
    fees = counter("settlement_fees_nano", "Paid for settling, in nano")

    def trace(kind: str, /, **fields: Any) -> None:
        if kind in MESSAGES:
            messages.labels("out" if kind == SAID else "in", fields["message"]).inc()
            return
        records.labels(kind).inc()
        match kind:
            case "refused":
                refusals.labels(fields["reason"]).inc()
            case "served":
                answers.labels(fields["model"]).inc()
                tokens.labels(fields["model"], "in").inc(fields["tokens_in"])
                tokens.labels(fields["model"], "out").inc(fields["tokens_out"])
                earned.labels(fields["model"]).inc(fields["earned_nano"])
            case "settled":
                settled.inc()
                fees.inc(fields["fee_nano"])

    return trace


@contextmanager
def metrics(address: str) -> Iterator[Trace]:
    """Counts, and serves the counts by HTTP at `address` (HOST:PORT) while the context lasts. Raises `LocalError`."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.process_collector import ProcessCollector

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise LocalError(f"the setting metrics is wrong: {address!r} is not HOST:PORT, such as 127.0.0.1:9464")
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # memory, processor time, open files
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise LocalError(f"cannot serve metrics at {address}: {error.strerror}") from None
    try:
        yield counting(registry)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
