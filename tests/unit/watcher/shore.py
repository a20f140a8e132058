"""What a watcher stands on in tests: the Perun canister itself, states on a disk, and a time that waits for nobody.

Only the time is made up, and the line between the two: it can fail, and hold answers back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from devnet.perun.interface import RegisteredState as Registered
from protocol.errors import PerundError
from protocol.types import ChannelId, Nanos, Params, ParticipantKey, RegisteredState, SignedState, State
from tests.unit.devnet.scene import ALICE, BOB, START_NS, Channel, Scene
from watcher.errors import OnlyShown
from watcher.ports import CertifiedLook, CertifiedPage, LogEntry
from watcher.watch import Watcher

SECOND = 10**9


class _VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer whenever there is nothing else to do."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and due:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, min(due))
        super()._run_once()  # type: ignore[misc]


def in_no_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a loop where hours take milliseconds."""

    def run() -> None:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            runner.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class NoAnswer(PerundError):
    """No certified answer came."""


@dataclass
class Heard:
    """What was reported, in order."""

    looks: list[tuple[ChannelId, CertifiedLook]] = field(default_factory=list)
    failures: list[ChannelId] = field(default_factory=list)
    refuting: list[tuple[ChannelId, int, int]] = field(default_factory=list)
    refuted: list[tuple[ChannelId, int]] = field(default_factory=list)
    notices: list[tuple[str, ChannelId | None, Mapping[str, str | int | bool]]] = field(default_factory=list)

    def alarms(self) -> list[str]:
        return [kind for kind, _, facts in self.notices if facts.get("alarm") is True]


class Shore:
    """Implements the watcher's ports. `latency_s`: of every call; `broken`: channels that get no answer;
    `defective`: channels whose reports raise something that is no error of ours.
    """

    def __init__(self, latency_s: float = 0.01) -> None:
        self.scene = Scene()
        self.latency_s = latency_s
        self.broken: set[ChannelId] = set()
        self.lost_refutations = 0
        self.defective: set[ChannelId] = set()
        self.states: dict[ChannelId, tuple[Params, SignedState]] = {}
        self.channels: dict[ChannelId, Channel] = {}
        self.heard = Heard()
        self.in_flight = self.most_in_flight = 0
        self.looks_asked: dict[ChannelId, list[float]] = {}
        self.refutations: list[tuple[float, int]] = []
        self.refuting_began = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.log_broken = False
        self.no_proofs = False
        """Whether no certificate passes: what happens, happens all the same."""
        self.shows = False
        """Whether answers without a proof show what they would prove."""
        self.silent_hints = False
        self.made_up: dict[ChannelId, RegisteredState | None] = {}
        """What queries say of these channels instead of the truth."""
        self.page_delay_s = 0.0
        self.pages_asked: list[tuple[float, int]] = []
        self.hints_asked: list[float] = []
        self.lies: list[LogEntry] | None = None
        self._page_asked = asyncio.Event()
        self.on_look: Callable[[ChannelId], None] | None = None

    # --- time ---------------------------------------------------------------------------------------------

    @staticmethod
    def now_s() -> float:
        return asyncio.get_running_loop().time()

    def monotonic_ns(self) -> int:
        return int(self.now_s() * SECOND)

    def chain_ns(self) -> int:
        return START_NS + self.monotonic_ns()

    # --- the canister ---------------------------------------------------------------------------------------

    async def look(self, channel: ChannelId) -> CertifiedLook:
        asked_ns = self.monotonic_ns()
        self.looks_asked.setdefault(channel, []).append(self.now_s())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s / 2)
            if channel in self.broken:
                raise NoAnswer("the line is cut")
            found = self.scene.canister.query_state(channel)  # as it is when the canister answers
            registered = _registered(channel, found)
            if self.no_proofs and self.shows and registered is not None:
                raise OnlyShown("the certificate is bad", {channel: registered})
            if self.no_proofs:
                raise NoAnswer("the certificate is bad")
            await asyncio.sleep(self.latency_s / 2)
            if self.hold is not None:
                await self.hold.wait()  # a replica that keeps the answer
        finally:
            self.in_flight -= 1
        return CertifiedLook(_registered(channel, found), asked_ns, Nanos(START_NS + asked_ns))

    # --- the canister's log, and what single nodes say ------------------------------------------------------

    async def available(self) -> bool:
        if self.no_proofs:
            raise NoAnswer("the certificate is bad")
        return True

    def entries(self, cursor: int, limit: int) -> tuple[LogEntry, ...]:
        found = self.scene.canister.disputes_since(cursor, limit).entries
        return tuple(LogEntry(e.index, e.channel, _registered(ChannelId(e.channel), e.state)) for e in found)

    async def page(self, cursor: int, limit: int) -> CertifiedPage:
        asked_ns = self.monotonic_ns()
        self.pages_asked.append((self.now_s(), cursor))
        self._page_asked.set()
        self._page_asked.clear()
        await asyncio.sleep(self.latency_s / 2 + self.page_delay_s)
        if self.log_broken or self.no_proofs:
            raise NoAnswer("the log is out of reach")
        head = self.scene.canister.disputes_since(cursor, limit).head
        entries = self.entries(cursor, limit)
        await asyncio.sleep(self.latency_s / 2)
        return CertifiedPage(entries, head, asked_ns, Nanos(START_NS + asked_ns))

    async def page_asked(self) -> None:
        """Return when the log is asked for the next time."""
        await self._page_asked.wait()

    async def hint_page(self, cursor: int, limit: int) -> tuple[LogEntry, ...]:
        self.hints_asked.append(self.now_s())
        await self._query()
        return tuple(self.lies) if self.lies is not None else self.entries(cursor, limit)

    async def _query(self) -> None:
        await asyncio.sleep(self.latency_s)
        if self.silent_hints:
            await asyncio.Event().wait()

    async def hint(self, channel: ChannelId) -> RegisteredState | None:
        self.hints_asked.append(self.now_s())
        await self._query()
        if channel in self.made_up:
            return self.made_up[channel]
        return _registered(channel, self.scene.canister.query_state(channel))

    async def look_everywhere(self, channel: ChannelId, within_s: float) -> CertifiedLook:
        async with asyncio.timeout(within_s):
            return await self.look(channel)

    async def refute(self, params: Params, signed: SignedState, within_s: float) -> str:
        channel = self.channels[params.channel_id]
        state = signed.state
        self.refutations.append((self.now_s(), state.version))
        self.refuting_began.set()
        await asyncio.sleep(self.latency_s)
        if self.lost_refutations:
            self.lost_refutations -= 1
            raise NoAnswer("the request was lost")
        self.scene.now_ns = self.chain_ns()
        answer = self.scene.dispute(channel, channel.signed(state.version, *state.allocation, final=state.finalized))
        if self.no_proofs:
            raise NoAnswer("the certificate is bad")
        return "done" if answer is None else answer.name

    # --- states and reports ---------------------------------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return self.states.get(channel)

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        if channel in self.defective:
            raise RuntimeError("a defect")
        self.heard.looks.append((channel, look))
        if self.on_look is not None:
            self.on_look(channel)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        self.heard.failures.append(channel)

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        self.heard.refuting.append((channel, registered, ours))

    def refuted(self, channel: ChannelId, ours: int) -> None:
        self.heard.refuted.append((channel, ours))

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        self.heard.notices.append((kind, channel, facts))

    # --- what people do ---------------------------------------------------------------------------------------

    async def channel(self, nonce: int = 0, challenge_s: int = 60) -> ChannelId:
        """A funded channel whose newest state here is of version 0."""
        made = Channel((ALICE, BOB), nonce=nonce, duration_ns=challenge_s * SECOND)
        self.scene.now_ns = self.chain_ns()
        await self.scene.fund(made, ALICE, 1000)
        channel = ChannelId(made.id)
        self.channels[channel] = made
        self.agree(channel, 0)
        return channel

    def agree(self, channel: ChannelId, version: int) -> None:
        """Both sign the next state: Alice has paid an e8 in each."""
        made = self.channels[channel]
        signed = made.signed(version, 1000 - version, version)
        keys = (ParticipantKey(ALICE.public), ParticipantKey(BOB.public))
        params = Params(made.params.nonce, keys, Nanos(made.params.challenge_duration))
        state = State(channel, version, (1000 - version, version), finalized=False)
        self.states[channel] = (params, SignedState(state, (signed.sigs[0], signed.sigs[1])))

    def register(self, channel: ChannelId, version: int, *, paid: int | None = None) -> None:
        """Somebody registers a state, behind everybody's back."""
        made, paid = self.channels[channel], version if paid is None else paid
        self.scene.now_ns = self.chain_ns()
        assert self.scene.dispute(made, made.signed(version, 1000 - paid, paid)) is None

    def registered(self, channel: ChannelId) -> int | None:
        found = self.scene.canister.query_state(channel)
        return None if found is None else found.state.version

    def watcher(self, looks_per_challenge: int = 6) -> Watcher:
        return Watcher(self, self, self, self, looks_per_challenge, notices=self)

    def query_watcher(self, hint_every_s: float = 2) -> Watcher:
        """A watcher of a canister that keeps no log."""
        return Watcher(self, self, self, self, hints=self, hint_every_s=hint_every_s, notices=self)

    def log_watcher(self, hint_every_s: float = 1e9) -> Watcher:
        """A watcher that reads the canister's log."""
        return Watcher(self, self, self, self, disputes=self, hints=self, hint_every_s=hint_every_s, notices=self)


def _registered(channel: ChannelId, found: Registered | None) -> RegisteredState | None:
    if found is None:
        return None
    s = found.state
    return RegisteredState(
        State(channel, s.version, (s.allocation[0], s.allocation[1]), s.finalized), Nanos(found.timeout)
    )


async def stop(run: asyncio.Task[None]) -> None:
    """End a watcher; nothing of it may be left."""
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []
