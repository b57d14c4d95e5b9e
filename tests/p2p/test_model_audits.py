"""Answers of the embedded model and of a tampered one: some of those that `make proof` counts in full."""

from __future__ import annotations

import pytest
from model_audits import COARSER, HONEST, MORE, SAME, measure

from p2p.protocol.audit import Outcome

pytestmark = pytest.mark.slow


async def test_what_is_not_the_models_answer_is_found_and_what_is_passes() -> None:
    found = await measure(3, {HONEST: 2, COARSER: 1, SAME: 1, MORE: 1})
    outcomes = {kind: {one.outcome for one in read} for kind, read in found.items()}
    assert outcomes == {
        HONEST: {Outcome.PASSED},
        COARSER: {Outcome.FAILED},
        SAME: {Outcome.FAILED},
        MORE: {Outcome.FAILED},
    }
