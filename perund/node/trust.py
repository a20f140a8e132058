"""Whether channels may be opened on the canister that the configuration names."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from chain.errors import ChainError, InterfaceMismatch, InterfaceUnknown, LyingReplica
from chain.principal import principal_to_text
from perund.store.jobs import record_code
from perund.store.rows import CodeSeen
from protocol.effects import EventRecord

if TYPE_CHECKING:
    from chain.perun import CanisterCode, PerunCanister
    from perund.config import Config
    from perund.store.store import Store

__all__ = ["CanisterTrust"]

log = structlog.get_logger()

RETRY_S: Final = 5.0
AGAIN_S: Final = 600.0


class CanisterTrust:
    """Checks interface, module hash, controllers and last installation by certified reads: at the start, and now and
    then.

    A canister with another interface, or with none to check, is refused. On any network but a local one channels
    are opened only on a canister whose certified module hash is in the configuration. What was seen is durable: a
    change of code or controllers, also one while the node was off, raises an alarm, and from then on only a listed
    hash will do, on a local network too (DESIGN, section 4). The same code installed again, or a snapshot put back,
    may have rolled every channel back: that is an alarm as well, and no hash answers for it, only the operator does
    (`ic.trusted_installs`). Channels that exist are watched whatever it is.
    """

    def __init__(self, perun: PerunCanister, config: Config, store: Store) -> None:
        self._perun = perun
        self._store = store
        self._allowed = {bytes.fromhex(text) for text in config.ic.module_hashes}
        self._installs = frozenset(config.ic.trusted_installs)
        self._local = config.network == "local"
        self._reason: str | None = "the canister is not checked yet: the Internet Computer has not answered"
        self._checked = False
        self._said_unknown = False

    def reason_not_to_open(self) -> str | None:
        """Return why no channel may be opened now, or None."""
        return self._reason

    async def check(self) -> None:
        """Check once.

        Raises `InterfaceMismatch` or `InterfaceUnknown` for a canister that is none of ours, `ChainError` without an
        answer, `StorageFailed`.
        """
        try:
            seen = await self._look()
            await self._perun.check_interface()
        except (InterfaceMismatch, InterfaceUnknown) as error:
            self._reason = str(error)
            raise
        except ChainError as error:
            if not self._checked:
                self._reason = f"the canister could not be checked yet: {error}"
            raise
        self._checked = True
        self._reason = self._judged(seen)

    async def _look(self) -> CodeSeen:
        """Read what the canister is made of, compare it with what it was, and make the news durable."""
        code = await self._perun.code()
        before = self._store.read.code_seen()
        controllers = tuple(sorted(code.controllers))
        installed_ns = self._installed_ns(code, before)
        if before is None:
            seen = CodeSeen(code.module_hash, controllers, changed=False, installed_ns=installed_ns)
            await self._store.write([record_code(seen)])
            return seen
        if (before.module_hash, before.controllers) == (code.module_hash, controllers):
            return await self._same_code(before, installed_ns)
        # Only a module that the operator lists will do from now on: who lists another one answers for how it came.
        again = code.module_hash == before.module_hash and (
            before.reinstalled or installed_ns not in (None, before.installed_ns)
        )
        seen = CodeSeen(code.module_hash, controllers, changed=True, installed_ns=installed_ns, reinstalled=again)
        facts: dict[str, str | int | bool] = {
            "was": _hex(before.module_hash),
            "is": _hex(seen.module_hash),
            "controllers_were": _texts(before.controllers),
            "controllers_are": _texts(seen.controllers),
            "listed": seen.module_hash in self._allowed,
        }
        # Until the alarm is durable nothing is trusted that was not: a crash here raises it at the next start.
        self._reason = self._judged(seen)
        log.error("canister.code_changed", **facts, alarm=True)
        await self._store.write(
            [record_code(seen), EventRecord("canister.code_changed", None, {**facts, "alarm": True})]
        )
        return seen

    def _installed_ns(self, code: CanisterCode, before: CodeSeen | None) -> int | None:
        """Return when the canister was last installed, if that is shown. Raises `LyingReplica` if it is no more."""
        known_ns = before.installed_ns if before is not None else None
        if code.installed_ns is None and known_ns is not None and code.module_hash is not None:
            raise LyingReplica("no server shows any more when the canister was last installed, as it was shown before")
        if code.installed_ns is None and not self._said_unknown:
            self._said_unknown = True
            why = "it was before replicas kept account of it" if code.tells_install else "the servers are too old"
            log.warning("canister.install_time_unknown", why=why)
        return code.installed_ns

    async def _same_code(self, before: CodeSeen, installed_ns: int | None) -> CodeSeen:
        """Compare the installations of one code."""
        if installed_ns == before.installed_ns:
            return before
        again = before.installed_ns is not None
        seen = replace(before, installed_ns=installed_ns, reinstalled=again or before.reinstalled)
        if not again:
            await self._store.write([record_code(seen)])
            return seen
        facts: dict[str, str | int | bool] = {
            "was_ns": str(before.installed_ns),
            "is_ns": str(installed_ns),
            "module_hash": _hex(seen.module_hash),
            "trusted": installed_ns in self._installs,
        }
        self._reason = self._judged(seen)
        log.error("canister.installed_again", **facts, alarm=True)
        await self._store.write(
            [record_code(seen), EventRecord("canister.installed_again", None, {**facts, "alarm": True})]
        )
        return seen

    def _judged(self, seen: CodeSeen) -> str | None:
        """Return why no channel may be opened on a canister of this code, or None."""
        if seen.reinstalled and seen.installed_ns not in self._installs:
            return (
                "the canister was installed again with the same code, or a snapshot of it was put back: its channels "
                f"may be rolled back; list {seen.installed_ns} in ic.trusted_installs if you know why"
            )
        if seen.module_hash is not None and seen.module_hash in self._allowed:
            return None
        shown = _hex(seen.module_hash)
        if self._allowed:
            return f"the canister's module hash ({shown}) is not in ic.module_hashes"
        if seen.changed:
            return (
                f"the canister's code or controllers have changed; its module hash is {shown} now: "
                "list it in ic.module_hashes if you trust that code"
            )
        if not self._local:
            return f"ic.module_hashes is empty; the canister's module hash is {shown}"
        return None

    async def watch(self) -> None:
        """Check again and again: without an answer soon, else now and then."""
        while True:
            before = self._reason
            try:
                await self.check()
                pause = AGAIN_S
            except (InterfaceMismatch, InterfaceUnknown) as error:
                log.error("canister.refused", error=str(error))
                pause = AGAIN_S
            except ChainError as error:
                log.warning("canister.not_checked", error=str(error))
                pause = RETRY_S
            if self._reason is not None and self._reason != before:
                log.error("canister.not_trusted", reason=self._reason)
            await asyncio.sleep(pause)


def _hex(module_hash: bytes | None) -> str:
    return module_hash.hex() if module_hash is not None else "none: nothing is installed"


def _texts(controllers: tuple[bytes, ...]) -> str:
    return " ".join(principal_to_text(controller) for controller in controllers) or "nobody"
