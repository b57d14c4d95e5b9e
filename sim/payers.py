"""A simulated client's channels: opened when first needed, topped up, and closed together with the provider."""

from __future__ import annotations

from dataclasses import dataclass

from chain.channel import Payer
from chain.ledger import ChannelTerms
from chain.memory import FEES_NANO
from chain.voucher import Claim
from p2p.protocol import release
from p2p.protocol.advert import ChannelOffer
from p2p.protocol.negotiate import Quote
from p2p.protocol.release import CloseRequest, Released
from sim.network import Inbox
from sim.process import gather, sleep, spawn
from sim.signatures import FakeSigner
from sim.slow_chain import NETWORK
from sim.world import World

OPEN_WITHIN_S = 600
RETRY_S = 10.0
PATIENCE_S = 5.0
OPENING_FEE_NANO = FEES_NANO["open"] + FEES_NANO["close_by_release"]


@dataclass
class Account:
    """One open channel. `window_nano` is the largest window that was agreed for it."""

    provider: str
    payee: str
    payer: Payer
    used_s: float
    window_nano: int = 0
    claim: Claim | None = None
    failures: int = 0

    @property
    def voucher(self) -> tuple[int, bytes]:
        """Amount and signature of the highest voucher."""
        return (self.claim.amount_nano, self.claim.signature) if self.claim else (0, b"")


class Payers:
    """All channels that one client pays on."""

    def __init__(self, world: World, client: str, wallet: str) -> None:
        self._world = world
        self._client = client
        self._wallet = wallet
        self._chance = world.kernel.stream(f"salt/{client}")
        self._accounts: dict[str, Account] = {}
        self._closing = 0
        self.signer = FakeSigner(f"{client}/payer")

    def opening_fee_nano(self, provider: str) -> int:
        """What the chain would take for a channel with this provider."""
        return 0 if provider in self._accounts else OPENING_FEE_NANO

    async def ready(self, quote: Quote) -> Account:
        """A channel that holds enough for one use of the quote. Raises `InsufficientFunds`."""
        account = self._accounts.get(quote.provider)
        needed_nano = quote.worst_cost_nano + quote.window_nano
        if account is None:
            self._make_room()
            account = await self._open(quote.provider, quote.channel, needed_nano)
        missing_nano = account.payer.delivered_nano + needed_nano - account.payer.deposited_nano
        if missing_nano > 0:
            await self._top_up(account, missing_nano)
        account.window_nano = max(account.window_nano, quote.window_nano)
        account.used_s = self._world.kernel.now
        return account

    async def close_all(self) -> None:
        """Close every channel, those included that are being closed already."""
        accounts, self._accounts = list(self._accounts.values()), {}
        await gather([self._close(account) for account in accounts])
        while self._closing:
            await sleep(self._world.kernel, RETRY_S)

    def _make_room(self) -> None:
        if len(self._accounts) >= self._world.scenario.clients.channels:
            oldest = min(self._accounts.values(), key=lambda account: account.used_s)
            spawn(self._close(self._accounts.pop(oldest.provider)))

    async def _open(self, provider: str, offer: ChannelOffer, needed_nano: int) -> Account:
        chain = self._world.chain
        terms = ChannelTerms(
            payer=self._wallet,
            payee=offer.payee,
            payer_key=self.signer.public_key,
            payee_key=offer.payee_key,
            challenge_period_s=offer.challenge_period_s,
            open_before=int(self._world.kernel.now) + OPEN_WITHIN_S,
            salt=self._chance.randbytes(32),
        )
        deposit_nano = max(self._world.scenario.clients.deposit_nano, offer.deposit_min_nano, needed_nano)
        await chain.confirmed(self._wallet, lambda: chain.memory.open(self._wallet, terms, deposit_nano))
        channel = chain.memory.channel_id(terms)
        payer = Payer(channel, NETWORK.global_id, self.signer, deposited_nano=deposit_nano)
        account = Account(provider, offer.payee, payer, self._world.kernel.now)
        self._accounts[provider] = account
        self._world.trace("opened", client=self._client, provider=provider, deposit_nano=deposit_nano)
        return account

    async def _top_up(self, account: Account, missing_nano: int) -> None:
        chain, payer = self._world.chain, account.payer
        nano = max(self._world.scenario.clients.deposit_nano, missing_nano)
        await chain.confirmed(self._wallet, lambda: chain.memory.top_up(self._wallet, payer.channel, nano))
        payer.funded(payer.deposited_nano + nano)
        self._world.trace("topped_up", client=self._client, provider=account.provider, nano=nano)

    async def _close(self, account: Account) -> None:
        """Ask until the provider releases, then carry that to the chain."""
        self._closing += 1
        while (released := await self._released(account)) is None:
            await sleep(self._world.kernel, RETRY_S)
        chain, claim = self._world.chain, released
        await chain.confirmed(
            self._wallet,
            lambda: chain.memory.close_by_release(self._wallet, claim.channel, claim.amount_nano, claim.signature),
        )
        self._check_closed(account, claim.amount_nano)
        self._closing -= 1

    async def _released(self, account: Account) -> Released | None:
        end = self._world.network.connect(self._client, account.provider, release.PROTOCOL)
        inbox = Inbox[release.ToClient](self._world.kernel, end, release.ToClient, patience_s=PATIENCE_S)
        amount_nano, signature = account.voucher
        end.send(CloseRequest(channel=account.payer.channel, amount_nano=amount_nano, signature=signature))
        answer = await inbox.next()
        end.close()
        return answer if isinstance(answer, Released) else None

    def _check_closed(self, account: Account, paid_nano: int) -> None:
        """Where no answer failed everything signed is paid; else what comes back is within the windows of those."""
        payer, invariants = account.payer, self._world.invariants
        back_nano = payer.authorised_nano - paid_nano
        within = 0 <= back_nano <= 2 * account.window_nano * account.failures
        breach = f"{paid_nano} nano paid of {payer.authorised_nano} signed and {payer.delivered_nano} delivered"
        invariants.require("settlement", within and (account.failures > 0 or paid_nano == payer.delivered_nano), breach)
        invariants.paid(self._wallet, account.payee, paid_nano)
        self._world.trace(
            "closed",
            client=self._client,
            provider=account.provider,
            authorised_nano=payer.authorised_nano,
            paid_nano=paid_nano,
        )
