"""The Perun canister as the watcher sees it."""

from __future__ import annotations

from chain.perun import PerunCanister
from protocol.types import ChannelId, Nanos, Params, SignedState
from watcher.ports import CertifiedLook

__all__ = ["WatchedCanister"]


class WatchedCanister:
    """Looks, and refutes. Implements `watcher.ports.Canister`."""

    def __init__(self, perun: PerunCanister) -> None:
        self._perun = perun

    async def look(self, channel: ChannelId) -> CertifiedLook:
        """Make a certified look by a new request (rule 5)."""
        answer = await self._perun.query_state(channel)
        return CertifiedLook(answer.value, answer.signed_at_mono_ns, Nanos(answer.chain_time_ns))

    async def refute(self, params: Params, signed: SignedState) -> str:
        """Register a state, or settle with it when it is final."""
        call = self._perun.conclude if signed.state.finalized else self._perun.dispute
        answer = (await call(params, signed)).value
        return "done" if answer is None else answer.value
