"""Whether channels may be opened on the canister that the configuration names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from chain.errors import ChainError, InterfaceMismatch

if TYPE_CHECKING:
    from chain.perun import PerunCanister
    from perund.config import Config

__all__ = ["CanisterTrust"]

log = structlog.get_logger()

RETRY_S: Final = 5.0
AGAIN_S: Final = 600.0


class CanisterTrust:
    """Checks interface and module hash by certified reads: at the start, and now and then.

    A canister with another interface is refused. On any network but a local one channels are opened only on a
    canister whose certified module hash is in the configuration (DESIGN, section 4).
    """

    def __init__(self, perun: PerunCanister, config: Config) -> None:
        self._perun = perun
        self._allowed = {bytes.fromhex(text) for text in config.ic.module_hashes}
        self._local = config.network == "local"
        self._reason: str | None = "the canister is not checked yet: the Internet Computer has not answered"

    def reason_not_to_open(self) -> str | None:
        """Return why no channel may be opened now, or None."""
        return self._reason

    async def check(self) -> None:
        """Check once. Raises `InterfaceMismatch` for a canister that is none of ours, `ChainError` without answer."""
        try:
            await self._perun.check_interface()
        except InterfaceMismatch as error:
            self._reason = str(error)
            raise
        module_hash = (await self._perun.code()).module_hash
        shown = module_hash.hex() if module_hash is not None else "none: nothing is installed"
        if self._allowed and module_hash not in self._allowed:
            self._reason = f"the canister's module hash ({shown}) is not in ic.module_hashes"
        elif not self._allowed and not self._local:
            self._reason = f"ic.module_hashes is empty; the canister's module hash is {shown}"
        else:
            self._reason = None

    async def watch(self) -> None:
        """Check again and again: without an answer soon, else now and then."""
        while True:
            before = self._reason
            try:
                await self.check()
                pause = AGAIN_S
            except InterfaceMismatch as error:
                log.error("canister.refused", error=str(error))
                pause = AGAIN_S
            except ChainError as error:
                log.warning("canister.not_checked", error=str(error))
                pause = RETRY_S
            if self._reason is not None and self._reason != before:
                log.error("canister.not_trusted", reason=self._reason)
            await asyncio.sleep(pause)
