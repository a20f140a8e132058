"""Logs: for people on a terminal, JSON for programs; on standard error, without secrets.

Names are `noun.past_verb`, facts are keys: `log.info("channel.updated", channel=..., version=7)`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from perund.log_budget import LogBudget
from perund.log_sink import log_sink

__all__ = ["REDACTED", "configure_logs", "escape_control_characters", "redact_secrets", "set_log_level"]

REDACTED: Final = "[redacted]"
_SECRET_WORDS: Final = ("passphrase", "password", "mnemonic", "phrase", "seed", "secret", "private", "entropy")
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MAX_NESTING: Final = 6


def configure_logs(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Set up structlog, and the standard library's logging of the libraries below it, for this process.

    `level`: debug, info, warning or error; `form`: auto, console or json; `stream`: standard error unless given.
    """
    sink = log_sink() if stream is None else None
    out = sink or stream or sys.stderr
    terminal = out.isatty()
    console = form == "console" or (form == "auto" and terminal)
    budget = LogBudget()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact_secrets,
    ]
    ending: list[Processor] = (
        [
            structlog.processors.format_exc_info,
            escape_control_characters,
            structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback),
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=False)]
    )

    def say_lost(lines: int, why: str) -> str:
        line: Any = {"event": "log.lost", "lines": lines, "why": why}
        for processor in (*shared, *ending):
            line = processor(None, "warning", line)
        return f"{line}\n"

    if sink is not None:
        sink.say_lost = say_lost
    structlog.configure(
        processors=[budget, *shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", out)),
        cache_logger_on_first_use=False,  # so that a new level holds for every logger
    )
    handler = logging.StreamHandler(cast("TextIO", out))
    handler.addFilter(budget)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # The libraries below say little that helps at info, and their debug output can hold what they carry.
    root.setLevel(logging.WARNING)


def set_log_level(level: str) -> None:
    """Say from which level on lines are written, also by loggers that were used before."""
    structlog.configure(
        **{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(_LEVELS[level])}
    )


def redact_secrets(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace the value of each key whose name sounds secret, at any depth: the last line of defence."""
    del logger, name
    return {key: _redacted(key, value, MAX_NESTING) for key, value in event.items()}


def escape_control_characters(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Escape what could move the cursor or forge a line: much that is logged was written by a peer."""
    del logger, name
    return {key: _escaped(value) if key != "exception" else value for key, value in event.items()}


def _redacted(key: str, value: object, depth: int) -> object:
    lowered = key.lower()
    # "phrase" and "seed" are also parts of words: passphrase_file names a file, not a secret.
    if any(word in lowered for word in _SECRET_WORDS) and not lowered.endswith("_file"):
        return REDACTED
    if isinstance(value, Mapping):
        if depth == 0:
            return REDACTED
        return {str(name): _redacted(str(name), item, depth - 1) for name, item in value.items()}
    return value


def _escaped(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return value
