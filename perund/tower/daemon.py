"""The watchtower's process: makes its parts, watches first, and serves until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from chain.agent import Agent
from chain.clock import SystemClock
from chain.errors import ChainError
from chain.identity import Anonymous
from chain.perun import PerunCanister
from chain.principal import principal_from_text
from perund.log_budget import log_budget
from perund.node.canister import WatchedCanister
from perund.node.chain_time import ChainTime
from perund.open_files import OutOfFiles, raise_open_files
from perund.service_manager import tell
from perund.setup_errors import ConfigError
from perund.stopping import Ending, bounded, unhurried
from perund.store.errors import StorageFailed
from perund.store.lock import DirectoryLock
from perund.tower.books import STORE_NAME, TowerBooks
from perund.tower.server import TowerServer, tower_limits
from protocol.errors import InvariantBroken
from protocol.messages import FEATURE_LIVES, FEATURE_RECALL, FEATURE_STANDING, FEATURE_TOWER, Hello
from protocol.types import MAX_E8S, Funding, Nanos, Params
from watcher.tower.policy import TowerPolicy
from watcher.tower.proving import Proving
from watcher.tower.receipts import Notary
from watcher.tower.tower import Tower
from watcher.tower.vouching import Vouching
from watcher.watch import Watcher
from wire.address import Address
from wire.limits import Timing
from wire.network import PeerNetwork

if TYPE_CHECKING:
    from perund.config import Config
    from perund.keys import Keys

__all__ = ["CanisterHoldings", "policy_of", "run_watchtower"]

log = structlog.get_logger()

PROTOCOL_VERSION: Final = 1
FEATURES: Final = FEATURE_TOWER | FEATURE_RECALL | FEATURE_STANDING | FEATURE_LIVES
NS: Final = 1_000_000_000
FIRST_TIME_S: Final = 10.0
AGAIN_S: Final = 5.0
REMIND_S: Final = 60.0
FILES_S: Final = 1.0


class CanisterHoldings:
    """Asks the Perun canister whether a channel is real. Implements `watcher.tower.ports.Holdings`."""

    def __init__(self, perun: PerunCanister) -> None:
        self._perun = perun

    async def funded(self, params: Params) -> bool:
        """Whether certified looks show money of either participant, or a registered state."""
        for key in params.participants:
            if (await self._perun.query_holdings(Funding(params.channel_id, key))).value:
                return True
        return (await self._perun.query_state(params.channel_id)).value is not None


def policy_of(config: Config) -> TowerPolicy:
    """Return the bounds that the section [tower] names."""
    section = config.tower
    return TowerPolicy(
        clients=frozenset(bytes.fromhex(client) for client in section.clients),
        max_clients=section.max_clients,
        max_channels=section.max_channels,
        max_channels_per_client=section.max_channels_per_client,
        max_unfunded=section.max_unfunded,
        max_unfunded_per_client=section.max_unfunded_per_client,
        max_unfunded_per_address=section.max_unfunded_per_address,
        min_challenge_ns=Nanos(section.min_challenge_s * NS),
        max_challenge_ns=Nanos(section.max_challenge_s * NS),
        min_total_e8s=section.min_total_e8s,
        max_total_e8s=section.max_total_e8s or MAX_E8S,
        funding_ns=Nanos(section.funding_s * NS),
        receipt_ns=Nanos(section.receipt_s * NS),
        grace_ns=Nanos(section.grace_s * NS),
    )


async def run_watchtower(data_dir: Path, config: Config, keys: Keys, ending: Ending = unhurried) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 0, or 1 after a failed write.

    `ending` is told when the stop begins.

    After a failed write nothing is taken or promised any more, and what is on the disk is guarded, and given back to
    whom it belongs, until the stop: a tower whose disk is full may not be able to start again (rule 8).
    Raises `PerundError` when it cannot start: the directory is in use, the port is taken, the books belong to
    another network.
    """
    if not config.wire.listen:
        raise ConfigError("`wire.listen` is empty", "a watchtower has to be reached: give host:port")
    with DirectoryLock(data_dir):
        return await _run_locked(data_dir, config, keys, ending)


async def _run_locked(data_dir: Path, config: Config, keys: Keys, ending: Ending) -> int:
    loop = asyncio.get_running_loop()
    stop, unwritable = asyncio.Event(), asyncio.Event()
    failures: list[Exception] = []
    out_of_files = OutOfFiles(loop)

    def failed(error: Exception) -> None:
        failures.append(error)
        if isinstance(error, StorageFailed):
            unwritable.set()
        else:
            log.critical("tower.failed", error=str(error), alarm=True)
            stop.set()

    def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, InvariantBroken | StorageFailed):
            failed(error)
        elif not out_of_files.took(context):
            loop.default_exception_handler(context)

    loop.set_exception_handler(unhandled)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    perun_principal = principal_from_text(config.ic.perun_canister)
    ledger_principal = principal_from_text(config.ic.icp_ledger)
    network = config.network_hash
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        books = TowerBooks(data_dir / STORE_NAME, network, failed)
        stack.callback(books.close)
        # Nothing that a tower calls needs a caller with a name: who refutes is nobody's business.
        agent = Agent(config.ic.urls, config.root_key, Anonymous(), clock=clock)
        stack.push_async_callback(bounded("agent", agent.close))
        perun, time = PerunCanister(agent, perun_principal), ChainTime(agent, clock, ledger_principal)
        tower = Tower(policy_of(config), books, Notary(keys.node_key, network), time)
        canister = WatchedCanister(perun)
        watcher = Watcher(
            tower,
            canister,
            tower,
            clock,
            config.watch.looks_per_challenge,
            disputes=canister,
            hints=canister,
            hint_every_s=config.watch.interval_s,
        )
        proving = Proving(tower, books, CanisterHoldings(perun), time)
        vouching = Vouching(CanisterHoldings(perun), time)
        tower.vouch = vouching.vouch
        tower.start(watcher, proving.ask)  # watch first: what happened meanwhile is looked at before anything else
        proving_task = loop.create_task(proving.run(), name="proving")
        vouching_task = loop.create_task(vouching.run(), name="vouching")
        asking = loop.create_task(_ask_for_files(books), name="own files")
        tasks = [loop.create_task(watcher.run(), name="watcher"), proving_task, vouching_task, asking]
        stack.push_async_callback(bounded("tasks", lambda: _end(tasks)))
        for task in tasks:
            task.add_done_callback(lambda done: failed(_why(done)) if not done.cancelled() else None)
        try:
            async with asyncio.timeout(FIRST_TIME_S):
                await time.ensure()
        except (ChainError, TimeoutError) as error:
            log.warning("chain.unreachable", urls=list(config.ic.urls), error=str(error))
            tasks.append(loop.create_task(_until_time(time), name="chain time"))
        agent_name = f"perund-tower/{package_version('perund')}"
        limits = raise_open_files(tower_limits(config.wire.max_connections))
        hello = Hello(PROTOCOL_VERSION, network, FEATURES, agent_name, 1)
        peers = PeerNetwork(
            keys.node_key,
            hello,
            TowerServer(tower),
            limits,
            Timing(first_retry_s=config.wire.reconnect_min_s, longest_retry_s=config.wire.reconnect_max_s),
        )
        stack.push_async_callback(bounded("network", peers.close))
        host, port = Address.to_listen_on(config.wire.listen)
        actual_host, actual_port = await peers.listen(host, port)
        log.info(
            "tower.started",
            node_id=peers.node_id.hex(),
            listen=Address.shown(actual_host, actual_port),
            slots=tower.slots.total,
            channels=len(tower.slots.channels),
        )
        tell(
            "READY=1",
            f"STATUS=guards {len(tower.slots.channels)} channels, listens on {Address.shown(actual_host, actual_port)}",
        )
        await _first(stop, unwritable)
        if unwritable.is_set():
            tower.guards_only = True
            proving_task.cancel()
            vouching_task.cancel()
            tell("STATUS=a write failed: guards what it has, and takes nothing more")
            await _remind(stop, failures[0])
        log.info("tower.stopping")
        tell("STOPPING=1", "STATUS=stopping")
        ending(lambda: 1 if failures else 0)
        budget = log_budget()
        if budget is not None:
            budget.report()
    log.info("tower.stopped")
    return 1 if failures else 0


async def _ask_for_files(books: TowerBooks) -> None:
    """Have a tower to which nobody writes notice, too, that its files are gone."""
    while True:
        with contextlib.suppress(StorageFailed):  # said by then, and the rest goes on
            books.require_own_files()
        await asyncio.sleep(FILES_S)


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(waits)


async def _remind(stop: asyncio.Event, error: Exception) -> None:
    """Say every minute that this tower only guards what it has, until it is stopped."""
    while not stop.is_set():
        log.critical("tower.guards_only", error=str(error), alarm=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMIND_S):
                await stop.wait()


async def _until_time(time: ChainTime) -> None:
    """Ask for the chain time until it is certified: no state is taken before."""
    while not time.certified:
        try:
            await time.ensure()
        except ChainError as error:
            log.warning("chain.unreachable", error=str(error))
            await asyncio.sleep(AGAIN_S)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _why(task: asyncio.Task[None]) -> Exception:
    """A task that guards money and ends by itself is a defect: the process ends, and is started again."""
    error = task.exception()
    return error if isinstance(error, Exception) else RuntimeError(f"the task {task.get_name()} ended")
