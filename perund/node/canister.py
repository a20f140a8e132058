"""The Perun canister as the watcher sees it."""

from __future__ import annotations

from chain.clock import Certified
from chain.errors import ChainError
from chain.perun import DisputePage, PerunCanister, shown_page, shown_state
from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState
from watcher.errors import OnlyShown
from watcher.ports import CertifiedLook, CertifiedPage, LogEntry

__all__ = ["WatchedCanister"]


class WatchedCanister:
    """Looks, and refutes. Implements `watcher.ports.Canister`, `DisputeLog` and `Hints`."""

    def __init__(self, perun: PerunCanister) -> None:
        self._perun = perun

    async def look(self, channel: ChannelId) -> CertifiedLook:
        """Make a certified look by a new request (rule 5)."""
        try:
            return await self._look(channel)
        except ChainError as error:
            _say_what_was_shown(channel, error)
            raise

    async def look_everywhere(self, channel: ChannelId, within_s: float) -> CertifiedLook:
        """Make a certified look by a new request at every server."""
        try:
            answer = await self._perun.query_state_everywhere(channel, within_s)
        except ChainError as error:
            _say_what_was_shown(channel, error)
            raise
        return CertifiedLook(answer.value, answer.signed_at_mono_ns, Nanos(answer.asked_at_chain_ns))

    async def _look(self, channel: ChannelId) -> CertifiedLook:
        answer = await self._perun.query_state(channel)
        registered = answer.value
        if registered is not None and registered.settled(answer.chain_time_ns) and not _settled(answer):
            # It may have been replaced after it was read, while the answer was held back: ask once more, now that
            # the timeout is known to have passed.
            answer = await self._perun.query_state(channel)
        return CertifiedLook(answer.value, answer.signed_at_mono_ns, Nanos(answer.asked_at_chain_ns))

    async def refute(self, params: Params, signed: SignedState, within_s: float) -> str:
        """Register a state, or settle with it when it is final, by a call at every server."""
        answer = (await self._perun.register_everywhere(params, signed, within_s)).value
        return "done" if answer is None else answer.value

    async def available(self) -> bool:
        """Whether the canister's certified interface has the log."""
        return await self._perun.supports_disputes_since()

    async def page(self, cursor: int, limit: int) -> CertifiedPage:
        """Read the log, certified, by a new request."""
        try:
            answer = await self._perun.disputes_since(cursor, limit)
        except ChainError as error:
            page = shown_page(error)
            if page is not None:
                raise OnlyShown(str(error), _shown(_entries(page))) from error
            raise
        return CertifiedPage(
            _entries(answer.value), answer.value.head, answer.signed_at_mono_ns, Nanos(answer.asked_at_chain_ns)
        )

    async def hint_page(self, cursor: int, limit: int) -> tuple[LogEntry, ...]:
        """Read the log on one node's word."""
        return _entries(await self._perun.hint_disputes_since(cursor, limit))

    async def hint(self, channel: ChannelId) -> RegisteredState | None:
        """Read what is registered on one node's word."""
        return await self._perun.hint_state(channel)


def _settled(answer: Certified[RegisteredState | None]) -> bool:
    """Whether the state that was read can no longer be replaced: it was over already when it was asked for."""
    return answer.value is not None and answer.value.settled(answer.asked_at_chain_ns)


def _entries(page: DisputePage) -> tuple[LogEntry, ...]:
    return tuple(LogEntry(entry.index, entry.channel, entry.registered) for entry in page.entries)


def _say_what_was_shown(channel: ChannelId, error: ChainError) -> None:
    """Raise `OnlyShown` when an answer without a proof showed a registered state."""
    registered = shown_state(error, channel)
    if registered is not None:
        raise OnlyShown(str(error), {channel: registered}) from error


def _shown(entries: tuple[LogEntry, ...]) -> dict[ChannelId, RegisteredState]:
    return {ChannelId(e.channel): e.registered for e in entries if e.registered is not None}
