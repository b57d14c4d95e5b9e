"""One paid answer at a simulated client: the session's core, and the vouchers that it signs."""

from __future__ import annotations

from p2p.errors import Error
from p2p.protocol import session
from p2p.protocol.receipt import SALT_BYTES, Receipt
from p2p.protocol.session import (
    SESSION_ID_BYTES,
    Completed,
    Deliver,
    Event,
    Failed,
    SaveClaim,
    ToClient,
)
from p2p.protocol.session_client import ClientSession
from sim.negotiation import Agreement
from sim.payers import Account
from sim.process import Gate
from sim.session_rim import SessionRim
from sim.signatures import FakeSigner, verify_by_peer
from sim.slow_chain import NETWORK
from sim.world import World


class Asking(SessionRim):
    """A session under way; `outcome` opens when it is over."""

    def __init__(
        self, world: World, client: str, agreement: Agreement, account: Account, request: bytes, max_tokens: int
    ) -> None:
        chance = world.kernel.stream(f"session/{client}")
        self._session = ClientSession(
            session=chance.randbytes(SESSION_ID_BYTES),
            quote=agreement.quote,
            signed_quote=agreement.signed,
            payer=account.payer,
            request=request,
            salt=chance.randbytes(SALT_BYTES),
            max_tokens=max_tokens,
            signer=FakeSigner(client),
            verify=verify_by_peer,
        )
        end = world.network.connect(client, account.provider, session.PROTOCOL)
        super().__init__(world, end, self._session, ToClient)
        self._account = account
        self._signed_before_nano = account.payer.authorised_nano
        self.started_s = world.kernel.now
        self.outcome = Gate[Receipt | Error]()
        self.first_token_s: float | None = None

    @property
    def tokens(self) -> int:
        """Of the answer, delivered so far."""
        return self._session.tokens.output

    def start(self) -> None:
        """Open the session."""
        self.carry_out(self._session.start(self.world.kernel.now))
        self.keep_time()

    def act(self, event: Event) -> None:
        match event:
            case SaveClaim(claim, _):
                self._account.claim = claim
            case Deliver():
                if self.first_token_s is None:
                    self.first_token_s = self.world.kernel.now
            case Completed(receipt, signed):
                self.world.invariants.receipt(signed, NETWORK.name)
                self._end.close()
                self.outcome.open(receipt)
            case Failed(error):
                self._account.failures += 1
                self.outcome.open(error)
            case _:
                pass

    def check_exposure(self) -> None:
        """What this session signed goes beyond what it received by no more than one window.

        Measured within the session: a provider that crashed may have forgotten a window of what it delivered earlier,
        and that is the client's credit, not new risk.
        """
        signed_nano = self._account.payer.authorised_nano - self._signed_before_nano
        ahead_nano = signed_nano - self._session.cost_nano
        self.world.invariants.exposure(self._end.owner, ahead_nano, self._account.window_nano)
