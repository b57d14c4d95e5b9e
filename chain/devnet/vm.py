"""The TVM of TON's own C++ node, by tonpy: the only file that imports it.

A call is a pure function of its arguments and the network's configuration. Cells cross over as bags of cells.
"""

from __future__ import annotations

import base64
import re
from importlib.resources import files
from typing import NamedTuple

from pytoniq_core import Address, Cell, StateInit, begin_cell
from tonpy.tvm.c7 import C7
from tonpy.tvm.emulator import Emulator
from tonpy.tvm.tvm import TVM
from tonpy.types.cell import Cell as TonpyCell
from tonpy.types.stack import Stack

GET_METHOD_GAS = 1_000_000  # as lite-servers allow

_EXIT_CODE = re.compile(r"terminating vm with exit code (-?\d+)")


class NotAccepted(Exception):
    """No contract took an external message, so nothing happened and nobody paid. The text says why."""


class Executed(NamedTuple):
    """The account after a transaction, as a `ShardAccount`, and the transaction."""

    account: Cell
    transaction: Cell


class MethodResult(NamedTuple):
    exit_code: int
    stack: Cell


class Vm:
    """Runs transactions and get methods under one network configuration."""

    def __init__(self, config: Cell) -> None:
        self._config = _to_tonpy(config)
        self._emulator = Emulator(self._config)

    @classmethod
    def from_package(cls) -> Vm:
        """The devnet's own configuration, config.boc.b64: TON mainnet's as of masterchain block 84,773,657.

        Prices, limits and the global id (-239) are the real ones of August 2026; what an emulator does not read is
        cut out (validators, and parameter 43 in a newer layout than this TVM knows).
        """
        text = files(__package__).joinpath("config.boc.b64").read_text()
        return cls(Cell.one_from_boc(base64.b64decode(text)))

    def execute(self, account: Cell, message: Cell, now: int, lt: int) -> Executed:
        """Deliver `message` to `account` (a `ShardAccount`) at unix time `now` and logical time `lt`.

        Raises `NotAccepted` for an external message that nobody took; every other failure is inside the transaction.
        """
        emulator = self._emulator
        try:
            accepted = emulator.emulate_transaction(_to_tonpy(account), _to_tonpy(message), now, lt)
        except RuntimeError as error:
            raise NotAccepted(str(error)) from error
        if not accepted:
            exit_code = _EXIT_CODE.search(emulator.emulator.vm_log)
            raise NotAccepted(f"exitcode={exit_code[1]}" if exit_code else "the contract did not accept it")
        return Executed(_from_tonpy(emulator.emulator.account_cell), _from_tonpy(emulator.emulator.transaction_cell))

    def run_get_method(
        self, address: Address, contract: StateInit, balance_nano: int, method: int, arguments: Cell, now: int
    ) -> MethodResult:
        """Run a get method by its id on a contract as it is; `arguments` and the result are `VmStack` cells."""
        code = _to_tonpy(contract.code)
        tvm = TVM(0, code, _to_tonpy(contract.data))
        myself = _to_tonpy(begin_cell().store_address(address).end_cell()).begin_parse()
        tvm.set_c7(C7(time=now, balance_grams=balance_nano, address=myself, global_config=self._config, my_code=code))
        stack = Stack.deserialize(_to_tonpy(arguments).begin_parse())
        stack.append(method)
        tvm.set_stack(stack)
        tvm.set_gas_limit(GET_METHOD_GAS, GET_METHOD_GAS)
        result = tvm.run(unpack_stack=False, allow_non_success=True)
        return MethodResult(tvm.exit_code, _from_tonpy(result.serialize().cell))


def _to_tonpy(cell: Cell) -> TonpyCell:
    return TonpyCell(base64.b64encode(cell.to_boc()).decode())


def _from_tonpy(cell: object) -> Cell:
    return Cell.one_from_boc(base64.b64decode(TonpyCell(cell).to_boc()))
