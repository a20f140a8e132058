"""What every daemon is to its surroundings: its log, signals that ask for no end, and its service manager."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import structlog

from perund.config import Config
from perund.config_file import load_config
from perund.log_sink import take_standard_error
from perund.logs import set_log_level
from perund.open_files import OutOfFiles
from perund.service_manager import keep_alive, tell
from perund.setup_errors import ConfigError

__all__ = ["Surroundings"]

log = structlog.get_logger()

_GENTLE: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""A process that says nothing about these ends by them; log rotation and init scripts send them to be heard."""
_FROM_QUIET: Final = ("error", "warning", "info", "debug")


class Surroundings:
    """Made first of all: from then on nothing that happens to standard error, and no such signal, ends the process."""

    def __init__(self) -> None:
        take_standard_error()
        self._pending: list[int] = []
        self._take: Callable[[int], None] = self._pending.append
        self._reload: Callable[[], None] | None = None
        self._alive: asyncio.Task[None] | None = None
        for number in _GENTLE:
            # Not of the loop, which gives them their deadly meaning back when it closes.
            signal.signal(number, self._came)
        tell("STATUS=starting")

    def _came(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._take(number)

    def follow(self, data_dir: Path | None = None, config: Config | None = None) -> None:
        """Act on signals on the running loop, and keep the service manager's watchdog quiet.

        `data_dir`, `config`: what SIGHUP reads again; without them it does nothing.
        """
        loop = asyncio.get_running_loop()
        out_of_files = OutOfFiles(loop)
        loop.set_exception_handler(
            lambda loop, context: None if out_of_files.took(context) else loop.default_exception_handler(context)
        )
        if data_dir is not None and config is not None:
            self._reload = Reloading(data_dir, config).reload

        def soon(number: int) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._act, number)

        self._take = soon
        for number in self._pending:
            soon(number)
        self._alive = loop.create_task(keep_alive(), name="service watchdog")

    def _act(self, number: int) -> None:
        if number == signal.SIGHUP and self._reload is not None:
            self._reload()
        else:
            log.warning("process.signal_ignored", signal=signal.Signals(number).name)


class Reloading:
    """Reads the configuration again. What can change while a daemon runs is the level of its log."""

    def __init__(self, data_dir: Path, config: Config) -> None:
        self._data_dir = data_dir
        self._started_with = config
        self._level: str = config.log.level

    def reload(self) -> None:
        """Take over what can be, and say what needs a restart; a bad file changes nothing."""
        try:
            config = load_config(self._data_dir)
        except ConfigError as error:
            log.error("config.not_reloaded", error=str(error))
            return
        before, self._level = self._level, config.log.level
        differing = _differing(self._started_with, config)
        needs_restart = [key for key in differing if key != "log.level"]
        set_log_level(max(before, self._level, "info", key=_FROM_QUIET.index))  # whatever is chosen, this is said
        log.info("config.reloaded", log_level=self._level, before=before, needs_restart=needs_restart)
        set_log_level(self._level)


def _differing(one: msgspec.Struct, other: msgspec.Struct, section: str = "") -> list[str]:
    """Return the names of the keys that differ, and no value."""
    found: list[str] = []
    for name in one.__struct_fields__:
        before, after = getattr(one, name), getattr(other, name)
        if isinstance(before, msgspec.Struct):
            found += _differing(before, after, f"{name}.")
        elif before != after:
            found.append(f"{section}{name}")
    return found
