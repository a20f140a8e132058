"""Proposals that are judged after a look, at the wallet or for the time, and few may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.messages import ChannelProposal, ChannelReject
from wire.session import Session

__all__ = ["LOOK_S", "MOST_OF_ONE", "MOST_WAITING", "Proposals"]

log = structlog.get_logger()

MOST_WAITING: Final = 50
MOST_OF_ONE: Final = 2
"""Of one peer, as many as it may have under way."""
LOOK_S: Final = 15.0
"""So long the look may take; then what was last known decides, or nothing is put in."""


class Proposals:
    """One look answers all that wait, whatever their number: one task, and none when nobody waits."""

    def __init__(
        self,
        look: Callable[[], Awaitable[object]],
        judge: Callable[[Session, ChannelProposal], None],
        spawn: Callable[..., asyncio.Task[None]],
    ) -> None:
        """`look`: learns time and balance; `judge`: takes a proposal when that is done; `spawn`: runs a task."""
        self._look = look
        self._judge = judge
        self._spawn = spawn
        self._waiting: dict[bytes, tuple[Session, ChannelProposal]] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def received(self, session: Session, proposal: ChannelProposal) -> None:
        """Have a proposal judged when time and balance are known, or turn it away."""
        earlier = self._waiting.get(proposal.proposal_id)
        if earlier is not None and earlier[0].peer == session.peer:
            self._waiting[proposal.proposal_id] = (session, earlier[1])  # the same again, perhaps in a new session
            return
        of_one = sum(waiting.peer == session.peer for waiting, _ in self._waiting.values())
        if earlier is not None or of_one >= MOST_OF_ONE or len(self._waiting) >= MOST_WAITING:
            text = "too many openings are under way; try again later"
            session.send(ChannelReject(proposal.proposal_id, "too_many_openings", text))
            return
        self._waiting[proposal.proposal_id] = (session, proposal)
        if self._task is None or self._task.done():
            self._task = self._spawn(self._answer(), "proposals")

    async def _answer(self) -> None:
        while self._waiting:
            due = list(self._waiting)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look()
            except (PerundError, TimeoutError) as error:  # what was last known decides, or nothing
                log.warning("proposals.not_looked", error=str(error) or f"no answer within {LOOK_S:g} s")
            for session, proposal in [self._waiting.pop(proposal_id) for proposal_id in due]:
                self._judge(session, proposal)
