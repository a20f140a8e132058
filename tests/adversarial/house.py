"""A devnet in this process, one node on it, and its peer played by the test.

The devnet is the real one, behind HTTP. `House` also reads the ledger and the canister where they live, past every
fault: that is the truth with which a node's beliefs are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp

from devnet.canister import CanisterModule
from devnet.ledger.accounts import account_identifier
from devnet.ledger.binding import LedgerModule
from devnet.ledger.blocks import Transfer
from devnet.ledger.ledger import TransferRequest
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import PerunCanister
from devnet.perun import interface as words
from devnet.perun.binding import PerunModule
from devnet.server import Ready, serve
from protocol.types import Funding, Params, SignedState

__all__ = ["FEE", "HOUR_S", "ICP", "House", "eventually", "house_of"]

ICP: Final = 100_000_000
FEE: Final = 10_000
HOUR_S: Final = 3600
PATIENCE_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.005

T = TypeVar("T")


async def eventually(condition: Callable[[], T], what: str) -> T:
    """Return what `condition` gives once it is true of it, or fail by saying what did not happen."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := condition()):  # noqa: ASYNC110  (many kinds of things are waited for)
                await asyncio.sleep(LOOK_AGAIN_S)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None


@dataclass
class House:
    """The network. `info`: its ready line; `ledger`, `perun`: its canisters, without HTTP between."""

    network: LocalNetwork
    info: Ready
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.info["url"]

    @property
    def root_key(self) -> bytes:
        return bytes.fromhex(self.info["root_key"])

    def module(self, canister_id: bytes) -> CanisterModule:
        return self.network.replica._canisters[canister_id]

    @property
    def ledger(self) -> LedgerModule:
        module = self.module(ICP_LEDGER_ID)
        assert isinstance(module, LedgerModule)
        return module

    @property
    def perun(self) -> PerunCanister:
        module = self.module(PERUN_CANISTER_ID)
        assert isinstance(module, PerunModule)
        return module.canister

    @property
    def now_ns(self) -> int:
        return self.network.replica.clock.now_ns()

    # --- admin calls -------------------------------------------------------------------------------------

    async def order(self, fault: str, **fields: str | float) -> None:
        """Have requests fail; as often as it takes, unless `count` says otherwise."""
        order = {"fault": fault, "count": 1_000_000, **fields}
        async with self.http.post(f"{self.url}/_devnet/faults", json=order) as answer:
            assert answer.status == 200, await answer.text()

    async def clear(self) -> None:
        async with self.http.post(f"{self.url}/_devnet/faults", json={"count": 0}) as answer:
            assert answer.status == 200

    async def hits(self, fault: str) -> int:
        async with self.http.get(f"{self.url}/_devnet/faults") as answer:
            hits = (await answer.json())["hits"].get(fault, 0)
            assert isinstance(hits, int)
            return hits

    async def hit(self, fault: str, times: int) -> None:
        """Return when a fault has hit so often."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await self.hits(fault) < times:  # noqa: ASYNC110  (the devnet has no feed of its faults)
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            raise AssertionError(f"{fault} hit {await self.hits(fault)} times, not {times}") from None

    def advance(self, seconds: float) -> None:
        self.network.replica.clock.advance(int(seconds * 1_000_000_000))

    def mint(self, account: bytes, e8s: int) -> None:
        self.ledger.ledger.mint(account, e8s, self.now_ns)

    # --- the truth ---------------------------------------------------------------------------------------

    def balance(self, account: bytes) -> int:
        return self.ledger.ledger.balance(account)

    def transfers(self, source: bytes, target: bytes) -> list[int]:
        """Return the amounts of all transfers from one account to another, in e8s."""
        ledger = self.ledger.ledger
        operations = [block.transaction.operation for block in ledger.blocks(0, ledger.chain_length)]
        return [o.amount for o in operations if isinstance(o, Transfer) and (o.from_, o.to) == (source, target)]

    def holdings(self, funding: Funding) -> int:
        return self.perun.query_holdings(words.Funding(funding.channel, funding.participant), self.now_ns) or 0

    def registered_version(self, channel: bytes) -> int | None:
        found = self.perun.query_state(channel)
        return None if found is None else found.state.version

    def dispute(self, params: Params, signed: SignedState) -> None:
        """Register a state behind everybody's back."""
        state = signed.state
        answer = self.perun.dispute(
            words.Params(params.nonce, params.participants, params.challenge_duration_ns),
            words.FullySignedState(
                words.State(state.channel, state.version, state.allocation, state.finalized), signed.signatures
            ),
            self.now_ns,
        )
        assert answer is None, answer

    async def deposit(self, principal: bytes, funding: Funding, e8s: int) -> None:
        """Somebody pays for a participant: transfer, notification, credit."""
        self.mint(account_identifier(principal), e8s + FEE)
        request = TransferRequest(self.perun.account, e8s, FEE, funding.memo)
        block = self.ledger.ledger.transfer(principal, request, self.now_ns)
        assert isinstance(block, int), block
        assert await self.perun.transaction_notification(block, self.now_ns) == e8s
        assert self.perun.deposit(words.Funding(funding.channel, funding.participant), self.now_ns) is None


@asynccontextmanager
async def house_of(network: LocalNetwork | None = None) -> AsyncIterator[House]:
    """Serve a network, by default a new one with ledger and Perun canister."""
    served = network or LocalNetwork.create()
    async with aiohttp.ClientSession() as http, serve(served, "127.0.0.1", 0) as info:
        yield House(served, info, http)
    await served.replica.close()
