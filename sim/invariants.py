"""What must hold in every run, checked as it goes: money, exposure, receipts."""

from __future__ import annotations

from collections import Counter

from chain.memory import MemoryChain
from p2p.errors import Error
from p2p.protocol.receipt import SignedReceipt, verify_receipt
from sim.errors import Violation
from sim.kernel import Kernel
from sim.signatures import verify_by_peer


class Invariants:
    """Raises `Violation` at the first breach. `checked` counts how often each promise was looked at."""

    def __init__(self, kernel: Kernel, chain: MemoryChain) -> None:
        self._kernel = kernel
        self._chain = chain
        self._minted_nano = 0
        self._expected_nano: dict[str, int] = {}
        self.checked: Counter[str] = Counter()

    def require(self, promise: str, kept: bool, breach: str) -> None:
        """Look at one promise."""
        self.checked[promise] += 1
        if not kept:
            raise Violation(self._kernel.seed, self._kernel.now, breach)

    def grant(self, wallet: str, nano: int) -> None:
        """The faucet gives; from here on the wallet's balance is followed."""
        self._chain.mint(wallet, nano)
        self._minted_nano += nano
        self._expected_nano[wallet] = nano

    def charged(self, wallet: str, fee_nano: int) -> None:
        """A wallet carried an operation."""
        self._expected_nano[wallet] -= fee_nano
        self.money()

    def paid(self, payer: str, payee: str, nano: int) -> None:
        """A channel closed after so much went from one wallet to the other."""
        self._expected_nano[payer] -= nano
        self._expected_nano[payee] += nano

    def money(self) -> None:
        """Wallets, channels and fees together are what the faucet gave."""
        lost_nano = self._minted_nano - self._chain.total()
        self.require("money", lost_nano == 0, f"{lost_nano} nano are missing of {self._minted_nano}")

    def wallets(self) -> None:
        """At the end, each wallet holds what its fees and its closed channels left it."""
        for wallet, expected_nano in self._expected_nano.items():
            held_nano = self._chain.balance(wallet)
            self.require("wallets", held_nano == expected_nano, f"{wallet} holds {held_nano}, not {expected_nano} nano")

    def exposure(self, who: str, exposed_nano: int, limit_nano: int) -> None:
        """Nobody has more at stake than one window."""
        self.require("exposure", exposed_nano <= limit_nano, f"{who} risks {exposed_nano} nano, above {limit_nano}")

    def receipt(self, signed: SignedReceipt, network: str) -> None:
        """A stranger can verify the receipt."""
        try:
            verify_receipt(signed, network=network, verify=verify_by_peer)
        except Error as error:
            self.require("receipts", False, f"a receipt does not verify: {error}")
        self.require("receipts", True, "")
