"""The whole attack suite and a channel's operations on another, newer TVM, that of @ton/sandbox under Node.

Each message is executed there on the same account at the same time as here, and must have the same end: exit codes,
gas, fees, balances, data, and all that is sent.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import channel_world
import pytest
from attack import play
from attacks import ATTACKS
from channel_world import CHALLENGE_S, PAYER, SIGNED, STRANGER, World
from javascript import NODE, needs_packages
from pytoniq_core import Cell, ShardAccount, Transaction

from chain.devnet.vm import Executed, Vm

SANDBOX = Path(__file__).parent / "sandbox"

pytestmark = [pytest.mark.slow, needs_packages(SANDBOX)]


class Step(NamedTuple):
    """One message to one account. `done` is `None` where it was not accepted."""

    account: Cell
    message: Cell
    now: int
    lt: int
    done: Executed | None


class RecordingVm(Vm):
    """The TVM as it is, with its every step written down."""

    def __init__(self, config: Cell) -> None:
        super().__init__(config)
        self.config = config
        self.steps: dict[tuple[bytes, bytes, int, int], Step] = {}

    def execute(self, account: Cell, message: Cell, now: int, lt: int) -> Executed:
        step = Step(account, message, now, lt, None)
        key = account.hash, message.hash, now, lt
        self.steps[key] = step
        done = super().execute(account, message, now, lt)
        self.steps[key] = step._replace(done=done)
        return done


@pytest.fixture
def vm(monkeypatch: pytest.MonkeyPatch) -> RecordingVm:
    recording = RecordingVm.from_package()
    assert isinstance(recording, RecordingVm)
    monkeypatch.setattr(channel_world, "VM", recording)
    return recording


def test_every_attack_ends_there_as_it_does_here(vm: RecordingVm, tmp_path: Path) -> None:
    for attack in ATTACKS.values():
        play(attack)
    _same_there(vm, tmp_path)


def test_every_operation_ends_there_as_it_does_here(vm: RecordingVm, tmp_path: Path) -> None:
    for end in (_released, _closed_by_payee, _deserted):
        world = World()
        world.open()
        world.top_up()
        world.settle(world.voucher(SIGNED // 2), STRANGER)
        world.chain.advance(CHALLENGE_S)
        end(world)
        assert world.state() is None
    _same_there(vm, tmp_path)


def _released(world: World) -> None:
    world.close_by_release(world.release(SIGNED))


def _closed_by_payee(world: World) -> None:
    world.settle(world.voucher(SIGNED - 1))
    world.close_by_payee(world.voucher(SIGNED))


def _deserted(world: World) -> None:
    world.start_close()
    world.chain.advance(CHALLENGE_S)
    world.finalise(PAYER)


def _same_there(vm: RecordingVm, folder: Path) -> None:
    steps = list(vm.steps.values())
    for step, there in zip(steps, _replayed(vm.config, steps, folder), strict=True):
        if step.done is None:
            assert there is None
        else:
            assert there is not None
            assert _told(there) == _told(step.done)


def _replayed(config: Cell, steps: list[Step], folder: Path) -> list[Executed | None]:
    trace = folder / "trace.json"
    trace.write_text(
        json.dumps(
            {
                "config": _base64(config),
                "steps": [
                    {
                        "account": _base64(step.account),
                        "message": _base64(step.message),
                        "now": step.now,
                        "lt": str(step.lt),
                    }
                    for step in steps
                ],
            }
        )
    )
    done = subprocess.run(
        [str(NODE), str(SANDBOX / "replay.mjs"), str(trace)], check=True, capture_output=True, timeout=600
    )
    return [
        one and Executed(Cell.one_from_boc(base64.b64decode(one["account"])), _cell(one["transaction"]))
        for one in json.loads(done.stdout)
    ]


def _told(done: Executed) -> dict[str, Any]:
    """All that a transaction says, but for how an account counts its own cells, which newer nodes write differently."""
    transaction = Transaction.deserialize(done.transaction.begin_parse())
    account = ShardAccount.deserialize(done.account.begin_parse()).account
    description = transaction.description
    computed, action = description.compute_ph, description.action
    state = account.storage.state if account else None
    return {
        "ran": computed.type_,
        "exit code": getattr(computed, "exit_code", None),
        "gas": getattr(computed, "gas_used", None),
        "action": action.result_code if action else None,
        "aborted": description.aborted,
        "destroyed": description.destroyed,
        "fees": transaction.total_fees.grams,
        "rent": description.storage_ph.storage_fees_collected if description.storage_ph else None,
        "sent": [message.serialize().hash for message in transaction.out_msgs],
        "balance": account.storage.balance.grams if account else 0,
        "data": state.state_init.data.hash if state and state.type_ == "account_active" else None,
    }


def _base64(cell: Cell) -> str:
    return base64.b64encode(cell.to_boc()).decode()


def _cell(bag: str) -> Cell:
    return Cell.one_from_boc(base64.b64decode(bag))
