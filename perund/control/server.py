"""The control socket: who may connect, and the life of the server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

import structlog

from perund.control.api import NodeApi
from perund.control.connection import Connection, Limits
from perund.control.dispatch import Dispatcher
from perund.control.envelope import SOCKET_NAME
from perund.control.starting import Starting
from perund.file_id import FileId
from perund.setup_errors import DirectoryError

__all__ = ["SOCKET_NAME", "ControlServer"]

LOOK_S: Final = 1.0
"""So often it is asked whether the socket still has its name."""
MAX_SOCKET_PATH: Final = 103
"""Bytes. The shortest `sun_path` of the systems that we run on has 104, one of them for the end."""

log: Final = structlog.get_logger(__name__)


class ControlServer:
    """Serves a `NodeApi`, or first what says that there will be one, on `control.sock` (0600) of a data directory.

    The caller holds the lock of the directory: that is what makes it safe to replace a socket left by a node
    that was killed. A socket whose name is gone is made again; what has its name meanwhile is left alone.
    """

    def __init__(self, api: NodeApi | Starting, data_dir: Path, *, version: str, limits: Limits | None = None) -> None:
        self.path = data_dir / SOCKET_NAME
        self._limits = limits or Limits()
        self._dispatcher = Dispatcher(api, version)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._own: FileId | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises `DirectoryError` when the socket cannot be made there."""
        length = len(os.fsencode(self.path))
        if length > MAX_SOCKET_PATH:
            raise DirectoryError(
                f"the path of the control socket has {length} bytes ({self.path})",
                f"choose a --dir with a shorter path: at most {MAX_SOCKET_PATH} bytes with the socket's name",
            )
        self._remove_stale()
        try:
            await self._listen()
        except OSError as error:
            raise DirectoryError(
                f"the control socket {self.path} cannot be made ({error.strerror})",
                "the file system of the data directory must allow Unix sockets",
            ) from error
        self._keeping = asyncio.get_running_loop().create_task(self._keep(), name="control socket")

    def serve(self, api: NodeApi) -> None:
        """Let the node itself answer from now on."""
        self._dispatcher.serve(api)

    async def _listen(self) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(self.path))
            # Nobody can connect before listen(), so there is no moment at which others could.
            self.path.chmod(0o600)
            listening.setblocking(False)
            self._server = await asyncio.get_running_loop().create_unix_server(
                self._connect, sock=listening, backlog=self._limits.clients
            )
            self._own = FileId.if_there(self.path)
        except OSError:
            listening.close()
            raise

    async def _keep(self) -> None:
        """Have the socket where clients look for it, as long as nobody else has that name."""
        said = ""
        while self._server is not None:
            await asyncio.sleep(LOOK_S)
            try:
                found = FileId.if_there(self.path)
                if found == self._own:
                    said = ""
                    continue
                if found is not None:
                    raise FileExistsError(errno.EEXIST, "something else has its name: move it away")
                self._server.close()  # nobody can find it any more; who is connected stays
                await self._listen()
                log.warning("control.socket_made_again", path=str(self.path))
            except OSError as error:
                why = error.strerror or str(error)
                if why != said:
                    log.warning("control.socket_gone", path=str(self.path), error=why)
                said = why

    def refuse(self) -> None:
        """Take no more calls; those in flight are still to be answered."""
        self._dispatcher.stopping = True

    async def stop(self, grace_s: float = 5.0) -> None:
        """Take no more calls, give those in flight `grace_s` seconds, send their answers and close."""
        if self._server is None:
            return
        if self._keeping is not None:
            self._keeping.cancel()
        self._server.close()
        self.refuse()
        await self._dispatcher.finish(grace_s)
        for connection in tuple(self._connections):
            connection.close()
        await self._server.wait_closed()
        self._server = None
        try:
            if self.path.is_socket() and not _answers(self.path):  # not what took its name meanwhile
                self.path.unlink()
        except OSError as error:  # a directory that cannot be written any more: the next start replaces the socket
            log.warning("control.socket_left", path=str(self.path), error=str(error))

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._connections)

    def _remove_stale(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise DirectoryError(f"{self.path} is not a socket", "nothing was changed; move that file away")
        if _answers(self.path):
            raise DirectoryError(
                f"another program listens on {self.path}", "nothing was changed; stop it, or choose another --dir"
            )
        self.path.unlink()

    def _connect(self) -> Connection:
        return Connection(self._dispatcher, self._limits, self._admit, self._connections.discard)

    def _admit(self, connection: Connection, transport: asyncio.Transport) -> str | None:
        """Return why a client may not come in, or None."""
        peer = _uid_of(transport)
        if peer is not None and peer not in {os.geteuid(), 0}:
            log.warning("control.client_refused", uid=peer, cause="another user")
            return "only the user who runs the node may control it"
        if len(self._connections) >= self._limits.clients:
            log.warning("control.client_refused", clients=len(self._connections), cause="too many clients")
            return f"there are {self._limits.clients} clients already; close one"
        self._connections.add(connection)
        return None


def _answers(path: Path) -> bool:
    """Whether somebody listens: a node that was killed, whose lock we hold now, does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
    return True


def _uid_of(transport: asyncio.Transport) -> int | None:
    """Return the user at the other end where the system tells (Linux); elsewhere the file modes decide."""
    peercred = getattr(socket, "SO_PEERCRED", None)
    if peercred is None:
        return None
    # A socket of our own for the question: what a loop hands out need not know getsockopt.
    with socket.fromfd(transport.get_extra_info("socket").fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        _, uid, _ = struct.unpack("3i", asked.getsockopt(socket.SOL_SOCKET, peercred, struct.calcsize("3i")))
    return int(uid)
