"""The scripted answer in virtual time: whole, in pieces, held, stopped."""

from __future__ import annotations

import pytest

from inference.engine import Delta, Finished, FinishReason, Message, Request
from inference.script import answer
from sim.engine import Job, Pace, pieces
from sim.kernel import Kernel

REQUEST = Request(model="m", messages=(Message("user", "tell me why"),), max_tokens=100)
PACE = Pace(tokens_per_s=10, prefill_tokens_per_s=100, chunk_tokens=32)


class Desk:
    """A job and what was heard of it, with times."""

    def __init__(self, prompt_tokens: int = 50) -> None:
        self.kernel = Kernel(1)
        self.heard: list[tuple[float, object]] = []
        self.job = Job(self.kernel, PACE, REQUEST, prompt_tokens, self)

    def prefilled(self, tokens: int) -> None:
        self.heard.append((self.kernel.now, tokens))

    def produced(self, text: str, tokens: int) -> None:
        self.heard.append((self.kernel.now, (text, tokens)))

    def generated(self, reason: FinishReason) -> None:
        self.heard.append((self.kernel.now, reason))


@pytest.mark.parametrize("max_tokens", [1, 2, 33, 64, 1000])
def test_pieces_are_the_scripted_answer(max_tokens: int) -> None:
    request = Request(model="m", messages=REQUEST.messages, max_tokens=max_tokens)
    *given, reason = pieces(request, 32)
    *whole, end = answer(request)
    deltas = [piece for piece in given if isinstance(piece, Delta)]
    assert len(deltas) == len(given)
    assert "".join(delta.text for delta in deltas) == "".join(one.text for one in whole if isinstance(one, Delta))
    assert deltas[0].tokens == 1
    assert all(delta.tokens == 32 for delta in deltas[1:-1])
    assert isinstance(end, Finished)
    assert reason == end.reason
    assert sum(delta.tokens for delta in deltas) == end.usage.completion_tokens


def test_a_job_keeps_the_pace_of_its_slot() -> None:
    desk = Desk()
    desk.job.prefill(20)
    desk.kernel.run()
    desk.job.generate()
    desk.kernel.run()
    times = [round(time_s, 6) for time_s, _ in desk.heard]
    # 20 tokens of the prompt, the other 30, then 1, 32, 32, 32 and 3 tokens of the answer; its end takes no time.
    assert times == [0.2, 0.6, 3.8, 7.0, 10.2, 10.5, 10.5]
    assert desk.heard[-1][1] == "length"


def test_a_held_job_gives_nothing_until_resumed_and_loses_nothing() -> None:
    desk = Desk()
    desk.job.generate()
    desk.kernel.run(until_s=1.0)
    desk.job.hold()
    desk.kernel.run(until_s=100.0)
    assert len(desk.heard) == 1
    desk.kernel.at(100.0, desk.job.resume)
    desk.kernel.run()
    assert desk.heard[1][0] == 100.0
    assert desk.heard[-1][1] == "length"


@pytest.mark.parametrize("held", [False, True])
def test_a_stopped_job_is_silent(held: bool) -> None:
    desk = Desk()
    desk.job.generate()
    desk.kernel.run(until_s=1.0)
    if held:
        desk.job.hold()
    desk.job.stop()
    desk.job.resume()
    desk.kernel.run()
    assert len(desk.heard) == 1
