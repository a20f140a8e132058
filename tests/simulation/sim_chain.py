"""The Internet Computer of the simulation: the contracts of the devnet, virtual time, and no network to reach them.

A call that left a node executes at most once, now or until its expiry, whatever the node hears of it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from chain.ledger import (
    BadFee,
    Block,
    Burn,
    InsufficientFunds,
    Mint,
    Transfer,
    TransferArgs,
    TransferError,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from chain.perun import CanisterError, DisputeEntry, DisputePage
from devnet.ledger import blocks as ledger_blocks
from devnet.ledger import ledger as devnet_ledger
from devnet.ledger.accounts import account_identifier
from devnet.perun import interface as contract
from devnet.perun.canister import PerunCanister as Contract
from devnet.perun.local_ledger import LocalLedger
from protocol.types import (
    ChannelId,
    Funding,
    Nanos,
    Params,
    RegisteredState,
    SignedState,
    State,
    WithdrawalRequest,
)
from tests.simulation.sim_published import PublishedContract

if TYPE_CHECKING:
    from tests.simulation.virtual_loop import VirtualLoop

__all__ = ["FEE_E8S", "LEDGER", "PERUN", "SimChain"]

PERUN: Final = bytes.fromhex("00000000000000070101")
LEDGER: Final = bytes.fromhex("00000000000000020101")
FEE_E8S: Final = devnet_ledger.TRANSFER_FEE_E8S


class SimChain:
    """Both canisters, and what became of every call."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.ledger = devnet_ledger.IcpLedger()
        self.perun = Contract(PERUN, LEDGER, LocalLedger(self.ledger, PERUN, loop.chain_ns))
        self.account = account_identifier(PERUN)
        self.fee_in_doubt_until_s = 0.0
        """Until this loop time the ledger refuses transfers for their fee."""
        self.keeps_log = True
        """Whether the canister's interface has `disputes_since`."""
        self.executing = 0
        self.minted_e8s = 0
        self.on_registered: Callable[[State, int], None] = lambda state, timeout_ns: None
        self.first_registered_ns: dict[bytes, int] = {}
        """When a state of a channel was first registered, in the loop's time."""
        self.settled: dict[bytes, State] = {}
        """What each channel was once seen settled on: that stands for ever."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()

    def be_published(self) -> None:
        """Be a chain with the published canister: no log of disputes, and payouts in full."""
        self.keeps_log = False
        self.perun = PublishedContract(PERUN, LEDGER, LocalLedger(self.ledger, PERUN, self.loop.chain_ns))

    def mint(self, account: bytes, e8s: int) -> None:
        self.ledger.mint(account, e8s, self.loop.chain_ns())
        self.minted_e8s += e8s

    # --- calls -------------------------------------------------------------------------------------------

    def execute(self, delay_s: float, work: Callable[[], Awaitable[object]]) -> asyncio.Future[object]:
        """Execute a call after a while, whoever has died meanwhile."""
        done: asyncio.Future[object] = self.loop.create_future()
        self.loop.call_later(delay_s, self._start, work, done, context=self._context)
        return done

    def _start(self, work: Callable[[], Awaitable[object]], done: asyncio.Future[object]) -> None:
        async def run() -> None:
            self.executing += 1
            try:
                result = await work()
            finally:
                self.executing -= 1
                self._note_settled()
            if not done.done():
                done.set_result(result)

        task = self.loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        task.result()

    # --- what the canister answers, in the words of the client -------------------------------------------

    def disputes(self, cursor: int, limit: int) -> DisputePage:
        found = self.perun.disputes_since(cursor, limit)
        entries = tuple(DisputeEntry(e.index, e.channel, self.registered(ChannelId(e.channel))) for e in found.entries)
        return DisputePage(entries, found.head)

    def registered(self, channel: ChannelId) -> RegisteredState | None:
        found = self.perun.query_state(channel)
        if found is None:
            return None
        state = found.state
        first, second = state.allocation
        return RegisteredState(
            State(ChannelId(state.channel), state.version, (first, second), state.finalized), Nanos(found.timeout)
        )

    def holdings(self, funding: Funding) -> int | None:
        return self.perun.query_holdings(contract.Funding(funding.channel, funding.participant), self.loop.chain_ns())

    async def notify(self, block: int) -> int | CanisterError:
        return _answer(await self.perun.transaction_notification(block, self.loop.chain_ns()))

    async def deposit(self, funding: Funding) -> CanisterError | None:
        refused = self.perun.deposit(contract.Funding(funding.channel, funding.participant), self.loop.chain_ns())
        return CanisterError(refused.value) if refused is not None else None

    def _note_settled(self) -> None:
        for channel in self.first_registered_ns:
            found = self.registered(ChannelId(channel))
            if found is not None and channel not in self.settled and found.settled(Nanos(self.loop.chain_ns())):
                self.settled[channel] = found.state

    async def dispute(self, params: Params, signed: SignedState) -> CanisterError | None:
        refused = self.perun.dispute(*_settlement(params, signed), self.loop.chain_ns())
        if refused is None:
            registered = self.registered(signed.state.channel)
            assert registered is not None
            self.first_registered_ns.setdefault(signed.state.channel, self.loop.elapsed_ns())
            self.on_registered(registered.state, registered.timeout_ns)
        return CanisterError(refused.value) if refused is not None else None

    async def conclude(self, params: Params, signed: SignedState) -> CanisterError | None:
        refused = self.perun.conclude(*_settlement(params, signed), self.loop.chain_ns())
        if refused is None:
            self.first_registered_ns.setdefault(signed.state.channel, self.loop.elapsed_ns())
        return CanisterError(refused.value) if refused is not None else None

    async def withdraw(self, request: WithdrawalRequest, signature: bytes) -> int | CanisterError:
        asked = contract.WithdrawalRequest(
            contract.Funding(request.funding.channel, request.funding.participant), request.receiver
        )
        return _answer(await self.perun.withdraw(asked, signature, self.loop.chain_ns()))

    # --- what the ledger answers -------------------------------------------------------------------------

    async def transfer(self, caller: bytes, args: TransferArgs) -> int | TransferError:
        if self.loop.time() < self.fee_in_doubt_until_s:
            return BadFee(2 * FEE_E8S)
        request = devnet_ledger.TransferRequest(
            to=args.to,
            amount=args.amount_e8s,
            fee=args.fee_e8s,
            memo=args.memo,
            created_at_time=args.created_at_time_ns,
        )
        answer = self.ledger.transfer(caller, request, self.loop.chain_ns())
        match answer:
            case int():
                return answer
            case devnet_ledger.TxDuplicate():
                return TxDuplicate(answer.duplicate_of)
            case devnet_ledger.BadFee():
                return BadFee(answer.expected_fee)
            case devnet_ledger.InsufficientFunds():
                return InsufficientFunds(answer.balance)
            case devnet_ledger.TxTooOld():
                return TxTooOld(answer.allowed_window_nanos)
            case devnet_ledger.TxCreatedInFuture():
                return TxCreatedInFuture()

    def blocks(self, start: int, length: int) -> tuple[Block, ...]:
        found = self.ledger.blocks(start, length)
        return tuple(_block(start + place, block) for place, block in enumerate(found))


def _answer(answer: int | contract.Error) -> int | CanisterError:
    return answer if isinstance(answer, int) else CanisterError(answer.value)


def _settlement(params: Params, signed: SignedState) -> tuple[contract.Params, contract.FullySignedState]:
    state = signed.state
    return (
        contract.Params(params.nonce, params.participants, params.challenge_duration_ns),
        contract.FullySignedState(
            contract.State(state.channel, state.version, state.allocation, state.finalized), signed.signatures
        ),
    )


def _block(index: int, block: ledger_blocks.Block) -> Block:
    made = block.transaction
    match made.operation:
        case ledger_blocks.Transfer() as moved:
            operation: Transfer | Mint | Burn = Transfer(moved.from_, moved.to, moved.amount, moved.fee, None)
        case ledger_blocks.Mint() as minted:
            operation = Mint(minted.to, minted.amount)
        case ledger_blocks.Burn() as burned:
            operation = Burn(burned.from_, burned.amount)
    return Block(index, block.timestamp, made.memo, operation, made.created_at_time)
