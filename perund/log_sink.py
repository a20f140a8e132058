"""Where the lines of a daemon go: a bounded queue, and a thread of its own that writes it to standard error.

The log is not part of the program. Its reader may be stopped or dead, its disk full, its terminal held: a line that
cannot be written is dropped and counted, and whoever logs never waits and never fails. What the interpreter and the
libraries print there (tracebacks, warnings) goes the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FLUSH_S", "LogSink", "lines_lost", "log_sink", "take_standard_error"]

MOST_BYTES: Final = 1024 * 1024
"""What waits to be written; more is dropped. Some five thousand lines."""
AT_ONCE_BYTES: Final = 64 * 1024
AGAIN_S: Final = 5.0
"""So often it is tried to say what was lost, also when nothing else is logged."""
STUCK_S: Final = 5.0
"""A write that takes longer has a reader that does not read."""
FLUSH_S: Final = 2.0
"""How long an end waits for what is queued."""
NOT_READ: Final = "what was logged is not read"
STANDARD_ERROR: Final = 2


def _in_words(lines: int, why: str) -> str:
    return f"log.lost lines={lines} why={why}\n"


class LogSink:
    """A stream of text on a descriptor. Nothing here waits or raises, except `flush_within`, and that is bounded."""

    encoding: Final = "utf-8"

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        self.say_lost: Callable[[int, str], str] = _in_words
        """Makes the line that says how many lines were lost, and why the last one was."""
        self.lost = 0
        """Lines that were dropped since the start, or that got onto the disk in part."""
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a finalizer that logs may run in the middle of a line
        self._queued = 0
        self._unsaid = 0
        self._why = ""
        self._fails = self._torn = False
        self._writing_since: float | None = None
        threading.Thread(target=self._run, name="perund-log", daemon=True).start()

    # --- for those who log -------------------------------------------------------------------------------

    def write(self, text: str) -> int:
        """Have this text written, some time soon. Returns its length."""
        data = text.encode(self.encoding, "backslashreplace")
        with self._lock:
            if self._queued + len(data) > MOST_BYTES:
                self._lose(1, NOT_READ)
                return len(text)
            self._queued += len(data)
        self._queue.put(data)
        return len(text)

    def flush(self) -> None:
        """Do nothing: what was written is on its way. See `flush_within`."""

    def isatty(self) -> bool:
        """Whether people read it."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor behind it."""
        return self._descriptor

    def flush_within(self, most_s: float = FLUSH_S) -> bool:
        """Wait until what was logged before this is written or dropped, and no longer. Returns whether it is."""
        tried = threading.Event()
        self._queue.put(tried)
        return tried.wait(most_s)

    def problem(self) -> str | None:
        """Return why nothing is written right now, or None."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > STUCK_S:
            return NOT_READ
        return self._why if self._fails else None

    def _lose(self, lines: int, why: str) -> None:
        with self._lock:
            self.lost += lines
            self._unsaid += lines
            self._why = why

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            texts: list[bytes] = []
            marks: list[threading.Event] = []
            size = 0
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=AGAIN_S if self._unsaid else None)
                while True:
                    if isinstance(item, bytes):
                        texts.append(item)
                        size += len(item)
                    else:
                        marks.append(item)
                    if size >= AT_ONCE_BYTES or marks:
                        break
                    item = self._queue.get_nowait()
            self._write_out(texts)
            with self._lock:
                self._queued -= size
            for mark in marks:
                mark.set()

    def _write_out(self, texts: Sequence[bytes]) -> None:
        if self._fails and not self._say():
            self._lose(len(texts), self._why)
            return
        written = self._put(b"".join(texts))
        for text in texts:
            if written < len(text):
                self._lose(1, self._why)
                self._torn = self._torn or written > 0
            written = max(0, written - len(text))
        if (
            self._unsaid and not self._fails and self._queue.empty()
        ):  # those that there was no room for came after these
            self._say()

    def _say(self) -> bool:
        """Say what was lost. Returns whether that was written."""
        with self._lock:
            lines, why = self._unsaid, self._why
        said = (b"\n" if self._torn else b"") + self.say_lost(lines, why).encode(self.encoding, "backslashreplace")
        written = self._put(said)
        if written < len(said):
            self._torn = self._torn or written > 0
            return False
        self._torn = False
        with self._lock:
            self._unsaid -= lines
        return True

    def _put(self, data: bytes) -> int:
        """Write, for as long as it takes. Returns how many bytes were taken before the system refused."""
        left = memoryview(data)
        self._writing_since = time.monotonic()
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # somebody else with this pipe made it one that does not wait
                    waiting = select.poll()
                    waiting.register(self._descriptor, select.POLLOUT)
                    waiting.poll()
            if data:
                self._fails = False
        except OSError as error:
            self._fails = True
            self._why = error.strerror or str(error)
        finally:
            self._writing_since = None
        return len(data) - len(left)


class _Printed(io.RawIOBase):
    """Standard error for whoever prints there."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._sink.isatty()

    def fileno(self) -> int:
        return self._sink.fileno()

    def write(self, data: WriteableBuffer, /) -> int:
        self._sink.write(bytes(data).decode(errors="backslashreplace"))
        return memoryview(data).nbytes


_taken: list[LogSink] = []


def log_sink() -> LogSink | None:
    """Return where this process logs to, once `take_standard_error` was called."""
    return _taken[0] if _taken else None


def lines_lost() -> int:
    """Return how many lines of this process's log were lost."""
    return sum(sink.lost for sink in _taken)


def take_standard_error() -> None:
    """Have everything that this process says on standard error go through a `LogSink`, from now on.

    For daemons, first of all. Where somebody took `sys.stderr` already (a test, a program around this one), it is his.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by whoever started this: the next file that is opened must not be the log
            os.open(os.devnull, os.O_RDWR)
    if _taken or sys.stderr is not sys.__stderr__:
        return
    # A terminal that holds back what background jobs write (`stty tostop`) would stop the whole process.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    sink = LogSink()
    _taken.append(sink)
    sys.stderr = io.TextIOWrapper(_Printed(sink), encoding=sink.encoding, errors="backslashreplace", write_through=True)
    atexit.register(_end, sink)


def _end(sink: LogSink) -> None:
    with contextlib.suppress(ValueError):
        sys.stderr.flush()
    sink.flush_within()
