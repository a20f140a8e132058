"""`perund watch`: the watcher in a process of its own, on the node's store, read-only and without keys.

It goes on while the node is stuck, stopped, out of memory or upgrading. It refutes, and does nothing else:
withdrawing needs keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Final

import structlog

from chain.agent import Agent
from chain.clock import SystemClock
from chain.identity import Anonymous
from chain.perun import PerunCanister
from chain.principal import principal_from_text
from perund.config import Config
from perund.node.canister import WatchedCanister
from perund.service_manager import tell
from perund.stopping import Ending, unhurried
from perund.store.errors import StoreError, WrongNetwork
from perund.store.schema import STORE_NAME
from perund.watching.alarms import Alarms
from perund.watching.delivery import Delivery
from perund.watching.reporter import Reporter
from perund.watching.states import WatchedStates
from protocol.errors import PerundError
from protocol.types import ChannelId
from watcher.vitals import WatcherState
from watcher.watch import Watcher

__all__ = ["run_watch"]

log = structlog.get_logger()

POLL_S: Final = 1.0
RETRY_S: Final = 2.0
SHARE: Final = 20
"""Reading the list of channels takes at most one part of so many of the time."""
UNREADABLE_ALARM_S: Final = 60.0
ALIVE_S: Final = 600.0
"""So often the log says that it lives: silence is how watchers fail."""


class _Watch:
    """The parts, and what keeps the watcher's list the store's."""

    def __init__(self, states: WatchedStates, watcher: Watcher, reporter: Reporter) -> None:
        self.states = states
        self.watcher = watcher
        self.reporter = reporter
        self._damage: str | None = None
        self._lost: set[ChannelId] = set()

    def say_damage(self) -> None:
        """Raise an alarm when the store turned out to be damaged or replaced: some channels may not be watched."""
        news, self.states.news = self.states.news, []
        for item in news:
            self.reporter.noticed(item.kind, item.channel, item.facts)
        found = self.states.damage
        if found is not None and found != self._damage:
            self.reporter.noticed("watch.store_damaged", None, {"error": found, "alarm": True})
        self._damage = found

    def take_up(self) -> None:
        """Watch what the store has, and nothing else. Raises `StoreError`."""
        self.states.examine()
        wanted, before = self.states.channels(), self.watcher.watched()
        gone = {channel for channel in before - wanted.keys() if not self._vanished(channel)}
        for channel in gone:
            self.watcher.unwatch(channel)
            self.states.forget(channel)
        for channel, challenge_ns in wanted.items():
            self.watcher.watch(channel, challenge_ns)
        if gone or wanted.keys() - before:
            log.info("watch.channels_changed", channels=len(wanted), before=len(before))

    def _vanished(self, channel: ChannelId) -> bool:
        """Whether the store lost a channel: then it is watched on, with the newest state that was read of it."""
        if not self.states.vanished(channel):
            return False
        if channel not in self._lost:
            self._lost.add(channel)
            known = self.states.newest(channel)
            version = known[1].state.version if known is not None else "none"
            self.reporter.noticed("watch.channel_vanished", channel, {"version": version, "alarm": True})
        return True

    def _say_alive(self) -> None:
        seen = self.watcher.condition()
        lag_s = round(seen.lag_ns / 1e9, 1) if seen.lag_ns is not None else None
        log.info("watch.alive", state=seen.state.value, channels=seen.watched, lag_s=lag_s, failed=seen.looks_failed)

    async def follow(self) -> None:
        """Take up new channels as they come, for ever."""
        unreadable_since: float | None = None
        told = False
        said = -ALIVE_S
        while True:
            began = time.monotonic()
            if began - said >= ALIVE_S:
                said = began
                self._say_alive()
            try:
                if self.states.changed() or unreadable_since is not None:
                    self.take_up()
            except WrongNetwork:
                raise
            except StoreError as error:
                self.say_damage()
                if unreadable_since is None:
                    unreadable_since = began
                    log.warning("watch.store_unreadable", error=str(error))
                elif not told and began - unreadable_since >= UNREADABLE_ALARM_S:
                    told = True
                    self.reporter.noticed("watch.store_unreadable", None, {"error": str(error), "alarm": True})
                await asyncio.sleep(RETRY_S)
                continue
            if unreadable_since is not None:
                log.info("watch.store_readable")
                unreadable_since, told = None, False
            self.say_damage()
            await asyncio.sleep(max(POLL_S, SHARE * (time.monotonic() - began)))


async def run_watch(data_dir: Path, config: Config, *, once: bool = False, ending: Ending = unhurried) -> int:
    """Watch until SIGTERM or SIGINT, or for one round (`once`). Returns the exit status.

    0 after a stop, and after a round in which nothing was wrong; 1 after a round in which something was: a state below
    ours was registered (also if it is refuted now), a look failed, the store could not be read.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        alarms = Alarms(f"perund watch, {data_dir}", Delivery(config.alarm))
        stack.push_async_callback(alarms.close)
        agent = await stack.enter_async_context(Agent(config.ic.urls, config.root_key, Anonymous(), clock=clock))
        states = WatchedStates(data_dir / STORE_NAME, config.network_hash)
        stack.callback(states.close)
        perun = PerunCanister(agent, principal_from_text(config.ic.perun_canister))
        canister, reporter = WatchedCanister(perun), Reporter(states, alarms)
        watcher = Watcher(
            states,
            canister,
            reporter,
            clock,
            config.watch.looks_per_challenge,
            disputes=canister,
            hints=canister,
            hint_every_s=config.watch.interval_s,
            notices=reporter,
        )
        watch = _Watch(states, watcher, reporter)
        if once:
            return await _one_round(watch, stop)
        log.info("watch.started", data_dir=str(data_dir))
        tell("READY=1", f"STATUS=watching {data_dir}")
        work = [asyncio.ensure_future(watcher.run()), asyncio.ensure_future(watch.follow())]
        stopped = asyncio.ensure_future(stop.wait())
        try:
            done, _ = await asyncio.wait({*work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task  # neither ends by itself: a defect ends the process, and its supervisor starts it again
        finally:
            tell("STOPPING=1", "STATUS=stopping")
            ending(lambda: 0 if stop.is_set() else 1)
            for task in (*work, stopped):
                task.cancel()
            await asyncio.gather(*work, stopped, return_exceptions=True)
    log.info("watch.stopped")
    return 0


async def _one_round(watch: _Watch, stop: asyncio.Event) -> int:
    """Look at every channel once, refute what is below ours, and wait until that is done."""
    try:
        watch.take_up()
    except StoreError as error:
        watch.say_damage()
        log.error("watch.store_unreadable", error=str(error))
        return 1
    round_ = asyncio.ensure_future(watch.watcher.once())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({round_, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not round_.done():
            log.error("watch.interrupted")
            return 1
        await round_
    except PerundError as error:
        log.error("watch.round_failed", error=str(error))
        return 1
    finally:
        for task in (round_, stopped):
            task.cancel()
        await asyncio.gather(round_, stopped, return_exceptions=True)
    watch.say_damage()
    seen = watch.watcher.condition()
    wrong = watch.reporter.wrong or seen.state is not WatcherState.WATCHING
    log.info("watch.round_made", channels=seen.watched, looks=seen.looks, sweeps=seen.sweeps, wrong=wrong)
    return 1 if wrong else 0
