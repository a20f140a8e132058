"""The clients of one life: the interfaces of `chain.agent`, `chain.perun` and `chain.ledger`, over a bad line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, TypeVar, cast

from chain.agent import Agent
from chain.clock import Certified, ChainTime
from chain.errors import (
    CallExpired,
    CallRejected,
    ChainError,
    LyingReplica,
    NotInTime,
    OutcomeUnknown,
    RequestRefused,
    UncertifiedReject,
    Unreachable,
)
from chain.ledger import ArchivedBlocks, Block, BlockPage, TransferArgs, TransferError
from chain.perun import CanisterCode, CanisterError, DisputeEntry, DisputePage
from chain.request import SignedCall
from chain.state_reader import INGRESS_TTL_NS
from protocol.types import ChannelId, Funding, Params, RegisteredState, SignedState, WithdrawalRequest
from tests.simulation.power import Life
from tests.simulation.sim_chain import FEE_E8S, LEDGER, PERUN, SimChain
from tests.simulation.virtual_loop import VirtualClock

__all__ = ["Memory", "SimAgent", "SimLedger", "SimPerun"]

PATIENCE_S: Final = 60.0
URL: Final = "http://simulated"

T = TypeVar("T")
Work = Callable[[], Awaitable[object]]


@dataclass
class _Sent:
    """A call as the network knows it."""

    work: Work
    outcome: asyncio.Future[object] | None = None
    verdict: ChainError | None = None


class Memory:
    """Every signed call of all nodes, by request id: the same bytes are the same call, also after a restart."""

    def __init__(self) -> None:
        self.calls: dict[bytes, _Sent] = {}
        self.looks: dict[bytes, object] = {}
        """What was answered: the same request gets the same answer, however old it is by then."""


@dataclass(frozen=True)
class _Unsigned:
    """Whose requests are its own because nobody else is on its line: a signature would only cost time."""

    sender: bytes
    public_key_der: None = None

    def sign(self, message: bytes) -> bytes:
        raise AssertionError(f"{len(message)} bytes to sign for the chain")


class SimAgent:
    """One identity's line to the chain. Requests are signed by the real agent's code."""

    def __init__(self, life: Life, chain: SimChain, memory: Memory, sender: bytes, clock: VirtualClock) -> None:
        self.life = life
        self.chain = chain
        self.clock = clock
        self.identity = _Unsigned(sender)
        self._memory = memory
        self._faults = life.house.faults
        self._rng = life.house.faults.rng
        self._time = ChainTime(clock)
        self._reader = SimpleNamespace(asked_at_ns=self.chain_time)  # the part of the agent that signing asks

    @property
    def chain_time_is_certified(self) -> bool:
        return self._time.certified

    def chain_time(self) -> int:
        return self._time.now_ns()

    def chain_time_is_young(self, most_ns: int) -> bool:
        del most_ns  # no machine sleeps here
        return self._time.certified

    async def renew_time(self, canister: bytes, older_than_ns: int) -> None:
        del older_than_ns
        await self.ensure_time(canister)

    async def ensure_time(self, canister: bytes) -> None:
        del canister
        if not self._time.certified:
            await self.look("time", lambda: None)

    # --- looks -------------------------------------------------------------------------------------------

    async def look(self, method: str, read: Callable[[], T], argument: bytes = b"") -> Certified[T]:
        """Read something by a call: its answer may be late, never untrue, and is that of the request's first time."""
        call = self._sign(PERUN, method, argument)
        self.life.effect(f"call.{method}")
        loop, rng = self.chain.loop, self._rng
        fault = self._faults.chain_fault(loop.time(), changes=False)
        await asyncio.sleep(rng.uniform(0.02, 0.3))
        if fault == "unreachable":
            raise Unreachable(URL, "the line is down")
        if fault == "lying":
            raise LyingReplica("an answer that does not verify")
        if fault == "silent":
            await asyncio.sleep(PATIENCE_S)
            raise OutcomeUnknown(bytes(32), "no answer")
        value = cast("T", self._memory.looks.setdefault(call.request_id, read()))
        # A replica can hold an answer back and deliver it under a newer certificate.
        await asyncio.sleep(rng.uniform(1.0, PATIENCE_S - 1) if fault == "withheld" else rng.uniform(0.02, 0.3))
        self.life.effect(f"answered.{method}")
        certified_ns = loop.chain_ns() - rng.choice((0, 10**8))
        self._time.observe(certified_ns)
        return Certified(value, certified_ns, call.signed_at_chain_ns, call.signed_at_mono_ns, call.request_id)

    async def hint(self, read: Callable[[], T]) -> T:
        """Ask one node: what it says may be late, or a lie."""
        self.life.effect("call.hint")
        loop, rng = self.chain.loop, self._rng
        fault = self._faults.chain_fault(loop.time(), changes=False)
        await asyncio.sleep(rng.uniform(0.02, 0.3))
        if fault == "unreachable":
            raise Unreachable(URL, "the line is down")
        if fault == "silent":
            await asyncio.sleep(PATIENCE_S)
            raise OutcomeUnknown(bytes(32), "no answer")
        value = read()
        self.life.effect("answered.hint")
        return value

    def lies(self) -> bool:
        """Whether the node that is asked for a hint lies now."""
        return not self._faults.healed and self._rng.random() < self._faults.lying_hint

    # --- calls -------------------------------------------------------------------------------------------

    def _sign(self, canister: bytes, method: str, argument: bytes) -> SignedCall:
        return Agent._sign_call(cast("Agent", self), canister, method, argument, self.chain_time())

    def sign(self, canister: bytes, method: str, work: Work) -> SignedCall:
        call = self._sign(canister, method, b"")
        self._memory.calls[call.request_id] = _Sent(work)
        return call

    async def submit(self, call: SignedCall) -> Certified[object]:
        """Send a call; what comes back proves as little as the real agent's errors do."""
        self.life.effect(f"call.{call.method}")
        sent, loop, rng = self._memory.calls[call.request_id], self.chain.loop, self._rng
        fault = self._faults.chain_fault(loop.time(), changes=True)
        expires_in_s = max(0.0, (call.ingress_expiry_ns - loop.chain_ns()) / 1e9)
        if sent.verdict is None and sent.outcome is None and expires_in_s <= 0:
            fault = "never"
        if fault == "unreachable":
            await asyncio.sleep(rng.uniform(0.5, 5.0))
            raise Unreachable(URL, "the line is down")
        if sent.verdict is None and sent.outcome is None:
            if fault == "never":
                await asyncio.sleep(expires_in_s + 2.0)
                if sent.outcome is None:
                    sent.verdict = CallExpired(call.request_id)
            elif fault == "rejected":
                sent.verdict = CallRejected(5, "the canister trapped: it is busy", "IC0503")
            else:
                delay_s = rng.uniform(0.02, 0.5)
                if fault == "late":
                    delay_s = rng.uniform(0.0, min(expires_in_s, rng.choice((5.0, 30.0, INGRESS_TTL_NS / 1e9))))
                sent.outcome = self.chain.execute(delay_s, sent.work)
        elif fault == "never":
            fault = "reply lost"
        if fault in ("reply lost", "late"):
            await asyncio.sleep(rng.choice((rng.uniform(0.2, 5.0), rng.uniform(0.2, PATIENCE_S))))
            raise rng.choice(
                (
                    OutcomeUnknown(call.request_id, "no proof in time"),
                    LyingReplica("an answer that does not verify"),
                    UncertifiedReject(4, "a node says no", None),
                    RequestRefused(URL, 400, "a node says no"),
                )
            )
        if sent.verdict is not None:
            await asyncio.sleep(rng.uniform(0.02, 0.5))
            self.life.effect(f"answered.{call.method}")
            raise sent.verdict
        assert sent.outcome is not None
        value = await asyncio.shield(sent.outcome)
        await asyncio.sleep(rng.uniform(5.0, 30.0) if fault == "slow" else rng.uniform(0.02, 0.3))
        self.life.effect(f"answered.{call.method}")
        self._time.observe(loop.chain_ns())
        return Certified(value, loop.chain_ns(), call.signed_at_chain_ns, call.signed_at_mono_ns, call.request_id)

    async def call(self, canister: bytes, method: str, work: Work) -> Certified[object]:
        await self.ensure_time(canister)
        return await self.submit(self.sign(canister, method, work))


class SimPerun:
    """See `chain.perun.PerunCanister`."""

    canister_id = PERUN

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self._chain = agent.chain

    async def check_interface(self) -> None:
        await self._agent.look("interface", lambda: None)

    async def code(self) -> CanisterCode:
        return (await self._agent.look("code", lambda: CanisterCode(b"\xc0" * 32, ()))).value

    async def supports_disputes_since(self) -> bool:
        """Half of the towns have the published canister, which keeps no log."""
        await self._agent.look("interface", lambda: None)
        return self._chain.keeps_log

    async def disputes_since(self, cursor: int, limit: int) -> Certified[DisputePage]:
        await self._agent.ensure_time(PERUN)
        asked = cursor.to_bytes(8, "big")
        answer = await self._agent.look("disputes_since", lambda: self._chain.disputes(cursor, limit), asked)
        self._agent.life.house.rules.swept(self._agent.life, limit, answer)
        return answer

    async def hint_disputes_since(self, cursor: int, limit: int) -> DisputePage:
        def read() -> DisputePage:
            page = self._chain.disputes(cursor, limit)
            if not page.head or not self._agent.lies():
                return page
            # What is new is left out, and the end of the log is somebody else's.
            return DisputePage((DisputeEntry(page.head - 1, bytes(64), None),), page.head)

        return await self._agent.hint(read)

    async def hint_state(self, channel: ChannelId) -> RegisteredState | None:
        return await self._agent.hint(lambda: None if self._agent.lies() else self._chain.registered(channel))

    async def query_state(self, channel: ChannelId) -> Certified[RegisteredState | None]:
        await self._agent.ensure_time(PERUN)
        answer = await self._agent.look("query_state", lambda: self._chain.registered(channel), channel)
        self._agent.life.house.rules.looked(self._agent.life, channel, answer)
        return answer

    async def query_state_everywhere(self, channel: ChannelId, within_s: float) -> Certified[RegisteredState | None]:
        return await _in_time(self.query_state(channel), within_s)

    async def register_everywhere(
        self, params: Params, signed: SignedState, within_s: float
    ) -> Certified[CanisterError | None]:
        call = self.conclude if signed.state.finalized else self.dispute
        return await _in_time(call(params, signed), within_s)

    async def query_holdings(self, funding: Funding) -> Certified[int | None]:
        await self._agent.ensure_time(PERUN)
        life, asked = self._agent.life, funding.channel + funding.participant
        answer = await self._agent.look("query_holdings", lambda: self._chain.holdings(funding), asked)
        life.house.rules.saw_holdings(life, funding)
        return answer

    async def transaction_notification(self, block: int) -> Certified[int | CanisterError]:
        answer = await self._agent.call(PERUN, "notify", lambda: self._chain.notify(block))
        return cast("Certified[int | CanisterError]", answer)

    async def deposit(self, funding: Funding) -> Certified[CanisterError | None]:
        answer = await self._agent.call(PERUN, "deposit", lambda: self._chain.deposit(funding))
        return cast("Certified[CanisterError | None]", answer)

    async def dispute(self, params: Params, signed: SignedState) -> Certified[CanisterError | None]:
        self._agent.life.house.rules.settles(self._agent.life, signed)
        answer = await self._agent.call(PERUN, "dispute", lambda: self._chain.dispute(params, signed))
        return cast("Certified[CanisterError | None]", answer)

    async def conclude(self, params: Params, signed: SignedState) -> Certified[CanisterError | None]:
        self._agent.life.house.rules.settles(self._agent.life, signed)
        answer = await self._agent.call(PERUN, "conclude", lambda: self._chain.conclude(params, signed))
        return cast("Certified[CanisterError | None]", answer)

    def sign_withdraw(self, request: WithdrawalRequest, signature: bytes) -> SignedCall:
        call = self._agent.sign(PERUN, "withdraw", lambda: self._chain.withdraw(request, signature))
        self._agent.life.house.rules.signed_withdrawal(self._agent.life, request.funding)
        return call

    async def submit_withdraw(self, call: SignedCall) -> Certified[int | CanisterError]:
        self._agent.life.house.rules.withdraws(self._agent.life, call)
        return cast("Certified[int | CanisterError]", await self._agent.submit(call))


async def _in_time(answer: Awaitable[T], within_s: float) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await answer
    except TimeoutError:
        raise NotInTime(within_s) from None


class SimLedger:
    """See `chain.ledger.IcpLedger`. Pages are short, so that reading on is exercised."""

    canister_id = LEDGER

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self._chain = agent.chain
        self._transfers: dict[bytes, TransferArgs] = {}

    def sign_transfer(self, args: TransferArgs) -> SignedCall:
        sender = self._agent.identity.sender
        call = self._agent.sign(LEDGER, "transfer", lambda: self._chain.transfer(sender, args))
        self._transfers[call.request_id] = args
        return call

    async def submit_transfer(self, call: SignedCall) -> Certified[int | TransferError]:
        life = self._agent.life
        life.house.rules.transfers(life, call, self._transfers[call.request_id])
        return cast("Certified[int | TransferError]", await self._agent.submit(call))

    async def balance(self, account: bytes) -> Certified[int]:
        answer = await self._agent.look("balance", lambda: self._chain.ledger.balance(account))
        self._agent.life.house.rules.saw_balance(self._agent.life, account, answer.value)
        return answer

    async def fee(self) -> Certified[int]:
        return await self._agent.look("fee", lambda: FEE_E8S)

    async def blocks(self, start: int, length: int) -> Certified[BlockPage]:
        def read() -> BlockPage:
            return BlockPage(self._chain.ledger.chain_length, self._chain.blocks(start, min(length, 3)), ())

        return await self._agent.look("blocks", read)

    async def chain_length(self) -> Certified[int]:
        return await self._agent.look("chain_length", lambda: self._chain.ledger.chain_length)

    async def archived(self, where: ArchivedBlocks) -> Certified[tuple[Block, ...]]:
        raise AssertionError(f"nothing is archived, and {where} is asked for")
