"""A ledger that has its moods: it answers transfers late, or with errors, whatever it did with them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from devnet.candid import encode
from devnet.canister import Call
from devnet.ledger import IcpLedger
from devnet.ledger import interface as words
from devnet.ledger.binding import LedgerModule, _result
from devnet.ledger.ledger import Refusal
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.replica.clock import ChainClock
from devnet.replica.principals import to_text

__all__ = ["MoodyLedger", "moody_network"]


@dataclass
class Mood:
    """What befalls one transfer. `executes`: whether it is made; `says`: the answer instead of the true one."""

    executes: bool
    says: Refusal | None = None


class MoodyLedger(LedgerModule):
    """The real ledger, except for what `moods` say of the next transfers, and while `held`. `asked`: how often."""

    def __init__(self) -> None:
        super().__init__(IcpLedger())
        self.moods: list[Mood] = []
        self.held: asyncio.Event | None = None
        self.asked = 0

    def will(self, *, execute: bool, say: Refusal | None = None) -> None:
        """Do this with the next transfer, after those that are told already."""
        self.moods.append(Mood(execute, say))

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        if method != "transfer":
            return await super().execute(method, arg, call)
        self.asked += 1
        mood = self.moods.pop(0) if self.moods else Mood(executes=True)
        if self.held is not None:
            await self.held.wait()
        reply = await super().execute(method, arg, call) if mood.executes else b""
        return reply if mood.says is None else encode((words.TRANSFER_RESULT,), _result(mood.says))


def moody_network() -> tuple[MoodyLedger, LocalNetwork]:
    """Return a network with such a ledger; the canister's own payouts are spared."""
    clock, moody = ChainClock(), MoodyLedger()
    perun = PerunCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, LocalLedger(moody.ledger, PERUN_CANISTER_ID, clock.now_ns))
    network = LocalNetwork.of(
        {ICP_LEDGER_ID: moody, PERUN_CANISTER_ID: PerunModule(perun)},
        moody.mint,
        {"perun_canister": to_text(PERUN_CANISTER_ID), "icp_ledger": to_text(ICP_LEDGER_ID)},
        None,
        clock,
    )
    return moody, network
