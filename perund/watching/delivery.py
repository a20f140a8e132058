"""Brings an alarm to a command or a webhook, in bounded time. What fails is logged; nothing is raised."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from perund.config import Alarm

__all__ = ["Delivery"]

log = structlog.get_logger()

COMMAND_S: Final = 30.0
WEBHOOK_S: Final = 10.0
TRIES: Final = 3
PAUSE_S: Final = 1.0
SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where alarms go. `pause_s`: before the second try of the webhook; it doubles."""

    config: Alarm
    pause_s: float = PAUSE_S

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.config.command or self.config.webhook)

    async def deliver(self, alarm: bytes) -> None:
        """Tell the command and the webhook of one alarm (a JSON object)."""
        await asyncio.gather(self._run(alarm), self._post(alarm))

    async def _run(self, alarm: bytes) -> None:
        command = self.config.command
        if not command:
            return
        # What opens the key store is none of the command's business.
        environment = {name: value for name, value in os.environ.items() if name != "PERUND_PASSPHRASE"}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            log.error("alarm.command_failed", command=command[0], error=str(error))
            return
        said = b""
        try:
            async with asyncio.timeout(COMMAND_S):
                said = await _converse(process, alarm + b"\n")
        except TimeoutError:
            log.error("alarm.command_failed", command=command[0], error=f"it did not end within {COMMAND_S:.0f} s")
        else:
            if process.returncode != 0:
                text = said.decode(errors="replace").strip()
                log.error("alarm.command_failed", command=command[0], status=process.returncode, error=text)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it ended at this very moment
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def _post(self, alarm: bytes) -> None:
        url = self.config.webhook
        if not url:
            return
        host, why = urlsplit(url).netloc.rpartition("@")[2], ""  # the rest of such an address is often a secret
        timeout = aiohttp.ClientTimeout(total=WEBHOOK_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            for number in range(TRIES):
                if number:
                    await asyncio.sleep(self.pause_s * 2 ** (number - 1))
                try:
                    async with http.post(
                        url, data=alarm, headers={"Content-Type": "application/json"}, allow_redirects=False
                    ) as answer:
                        if answer.ok and answer.status < 300:
                            return
                        why = f"HTTP {answer.status}"
                except TimeoutError:
                    why = f"no answer within {WEBHOOK_S:.0f} s"
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    why = type(error).__name__
        log.error("alarm.webhook_failed", host=host, tries=TRIES, error=why)


async def _converse(process: asyncio.subprocess.Process, alarm: bytes) -> bytes:
    """Hand the alarm over, wait for the end, and return the end of what was said on standard error."""
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may do its work without reading it
        process.stdin.write(alarm)
        await process.stdin.drain()
        process.stdin.close()
    said = b""
    while chunk := await process.stderr.read(65_536):
        said = (said + chunk)[-SHOWN:]
    await process.wait()
    return said
