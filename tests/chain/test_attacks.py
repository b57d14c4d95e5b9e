"""No named attack on the channel contract succeeds, on the real TVM.

`mutate_contract.py` shows that each check in the contract is what stops some of them.
"""

from __future__ import annotations

import pytest
from attack import play
from attacks import ATTACKS, FINDINGS
from channel_world import CODE, SIGNED, STRANGER, World
from pytoniq_core import begin_cell

from chain.contract import cells


@pytest.mark.parametrize("name", ATTACKS)
def test_nobody_gains_and_nobody_is_harmed_by_it(name: str) -> None:
    damage = play(ATTACKS[name])
    assert damage.harms == []
    assert damage.exit_code == ATTACKS[name].exit_code
    assert damage.cost_nano >= 0


def test_there_are_at_least_sixty_and_each_refusal_is_met() -> None:
    assert len(ATTACKS) >= 60
    assert {attack.refused for attack in ATTACKS.values()} >= CODE.keys()


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_of_another_channels_audit_is_tried_or_cannot_apply(finding: str) -> None:
    answer = FINDINGS[finding]
    assert answer
    if not isinstance(answer, str):
        assert set(answer) <= ATTACKS.keys()


def test_what_follows_a_voucher_does_not_change_it() -> None:
    """Padding is nobody's gain: the voucher pays what it says."""
    world = World()
    world.open()
    padded = begin_cell().store_slice(cells.settle(world.voucher(SIGNED)).begin_parse()).store_uint(7, 100)
    done = world.send(STRANGER, padded.store_ref(cells.finalise()).end_cell())
    assert done.exit_code == 0
    assert done.fell_nano == SIGNED
    assert world.known().settled_nano == SIGNED


def test_an_old_voucher_is_good_again_only_if_the_payer_opens_the_same_channel_again_in_time() -> None:
    """What the salt is for, and `open_before`: the address is the same, so the signature is."""
    world = World()
    world.open()
    world.close_by_payee(world.voucher(SIGNED))
    assert world.open().exit_code == 0
    done = world.close_by_payee(world.voucher(SIGNED))
    assert done.exit_code == 0


def test_an_empty_channel_deployed_by_a_stranger_is_no_obstacle() -> None:
    world = World()
    assert world.open(source=STRANGER).exit_code == CODE["ERR_NOT_PAYER"]
    world.now += 500
    assert world.open().exit_code == 0
    assert world.close_by_payee(world.voucher(SIGNED)).exit_code == 0
