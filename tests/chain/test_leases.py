"""Locks and leases: one holder at a time, whoever it is and however it ends."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chain import locks
from chain.errors import BookUnusable
from chain.leases import Leases
from chain.locks import Lock

ONE, OTHER = bytes(32), bytes(31) + b"\1"

HOLDS = """
import sys, pathlib
from chain.leases import Leases
lease = Leases(pathlib.Path(sys.argv[1])).take(bytes(32))
print("held" if lease else "not", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that holds the lease of channel `ONE`, until it is told to end or is killed."""
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("exclusive", "exclusive", False),
        ("exclusive", "shared", False),
        ("shared", "exclusive", False),
        ("shared", "shared", True),
    ],
)
def test_a_lock_is_for_one_or_is_shared(tmp_path: Path, first: str, second: str, together: bool) -> None:
    path = tmp_path / "lock"
    held = locks.take(path, shared=first == "shared")
    assert held is not None
    another = locks.take(path, shared=second == "shared")
    assert (another is not None) == together
    if another is not None:
        another.release()
    held.release()
    with locks.take(path, shared=second == "shared") or pytest.fail("it is free again"):
        pass


def test_a_lease_is_of_one_channel_and_comes_back(folder: Path) -> None:
    ours, theirs = Leases(folder), Leases(folder)
    lease = ours.take(ONE)
    assert lease is not None
    assert theirs.take(ONE) is ours.take(ONE) is None
    assert ours.held(ONE)
    assert theirs.held(ONE)
    assert not theirs.held(OTHER)
    with theirs.take(OTHER) or pytest.fail("that one is another"):
        assert ours.held(OTHER)
    lease.release()
    assert not theirs.held(ONE)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_dies_gives_back_and_one_that_only_hangs_does_not(folder: Path, death: signal.Signals) -> None:
    leases = Leases(folder)
    with another_process(folder) as child:
        assert leases.take(ONE) is None
        child.send_signal(signal.SIGSTOP)
        assert leases.take(ONE) is None, "it may wake up and sign"
        child.send_signal(signal.SIGCONT)
        child.send_signal(death)
        child.wait()
        with leases.take(ONE) or pytest.fail("nobody holds it any more"):
            pass


def test_a_closed_channel_leaves_nothing_behind(folder: Path) -> None:
    leases = Leases(folder)
    with leases.take(ONE) or pytest.fail("it is new"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]
        leases.forget(ONE)
    leases.forget(ONE)
    leases.forget(OTHER)
    assert list(folder.iterdir()) == []


def test_a_place_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BookUnusable, match="cannot make"):
        Leases(tmp_path / "none" / "leases").take(ONE)
    (tmp_path / "file").touch()
    with pytest.raises(BookUnusable, match="cannot make"):
        Leases(tmp_path / "file").take(ONE)
    with pytest.raises(BookUnusable, match="cannot create"):
        locks.take(tmp_path / "none" / "lock")


PROCESSES = st.sampled_from(["a", "b", "c"])
CHANNELS = st.sampled_from([ONE, OTHER])


class LeasesMachine(RuleBasedStateMachine):
    """Any order of taking, giving back and closing, against a table of who holds what."""

    root: Path

    def __init__(self) -> None:
        super().__init__()
        folder = Path(tempfile.mkdtemp(dir=self.root))
        self.processes = {name: Leases(folder / "leases") for name in "abc"}
        self.holders: dict[bytes, tuple[str, Lock]] = {}
        self.closed: set[bytes] = set()

    @rule(process=PROCESSES, channel=CHANNELS)
    def take(self, process: str, channel: bytes) -> None:
        if channel in self.closed:
            return  # the book says so, and nobody pays through it
        lease = self.processes[process].take(channel)
        assert (lease is None) == (channel in self.holders)
        if lease is not None:
            self.holders[channel] = process, lease

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        channel = data.draw(st.sampled_from(sorted(self.holders)))
        self.holders.pop(channel)[1].release()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        channel = data.draw(st.sampled_from(sorted(self.holders)))
        process, lease = self.holders.pop(channel)
        self.closed.add(channel)
        self.processes[process].forget(channel)
        lease.release()

    @invariant()
    def everybody_sees_who_is_held(self) -> None:
        for channel in {ONE, OTHER} - self.closed:
            for leases in self.processes.values():
                assert leases.held(channel) == (channel in self.holders)

    def teardown(self) -> None:
        for _, lease in self.holders.values():
            lease.release()


def test_any_order_of_events_leaves_one_holder(tmp_path: Path) -> None:
    LeasesMachine.root = tmp_path
    run_state_machine_as_test(LeasesMachine, settings=settings(max_examples=20, stateful_step_count=20, deadline=None))
