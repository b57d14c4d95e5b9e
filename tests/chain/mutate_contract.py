"""Takes each check out of the channel contract, one at a time, and shows which named attacks then succeed.

    python tests/chain/mutate_contract.py [--out FILE]

Prints a table and, if asked, writes it as JSON. Fails if a check could be taken out unnoticed. Needs Node and the
contract's compiler (`npm ci` in chain/contract); takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from attack import play  # noqa: E402
from attacks import ATTACKS  # noqa: E402
from javascript import NODE, unavailable  # noqa: E402
from pytoniq_core import Cell  # noqa: E402

from chain.contract import cells  # noqa: E402

CONTRACT = Path(cells.__file__).parent
SOURCE = (CONTRACT / "channel.tolk").read_text()

SHOWN = 3  # attacks for each check, of those that succeed

_ASSERT = re.compile(r"^ *(assert \(.*\) throw \w+;)\n", re.MULTILINE)

# The checks that are not asserts: what stands in the source, and what is left without it.
GUARDS: dict[str, tuple[str, str]] = {
    "an unknown operation is refused": ("else => throw ERR_UNKNOWN_OP", "else => { queryId = 0; }"),
    "a settle pays no more than is held": (
        "min(msg.voucher.owed(channel.settled, channel.deposited, VOUCHER_HEAD, terms.payerKey), held)",
        "msg.voucher.owed(channel.settled, channel.deposited, VOUCHER_HEAD, terms.payerKey)",
    ),
    "a release pays no more than is held": ("paid = min(owed, held);", "paid = owed;"),
    "there is no payout of nothing": ("(paid > 0) & (payTo != in.senderAddress)", "payTo != in.senderAddress"),
    "what is kept is reserved": ("reserveToncoinsOnBalance(kept, RESERVE_MODE_BOUNCE_ON_ACTION_FAIL);", ""),
    "what was decided is written down": ("contract.setData(channel.toCell());", ""),
    "a closed channel is destroyed": (" | SEND_MODE_DESTROY", ""),
    "rent is prepaid": (" + prepaidRent()", ""),
}


class Mutant(NamedTuple):
    """The contract's source without one check."""

    check: str
    line: int
    source: str


def mutants() -> Iterator[Mutant]:
    """One for each assert, in order, and one for each other guard."""
    for found in _ASSERT.finditer(SOURCE):
        yield Mutant(found[1], _line(found.start(1)), SOURCE[: found.start()] + "\n" + SOURCE[found.end() :])
    for check, (old, new) in GUARDS.items():
        assert SOURCE.count(old) == 1, f"{old!r} is not in the contract once"
        yield Mutant(check, _line(SOURCE.index(old)), SOURCE.replace(old, new))


def _line(place: int) -> int:
    return SOURCE.count("\n", 0, place) + 1


def compiled(source: str) -> Cell:
    """The code of a source."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.tolk"
        path.write_text(source)
        command = [str(NODE), str(CONTRACT / "compile.mjs"), folder, str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Cell.one_from_boc((Path(folder) / "channel.boc").read_bytes())


def successes(code: Cell) -> dict[str, list[str]]:
    """The attacks that succeed on a channel with this code, and the harm that they do."""
    found = {}
    with patch.object(cells, "code", lambda: code), patch.object(cells, "code_hash", lambda: code.hash):
        for name, attack in ATTACKS.items():
            try:
                harms = play(attack).harms
            except AssertionError as broken:  # an honest step of the play failed
                harms = [f"an honest step fails: {broken}"]
            if harms:
                found[name] = harms
    return found


def main() -> int:
    """Run the command line; 1 if a check can be taken out unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as JSON, too")
    arguments = parser.parse_args()
    if reason := unavailable(CONTRACT):
        sys.stderr.write(f"{reason}\n")
        return 2
    assert compiled(SOURCE).hash == cells.code_hash(), "the committed code is not what its source compiles to"
    assert not successes(cells.code()), "an attack succeeds on the contract as it is"
    table, unnoticed = [], 0
    for mutant in mutants():
        found = successes(compiled(mutant.source))
        unnoticed += not found
        table.append({"check": mutant.check, "line": mutant.line, "attacks": found})
        sys.stdout.write(f"{mutant.line:4} {len(found):4} attacks  {mutant.check}\n")
        for name, harms in list(found.items())[:SHOWN]:
            sys.stdout.write(f"         {name}: {'; '.join(harms)}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(table)} checks, {len(ATTACKS)} attacks, {unnoticed} checks that no attack misses\n")
    if arguments.out:
        arguments.out.write_text(json.dumps({"attacks": len(ATTACKS), "checks": table}, indent=1) + "\n")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
