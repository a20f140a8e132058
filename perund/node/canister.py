"""The Perun canister as the watcher sees it."""

from __future__ import annotations

from chain.perun import DisputePage, PerunCanister
from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState
from watcher.ports import CertifiedLook, CertifiedPage, LogEntry

__all__ = ["WatchedCanister"]


class WatchedCanister:
    """Looks, and refutes. Implements `watcher.ports.Canister`, `DisputeLog` and `Hints`."""

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

    async def available(self) -> bool:
        """Whether the canister's certified interface has the log."""
        return await self._perun.supports_disputes_since()

    async def page(self, cursor: int, limit: int) -> CertifiedPage:
        """Read the log, certified, by a new request."""
        answer = await self._perun.disputes_since(cursor, limit)
        return CertifiedPage(
            _entries(answer.value), answer.value.head, answer.signed_at_mono_ns, Nanos(answer.chain_time_ns)
        )

    async def hint_page(self, cursor: int, limit: int) -> tuple[LogEntry, ...]:
        """Read the log on one node's word."""
        return _entries(await self._perun.hint_disputes_since(cursor, limit))

    async def hint(self, channel: ChannelId) -> RegisteredState | None:
        """Read what is registered on one node's word."""
        return await self._perun.hint_state(channel)


def _entries(page: DisputePage) -> tuple[LogEntry, ...]:
    return tuple(LogEntry(entry.index, entry.channel, entry.registered) for entry in page.entries)
