"""Where simulated parts take the places of real ones, for as long as a world runs."""

from __future__ import annotations

import itertools
import logging
import random
import sys
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import apsw
import structlog

from chain import agent as agent_module
from perund.node import api as api_module
from perund.node import driver as driver_module
from perund.node import node as node_module
from perund.node import openings as openings_module
from perund.node.driver import PeerSession
from perund.store import lives as lives_module
from perund.store import store as store_module
from perund.store.reading import Reader
from protocol.effects import Effect
from protocol.signing import ChannelKey
from protocol.types import State
from tests.simulation.power import LIFE
from tests.simulation.sim_disk import SimDisk, SimWriter

__all__ = ["installed"]


def _connect(path: Path) -> apsw.Connection:
    assert isinstance(path, SimDisk)
    return path.database


def _open_reader(path: Path) -> Reader:
    assert isinstance(path, SimDisk)
    return path.read


_real_sign = ChannelKey.sign_state


def _sign_state(self: ChannelKey, state: State) -> bytes:
    signature = _real_sign(self, state)
    life = LIFE.get()
    if life is not None:
        life.house.rules.signed(life, state, signature)
    return signature


def _begin_life() -> Callable[..., lives_module.OwnLife]:
    """Return what begins lives, with a clock that rises at every start."""
    clock = itertools.count(1_000_000)

    def begin_life(database: apsw.Connection, now_ms: int, *, take_over: bool) -> lives_module.OwnLife:
        del now_ms
        return lives_module.begin_life(database, next(clock), take_over=take_over)

    return begin_life


def _telling() -> Callable[[driver_module.ChannelDriver, tuple[Effect, ...], PeerSession | None], None]:
    """Return what performs effects, as it is now (a mutation may have changed it), telling the rules before."""
    real_do = driver_module.ChannelDriver._do

    def do(self: driver_module.ChannelDriver, outgoing: tuple[Effect, ...], session: PeerSession | None) -> None:
        life = LIFE.get()
        if life is not None and outgoing:
            life.house.rules.told(life, outgoing, self.channel.id)
        real_do(self, outgoing, session)

    return do


def _report_defect(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
    """A logged error of these names is a defect that the node survived: here it fails the seed."""
    del logger, method
    life = LIFE.get()
    if life is not None and life.alive and life.house.honest and event.get("event") in DEFECTS:
        error = event.get("exc_info")
        if error is True:
            error = "".join(traceback.format_exception(sys.exception()))
        life.house.rules.fail(f"{life.house.name}: {event} {error}")
    raise structlog.DropEvent


DEFECTS = ("job.crashed", "watcher.round_failed", "node.task_failed")


@contextmanager
def installed(rng: random.Random) -> Iterator[None]:
    """Put the seams in place. `rng` gives what the operating system's randomness would."""
    random_source = SimpleNamespace(urandom=rng.randbytes, getpid=lambda: 1)
    before = structlog.get_config()
    structlog.configure(
        processors=[_report_defect],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        with (
            patch.object(store_module, "Writer", SimWriter),
            patch.object(store_module, "connect", _connect),
            patch.object(store_module, "open_reader", _open_reader),
            patch.object(store_module, "begin_life", _begin_life()),
            patch.object(lives_module, "os", random_source),
            patch.object(openings_module, "os", random_source),
            patch.object(api_module, "os", random_source),
            patch.object(agent_module, "secrets", SimpleNamespace(token_bytes=rng.randbytes)),
            patch.object(node_module, "TICK_S", 5.0),  # it only expires openings; the rest of the time is free
            patch.object(ChannelKey, "sign_state", _sign_state),
            patch.object(driver_module.ChannelDriver, "_do", _telling()),
        ):
            yield
    finally:
        structlog.configure(**before)
