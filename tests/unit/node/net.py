"""The local Internet Computer in this process, with a line before it that loses, holds and refuses.

The agent speaks to it over HTTP on 127.0.0.1 as to any other network; only time and faults are made up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import aiohttp
import cbor2
from aiohttp import web

from chain.agent import Agent
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger, TransferArgs
from chain.perun import PerunCanister
from chain.principal import account_identifier
from devnet.ledger.binding import LedgerModule
from devnet.ledger.blocks import Block, Transfer
from devnet.ledger.ledger import IcpLedger as LedgerCanister
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunModule
from devnet.perun import PerunCanister as PerunContract
from devnet.perun.interface import Funding as ContractFunding
from devnet.replica.clock import ChainClock
from devnet.replica.principals import to_text
from devnet.server import serve
from protocol.types import Funding
from tests.unit.devnet.scene import TroubledLedger

FEE: Final = 10_000
ICP: Final = 100_000_000
CANISTER_ACCOUNT: Final = account_identifier(PERUN_CANISTER_ID)


class Fault(Enum):
    """What befalls a request."""

    LOST = auto()
    """It never arrives; the connection breaks."""
    REPLY_LOST = auto()
    """It is executed, and the connection breaks instead of an answer."""
    HELD = auto()
    """It never arrives, and no answer comes either."""
    REPLY_HELD = auto()
    """It is executed, and no answer comes."""
    REPLY_LATE = auto()
    """It is executed, and the answer comes after `calm`."""
    HTTP_500 = auto()
    """It never arrives; the answer is 500."""


@dataclass
class _Rule:
    method: str
    fault: Fault
    left: int
    met: asyncio.Event = field(default_factory=asyncio.Event)
    calmed: asyncio.Event = field(default_factory=asyncio.Event)


class Net:
    """The network behind its line. `url`: of the line; `perun` and `ledger` are the canisters themselves."""

    url: str
    root_key: bytes
    someone: Agent
    """Somebody with money, who is neither side of any channel."""
    _direct: str
    _http: aiohttp.ClientSession

    def __init__(self) -> None:
        clock = ChainClock()
        self.ledger = LedgerCanister()
        self.clock = clock
        module = LedgerModule(self.ledger)
        self.line = TroubledLedger(LocalLedger(self.ledger, PERUN_CANISTER_ID, clock.now_ns))
        self.contract = PerunContract(PERUN_CANISTER_ID, ICP_LEDGER_ID, self.line)
        self.network = LocalNetwork.of(
            {ICP_LEDGER_ID: module, PERUN_CANISTER_ID: PerunModule(self.contract)},
            module.mint,
            {"perun_canister": to_text(PERUN_CANISTER_ID), "icp_ledger": to_text(ICP_LEDGER_ID)},
            None,
            clock,
        )
        self._rules: list[_Rule] = []
        self._over = asyncio.Event()
        self.calls: list[str] = []
        """Methods of the calls that came to the line, in order."""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Net]:
        net = cls()
        async with serve(net.network, "127.0.0.1", 0) as info, aiohttp.ClientSession() as http:
            net._direct, net._http = info["url"], http
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", net._pass)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            net.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            net.root_key = bytes.fromhex(info["root_key"])
            net.someone = net.agent(Ed25519Identity(b"\x77" * 32))
            try:
                yield net
            finally:
                net._over.set()
                await net.someone.close()
                await runner.cleanup()
        await net.network.replica.close()

    # --- the line -----------------------------------------------------------------------------------------

    def disturb(self, method: str, fault: Fault, count: int = 1) -> asyncio.Event:
        """Have the next calls of a method fail; the event tells that the first of them came."""
        rule = _Rule(method, fault, count)
        self._rules.append(rule)
        return rule.met

    def calm(self) -> None:
        """Have no more requests fail."""
        for rule in self._rules:
            rule.calmed.set()
        self._rules.clear()

    def _fault_of(self, path: str, body: bytes) -> _Rule | None:
        if not path.endswith("/call"):
            return None
        method = cbor2.loads(body)["content"]["method_name"]
        self.calls.append(method)
        for rule in self._rules:
            if rule.method == method and rule.left:
                rule.left -= 1
                return rule
        return None

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        rule = self._fault_of(request.path, body)
        fault = rule.fault if rule is not None else None
        answer: web.StreamResponse = web.Response(status=500, text="out of order")
        if fault not in (Fault.LOST, Fault.HELD, Fault.HTTP_500):
            headers = {"content-type": request.headers.get("content-type", "application/cbor")}
            url = self._direct + request.path_qs
            async with self._http.request(request.method, url, data=body, headers=headers) as got:
                answer = web.Response(status=got.status, body=await got.read(), content_type=got.content_type)
        if rule is not None:
            rule.met.set()
        if rule is not None and fault is Fault.REPLY_LATE:
            await rule.calmed.wait()
        if fault in (Fault.HELD, Fault.REPLY_HELD):
            await self._over.wait()
        if fault in (Fault.LOST, Fault.REPLY_LOST) and request.transport is not None:
            request.transport.abort()
        return answer

    # --- the network ----------------------------------------------------------------------------------------

    def agent(self, identity: Ed25519Identity) -> Agent:
        return Agent([self.url], self.root_key, identity, pause=_briefly)

    def advance(self, seconds: int) -> None:
        """Let chain time pass. Nobody is told."""
        self.clock.advance(seconds * 10**9)

    def mint(self, account: bytes, e8s: int) -> None:
        self.ledger.mint(account, e8s, self.clock.now_ns())

    def fill(self, blocks: int) -> None:
        """Let other people make so many blocks."""
        for _ in range(blocks):
            self.mint(account_identifier(b"\x05"), 1)

    def transfers(self, to: bytes, memo: int | None = None) -> list[Block]:
        """The ledger's transfers to an account, and with a memo."""
        return [
            block
            for block in self.ledger.blocks(0, self.ledger.chain_length)
            if isinstance(block.transaction.operation, Transfer)
            and block.transaction.operation.to == to
            and memo in (None, block.transaction.memo)
        ]

    def held(self, funding: Funding) -> int:
        return (
            self.contract.query_holdings(ContractFunding(funding.channel, funding.participant), self.clock.now_ns())
            or 0
        )

    async def pay_in(self, funding: Funding, e8s: int, *, credit: bool = True) -> int:
        """Somebody else pays for a funding. Returns the block."""
        ledger, perun = IcpLedger(self.someone, ICP_LEDGER_ID), PerunCanister(self.someone, PERUN_CANISTER_ID)
        self.mint(account_identifier(self.someone.identity.sender), e8s + FEE)
        args = TransferArgs(CANISTER_ACCOUNT, e8s, FEE, funding.memo, self.clock.now_ns())
        block = (await ledger.transfer(args)).value
        assert isinstance(block, int)
        if credit:
            assert (await perun.transaction_notification(block)).value == e8s
            assert (await perun.deposit(funding)).value is None
        return block


async def _briefly(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))
