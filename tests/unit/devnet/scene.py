"""A ledger, a Perun canister on it, and people with keys: what the tests play with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from nacl.signing import SigningKey

from devnet.ledger import IcpLedger, account_identifier
from devnet.ledger.ledger import TransferRequest
from devnet.perun import LocalLedger, PerunCanister
from devnet.perun.interface import Error, FullySignedState, Funding, Params, State, WithdrawalRequest
from devnet.perun.ledger_port import LedgerBlock, LedgerTerms, LedgerUnreachable, Outgoing, Refused

FEE = 10_000
ICP = 100_000_000
SECOND = 1_000_000_000
HOUR = 3600 * SECOND
START_NS = 1_700_000_000 * SECOND
CANISTER = bytes.fromhex("80000000001000010101")
LEDGER = bytes.fromhex("00000000000000020101")


@dataclass(frozen=True)
class Person:
    """Somebody with a channel key and a principal."""

    key: SigningKey
    principal: bytes

    @classmethod
    def named(cls, name: str) -> Person:
        seed = name.encode().ljust(32, b".")
        return cls(SigningKey(seed), seed[:28] + b"\x02")

    @property
    def public(self) -> bytes:
        return bytes(self.key.verify_key)

    @property
    def account(self) -> bytes:
        return account_identifier(self.principal)


ALICE, BOB, MALLORY = (Person.named(name) for name in ("alice", "bob", "mallory"))


class Trouble(Enum):
    """What befalls the next transfers of the canister."""

    LOST_BEFORE = auto()  # the ledger never hears of it
    LOST_AFTER = auto()  # it is executed, the answer is lost
    REFUSED = auto()  # the canister's account is empty, as the ledger sees it
    BAD_FEE = auto()


@dataclass
class TroubledLedger:
    """The real ledger behind a line that can be cut. `held`: while set, calls wait before they reach it."""

    inner: LocalLedger
    troubles: list[Trouble] = field(default_factory=list)
    calls: list[Outgoing] = field(default_factory=list)
    held: asyncio.Event | None = None

    async def transfer(self, outgoing: Outgoing) -> int | Refused:
        self.calls.append(outgoing)
        trouble = self.troubles.pop(0) if self.troubles else None
        if self.held is not None:
            await self.held.wait()
        if trouble is Trouble.LOST_BEFORE:
            raise LedgerUnreachable("lost on the way")
        if trouble is Trouble.REFUSED:
            return Refused.INSUFFICIENT_FUNDS
        if trouble is Trouble.BAD_FEE:
            return Refused.BAD_FEE
        answer = await self.inner.transfer(outgoing)
        if trouble is Trouble.LOST_AFTER:
            raise LedgerUnreachable("lost on the way back")
        return answer

    async def query_block(self, index: int) -> LedgerBlock | None:
        if self.held is not None:
            await self.held.wait()
        return await self.inner.query_block(index)

    async def terms(self) -> LedgerTerms:
        return await self.inner.terms()

    async def find_transfer(self, outgoing: Outgoing, from_block: int) -> int | None:
        return await self.inner.find_transfer(outgoing, from_block)


class Scene:
    """Chain time, the ledger, the canister, and shortcuts for what people do with them."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.ledger = IcpLedger()
        self.line = TroubledLedger(LocalLedger(self.ledger, CANISTER, lambda: self.now_ns))
        self.canister = PerunCanister(CANISTER, LEDGER, self.line)
        self.minted = 0
        self._created = 0

    def pass_time(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds

    def pool(self) -> int:
        """What the canister has on the ledger, in e8s."""
        return self.ledger.balance(self.canister.account)

    def upgrade(self) -> None:
        """Replace the canister by a new one with its saved state."""
        saved = self.canister.save()
        self.canister = PerunCanister(CANISTER, LEDGER, self.line)
        self.canister.load(saved)

    def transfer(self, payer: Person, e8s: int, memo: int = 0, icrc1_memo: bytes | None = None) -> int:
        """Pay the canister from money made for the purpose; return the block."""
        self.ledger.mint(payer.account, e8s + FEE, self.now_ns)
        self.minted += e8s + FEE
        request = TransferRequest(self.canister.account, e8s, FEE, memo, icrc1_memo)
        block = self.ledger.transfer(payer.principal, request, self.now_ns)
        assert isinstance(block, int)
        return block

    async def notify(self, block: int) -> int | Error:
        return await self.canister.transaction_notification(block, self.now_ns)

    async def fund(self, channel: Channel, person: Person, e8s: int) -> None:
        """Pay, notify and credit."""
        funding = channel.funding(person)
        assert await self.notify(self.transfer(person, e8s, funding.memo())) == e8s
        assert self.canister.deposit(funding, self.now_ns) is None

    def holdings(self, channel: Channel, person: Person) -> int | None:
        return self.canister.query_holdings(channel.funding(person), self.now_ns)

    def dispute(self, channel: Channel, signed: FullySignedState) -> Error | None:
        return self.canister.dispute(channel.params, signed, self.now_ns)

    def conclude(self, channel: Channel, signed: FullySignedState) -> Error | None:
        return self.canister.conclude(channel.params, signed, self.now_ns)

    async def withdraw(self, channel: Channel, person: Person, receiver: bytes | None = None) -> int | Error:
        request = WithdrawalRequest(channel.funding(person), person.principal if receiver is None else receiver)
        signature = person.key.sign(request.signed_bytes()).signature
        return await self.canister.withdraw(request, signature, self.now_ns)

    def events(self, channel: Channel, start: int = 0) -> list[str]:
        """The names of a channel's events."""
        events = self.canister.query_events(channel.id, start, self.now_ns)
        return [type(event).__name__ for event in events]

    def assert_conserved(self) -> None:
        """Every e8 in the canister's account belongs to somebody, and the ledger itself adds up."""
        assert self.pool() == self.canister.owed_e8s
        everybody = sum(self.ledger.balance(p.account) for p in (ALICE, BOB, MALLORY)) + self.pool()
        assert everybody == self.ledger.total_supply_e8s


class Channel:
    """Params and whoever signs."""

    def __init__(
        self,
        people: Sequence[Person] = (ALICE, BOB),
        *,
        nonce: int = 0,
        duration_ns: int = HOUR,
        participants: tuple[bytes, ...] | None = None,
    ) -> None:
        self.people = tuple(people)
        keys = tuple(person.public for person in people) if participants is None else participants
        self.params = Params(nonce.to_bytes(64, "big"), keys, duration_ns)
        self.id = self.params.channel_id()

    def funding(self, person: Person) -> Funding:
        return Funding(self.id, person.public)

    def state(self, version: int, *allocation: int, final: bool = False) -> State:
        return State(self.id, version, allocation, final)

    def signed(self, version: int, *allocation: int, final: bool = False) -> FullySignedState:
        return self.sign(self.state(version, *allocation, final=final))

    def sign(self, state: State) -> FullySignedState:
        message = state.signed_bytes()
        return FullySignedState(state, tuple(person.key.sign(message).signature for person in self.people))


async def funded(alice_e8s: int = 10 * ICP, bob_e8s: int = 10 * ICP) -> tuple[Scene, Channel]:
    """Return a scene with a channel that both have paid into."""
    scene, channel = Scene(), Channel()
    for person, e8s in ((ALICE, alice_e8s), (BOB, bob_e8s)):
        if e8s:
            await scene.fund(channel, person, e8s)
    return scene, channel
