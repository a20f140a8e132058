"""The composition root: makes every part of a node, starts them in a safe order, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Final

import structlog

from chain.agent import Agent
from chain.clock import SystemClock
from chain.errors import ChainError, InterfaceMismatch, InterfaceUnknown
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_identifier, principal_from_text, principal_to_text
from perund.config import Config
from perund.control.server import ControlServer
from perund.control.starting import Starting
from perund.keys import Keys
from perund.log_budget import log_budget
from perund.node.about import about
from perund.node.api import NodeService
from perund.node.canister import WatchedCanister
from perund.node.chain_time import ChainTime
from perund.node.ledger_watch import LedgerWatch
from perund.node.node import Node
from perund.node.node_to_come import NodeToCome
from perund.node.payment_ids import PaymentIds
from perund.node.promises import STOPS
from perund.node.services import Services
from perund.node.transfers import Transfers
from perund.node.trust import CanisterTrust
from perund.node.views import moment
from perund.open_files import OutOfFiles, raise_open_files
from perund.recovery.backup import BackupFile
from perund.recovery.doubting import settle_doubt
from perund.recovery.ran_before import note_run, require_store, trace_of_a_run
from perund.recovery.taking_up import take_up_from_file
from perund.service_manager import tell
from perund.stopping import STEP_S, Ending, bounded, unhurried
from perund.store.errors import StorageFailed
from perund.store.lock import DirectoryLock
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from perund.watching.alarms import GRACE_S, Alarms
from perund.watching.delivery import Delivery
from protocol.effects import EventRecord
from protocol.errors import InvariantBroken
from protocol.messages import FEATURE_ADDRESSES, FEATURE_LIVES, Hello
from watcher.watch import Watcher
from wire.address import Address
from wire.limits import Limits, Timing
from wire.network import PeerNetwork

__all__ = ["STORE_NAME", "run_node"]

log = structlog.get_logger()

PROTOCOL_VERSION: Final = 1
FEATURES: Final = FEATURE_LIVES | FEATURE_ADDRESSES
FIRST_CHECK_S: Final = 10.0


async def run_node(
    data_dir: Path,
    config: Config,
    keys: Keys,
    ending: Ending = unhurried,
    *,
    take_over: bool = False,
    begin_empty: bool = False,
) -> int:
    """Run a node until it is stopped. Returns the exit status: 0, or 1 after a failed write (rule 8).

    `ending` is told when the stop begins; `take_over`: it signs again where another copy of it has stopped it;
    `begin_empty`: it begins with no channels where its store is lost.

    Raises `PerundError` when it cannot start: the directory is in use, the port is taken, the store belongs to
    another network, the canister is none of ours.
    """
    with DirectoryLock(data_dir):
        return await _run_locked(data_dir, config, keys, ending, take_over=take_over, begin_empty=begin_empty)


async def _run_locked(
    data_dir: Path, config: Config, keys: Keys, ending: Ending, *, take_over: bool, begin_empty: bool
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    failures: list[Exception] = []
    out_of_files = OutOfFiles(loop)
    alarms = Alarms(f"perund run, {data_dir}", Delivery(config.alarm))

    def failed(error: Exception) -> None:
        if not failures:
            log.critical("node.failed", error=str(error), alarm=True)
            alarms.ring("node.failed", None, {"error": str(error)})
        failures.append(error)
        stop.set()

    def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A broken safety rule, or a write that failed, ends the node wherever it shows (rule 8).
        error = context.get("exception")
        if isinstance(error, InvariantBroken | StorageFailed):
            failed(error)
        elif not out_of_files.took(context):
            loop.default_exception_handler(context)

    loop.set_exception_handler(unhandled)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopped = loop.create_task(stop.wait(), name="stop")
    stopped.add_done_callback(lambda _: ending(lambda: 1 if failures else 0) if stop.is_set() else None)
    root_key = config.root_key
    perun_principal = principal_from_text(config.ic.perun_canister)
    ledger_principal = principal_from_text(config.ic.icp_ledger)
    limits = Limits(connections=config.wire.max_connections)
    limits = raise_open_files(limits)
    network = config.network_hash
    identity = Ed25519Identity(keys.wallet_seed)
    clock = SystemClock()
    version = package_version("perund")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(stopped.cancel)
        stack.push_async_callback(bounded("alarms", alarms.close, 2 * GRACE_S))
        starting = Starting(about(data_dir, config, keys, version), stop.set, moment(clock.wall_ns()))
        control = ControlServer(starting, data_dir, version=version)
        await control.start()
        stack.push_async_callback(bounded("control", lambda: control.stop(STEP_S), 2 * STEP_S))
        trace = trace_of_a_run(data_dir)
        if trace is not None:
            note_run(data_dir)  # before anything that it was seen by is put aside
        # In a thread each: a large file takes long to check, and who asks meanwhile is told.
        doubted = await asyncio.to_thread(settle_doubt, data_dir / STORE_NAME)
        found = await asyncio.to_thread(take_up_from_file, data_dir, data_dir / STORE_NAME, keys, network)
        require_store(data_dir, trace, begin_empty=begin_empty)
        store = await asyncio.to_thread(Store, data_dir / STORE_NAME, network, failed, take_over=take_over, loop=loop)
        store.listen(alarms.heard)
        stack.callback(store.close)
        note_run(data_dir)
        agent = Agent(config.ic.urls, root_key, identity, clock=clock)
        stack.push_async_callback(bounded("agent", agent.close))
        perun, ledger = PerunCanister(agent, perun_principal), IcpLedger(agent, ledger_principal)
        time = ChainTime(agent, clock, ledger_principal)
        trust = CanisterTrust(perun, config, store)
        account = account_identifier(identity.sender)
        transfers = Transfers(store, ledger, account, time, config.fees.max_fee_e8s)
        ledger_watch = LedgerWatch(ledger, perun, transfers)
        later, canister = NodeToCome(), WatchedCanister(perun)
        services = Services(
            data_dir=data_dir,
            config=config,
            keys=keys,
            store=store,
            agent=agent,
            perun=perun,
            ledger=ledger,
            time=time,
            transfers=transfers,
            payment_ids=PaymentIds(),
            root_key=root_key,
            network_hash=network,
            perun_principal=perun_principal,
            ledger_principal=ledger_principal,
            wallet_principal=identity.sender,
            wallet_principal_text=principal_to_text(identity.sender),
            wallet_account=account,
            canister_account=account_identifier(perun_principal),
            reason_not_to_open=lambda: trust.reason_not_to_open() or ledger_watch.problem() or None,
            watcher=Watcher(
                later,
                canister,
                later,
                clock,
                config.watch.looks_per_challenge,
                disputes=canister,
                hints=canister,
                hint_every_s=config.watch.interval_s,
                notices=later,
            ),
            network=PeerNetwork(
                keys.node_key,
                Hello(PROTOCOL_VERSION, network, FEATURES, f"perund/{version}", config.policy.minimum_payment_e8s),
                later,
                limits,
                Timing(first_retry_s=config.wire.reconnect_min_s, longest_retry_s=config.wire.reconnect_max_s),
                stake=later.stake_e8s,
                proven=later.proven,
            ),
            ledger_watch=ledger_watch,
            alarms=alarms,
            backup=BackupFile(data_dir, keys, network, config, store.read),
        )
        stack.callback(services.backup.close)
        node = Node(services, failed)
        later.node = node
        if doubted is not None:
            why, marked = doubted
            log.error("node.store_in_doubt", channels=marked, why=why, alarm=True)
            facts: dict[str, str | int | bool] = {"channels": marked, "why": why, "alarm": True}
            store.commit([EventRecord("node.store_in_doubt", None, facts)])
        if found:
            log.error("node.store_is_old", channels=len(found), alarm=True)
            store.commit([EventRecord("node.store_is_old", None, {"channels": len(found), "alarm": True})])
        # Watch first: whatever happened while this node was down is looked at before anything else is done.
        node.load()
        stack.push_async_callback(bounded("node", node.close))
        watching = node.spawn(services.watcher.run(), "watcher")
        starting.waits_for = f"the Internet Computer at {', '.join(config.ic.urls)}"
        tell(f"STATUS=starting: waits for {starting.waits_for}")
        try:
            async with asyncio.timeout(FIRST_CHECK_S):
                await _unless(stopped, trust.check())
        except (InterfaceMismatch, InterfaceUnknown):
            if not node.drivers:
                raise  # nothing to guard: refuse to start. With channels, watch them, and open no more.
        except (ChainError, TimeoutError) as error:
            log.warning("chain.unreachable", urls=list(config.ic.urls), error=str(error))
        node.spawn(node.keep(trust.watch, "canister trust"), "canister trust")
        node.spawn(node.keep(ledger_watch.watch, "ledger watch"), "ledger watch")
        if config.wire.listen:
            host, port = Address.to_listen_on(config.wire.listen)
            actual_host, actual_port = await services.network.listen(host, port)
            services.listening = Address.shown(actual_host, actual_port)
        stack.push_async_callback(bounded("network", services.network.close))
        service = NodeService(node, stop.set, version)
        control.serve(service)
        # Once more: what was pushed at first is for a start that fails. Now it comes before the node itself ends.
        stack.push_async_callback(bounded("control", lambda: control.stop(STEP_S), 2 * STEP_S))
        stack.push_async_callback(
            bounded("answers", lambda: service.end_waiting(str(failures[0]) if failures else STOPS))
        )
        stack.callback(control.refuse)
        node.background()
        # What is made by now lives as long as the node: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.info(
            "node.started",
            node_id=services.network.node_id.hex(),
            listen=services.listening,
            life=node.lives.life.number,
        )
        tell("READY=1", f"STATUS=running: {len(node.drivers)} channels, listens on {services.listening or 'nothing'}")
        await stop.wait()
        log.info("node.stopping")
        tell("STOPPING=1", "STATUS=stopping")
        watching.cancel()
        # Nobody is listened to any more: what peers still say would only be in the way of the rest.
        await bounded("network", services.network.close)()
        budget = log_budget()
        if budget is not None:
            budget.report()
    log.info("node.stopped")
    return 1 if failures else 0


async def _unless(stopped: asyncio.Task[Any], work: Coroutine[Any, Any, object]) -> None:
    """Do this, but not once a stop is wished for."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
