"""Certified reads of state, and the checks that every certificate passes before anybody sees it.

Beyond the signature: the signer hosts the canister, and the certificate is not older than what was asked or known.
"""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from chain.answers import certificate_in
from chain.certificate import Certificate, CertificateVerifier
from chain.clock import ChainTime, Clock
from chain.errors import ChainError, LyingReplica, RequestRefused, Unreachable
from chain.identity import Anonymous, Identity
from chain.principal import principal_to_text
from chain.request import envelope, read_content
from chain.transport import Endpoint, Transport

__all__ = ["INGRESS_TTL_NS", "Pause", "StateReader", "backoff_s"]

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]
"""How to wait for some seconds."""
Path = Sequence[bytes]

SECOND: Final = 1_000_000_000
INGRESS_TTL_NS: Final = 240 * SECOND
"""Replicas accept 0 to 5.5 minutes: this leaves room for a clock that is off in either direction."""
MAX_AGE_NS: Final = 300 * SECOND
"""A certificate older than its request by more than this was not made for it."""
FLOOR_SLACK_NS: Final = 60 * SECOND
"""How far a healthy replica may lag behind another of its subnet."""
HOSTING_TTL_NS: Final = 300 * SECOND
"""Canisters may move to another subnet: what was shown of their place is not kept for long."""
READ_ATTEMPTS: Final = 6


def backoff_s(attempt: int) -> float:
    """Return how long to wait after failed attempt 0, 1, 2...: 0.25 s growing to 5 s, with jitter."""
    return min(5.0, 0.25 * 1.6**attempt) * (0.75 + secrets.randbelow(500) / 1000)


class StateReader:
    """Reads certified state through any of the servers, for one root key."""

    def __init__(
        self,
        servers: list[Endpoint],
        transport: Transport,
        verifier: CertificateVerifier,
        clock: Clock,
        pause: Pause,
    ) -> None:
        self.servers = servers
        self.transport = transport
        self.clock = clock
        self.pause = pause
        self.chain_time = ChainTime(clock)
        self._verifier = verifier
        self._floors: dict[bytes, int] = {}
        self._hosted_by_root: dict[bytes, int] = {}
        self._syncing = asyncio.Lock()
        self._renewed_ns = -1
        """When the newest request that renewed the time was made, by the monotonic clock."""

    @property
    def root_subnet_id(self) -> bytes:
        """The principal of the root subnet."""
        return self._verifier.root_subnet_id

    def asked_at_ns(self) -> int:
        """Return chain time for the freshness of an answer to a request made now; 0 while none was ever seen."""
        return self.chain_time.now_ns() if self.chain_time.certified else 0

    def prefer_others(self, server: Endpoint) -> None:
        """Try this server last from now on: one that does not answer would cost every call its time-out."""
        if self.servers[0] is server:
            self.servers = [*self.servers[1:], server]

    async def ensure_time(self, canister: bytes) -> None:
        """Learn chain time unless it is known."""
        async with self._syncing:
            if not self.chain_time.certified:
                await self.synchronise(canister)

    async def renew_time(self, canister: bytes, older_than_ns: int) -> None:
        """Learn chain time anew unless a certificate of so long ago tells it. All who ask at once share one request."""
        wanted_ns = self.clock.monotonic_ns()
        async with self._syncing:
            if self._renewed_ns >= wanted_ns or self.chain_time.is_young(older_than_ns):
                return
            asked_ns = self.clock.monotonic_ns()
            await self.synchronise(canister)
            self._renewed_ns = asked_ns

    async def synchronise(self, canister: bytes) -> None:
        """Learn chain time from a certificate. The request is anonymous, so no clock is needed to make it."""
        await self.on_any_server(lambda server: self._fetch(server, canister, [(b"time",)], Anonymous()))

    async def in_time(self, canister: bytes, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a signed read; if it is refused for its expiry, learn the time and make it once more.

        The window in the refusal is one server's claim; a certificate is as near and cannot be wrong.
        """
        try:
            return await attempt()
        except RequestRefused as exc:
            if not exc.for_its_expiry:
                raise
            await self.synchronise(canister)
            return await attempt()

    async def read(self, server: Endpoint, canister: bytes, paths: Sequence[Path], identity: Identity) -> Certificate:
        """Return a certificate with these paths from this server, checked in every respect."""
        asked_ns = self.asked_at_ns()
        certificate = await self.in_time(canister, lambda: self._fetch(server, canister, paths, identity))
        await self.check(server, certificate, canister, asked_ns)
        return certificate

    async def verified(self, server: Endpoint, encoded: bytes, canister: bytes, asked_ns: int) -> Certificate:
        """Return the certificate in these bytes that came from this server, checked in every respect."""
        certificate = self._verifier.verify(encoded, canister)
        self.chain_time.observe(certificate.time_ns)
        await self.check(server, certificate, canister, asked_ns)
        return certificate

    async def read_subnet(self, server: Endpoint, subnet_id: bytes, paths: Sequence[Path]) -> Certificate:
        """Return a certificate with these paths, asked for at a subnet, verified and fresh. Raises as `read` does."""
        asked_ns = self.asked_at_ns()
        content = read_content(paths, Anonymous().sender, self.chain_time.now_ns() + INGRESS_TTL_NS)
        target, body = principal_to_text(subnet_id), envelope(content, Anonymous())
        response = await self.transport.post(server, target, "subnet_read_state", body)
        certificate = self._verifier.verify_of_subnet(certificate_in(response.body), subnet_id)
        self.chain_time.observe(certificate.time_ns)
        if certificate.time_ns < asked_ns - MAX_AGE_NS:
            raise LyingReplica(f"{server.url} answered for a subnet with a certificate that is too old")
        return certificate

    def only(self, server: Endpoint) -> StateReader:
        """Return a reader of this one server, which learns and knows what this one does."""
        alone = copy.copy(self)
        alone.servers = [server]
        return alone

    async def check(self, server: Endpoint, certificate: Certificate, canister: bytes, asked_ns: int) -> None:
        """Refuse a verified certificate that is stale or by a subnet that does not host the canister."""
        try:
            await self._check(server, certificate, canister, asked_ns)
        except LyingReplica as error:
            error.unproven = certificate.tree
            raise

    async def _check(self, server: Endpoint, certificate: Certificate, canister: bytes, asked_ns: int) -> None:
        oldest = max(asked_ns - MAX_AGE_NS, self._floors.get(canister, 0) - FLOOR_SLACK_NS)
        if certificate.time_ns < oldest:
            raise LyingReplica(
                f"{server.url} answered with a certificate that is {(oldest - certificate.time_ns) / SECOND:.0f} s "
                "too old"
            )
        await self._check_hosting(server, certificate, canister)
        self._floors[canister] = max(self._floors.get(canister, 0), certificate.time_ns)

    async def _fetch(self, server: Endpoint, canister: bytes, paths: Sequence[Path], identity: Identity) -> Certificate:
        content = read_content(paths, identity.sender, self.chain_time.now_ns() + INGRESS_TTL_NS)
        body = envelope(content, identity)
        response = await self.transport.post(server, principal_to_text(canister), "read_state", body)
        certificate = self._verifier.verify(certificate_in(response.body), canister)
        self.chain_time.observe(certificate.time_ns)
        return certificate

    async def _check_hosting(self, server: Endpoint, certificate: Certificate, canister: bytes) -> None:
        """Hold the root subnet to what it hosts, as a delegation holds the others.

        It signs without a delegation, hence without ranges. Left at that, any server could prove with a genuine
        certificate of the root subnet that a call on another subnet is absent there: true, and never to be
        taken for a proof that it did not happen.
        """
        if certificate.delegated:
            self._hosted_by_root.pop(canister, None)
            return
        known_at = self._hosted_by_root.get(canister)
        if known_at is not None and self.clock.monotonic_ns() - known_at < HOSTING_TTL_NS:
            return
        if not certificate.hosts(canister):
            asked_ns = self.asked_at_ns()
            shown = await self._fetch(server, canister, [(b"subnet",)], Anonymous())
            if shown.delegated or not shown.hosts(canister) or shown.time_ns < asked_ns - MAX_AGE_NS:
                raise LyingReplica(
                    f"{server.url} answered for {principal_to_text(canister)} with a certificate of the root subnet, "
                    "which is not shown to host it"
                )
        self._hosted_by_root[canister] = self.clock.monotonic_ns()

    async def on_any_server(self, attempt: Callable[[Endpoint], Awaitable[T]], attempts: int = READ_ATTEMPTS) -> T:
        """Return the first good answer of a read, which may be repeated at will. Raises the last failure.

        `attempts`: at most so many, but each server is asked.
        """
        last: ChainError | None = None
        shown: bytes | None = None
        refused: set[str] = set()
        servers = self.servers
        attempts = max(attempts, len(servers))
        for number in range(attempts):
            server = servers[number % len(servers)]
            if server.url in refused:
                continue
            try:
                return await attempt(server)
            except RequestRefused as exc:
                # It will not get better there; another server may be newer, or know another subnet.
                refused.add(server.url)
                last = exc
                if len(refused) == len(servers):
                    break
            except (Unreachable, LyingReplica) as exc:
                last = exc
                shown = shown or exc.shown
                self.prefer_others(server)
            except asyncio.CancelledError:
                self.prefer_others(server)  # whoever asked has no more patience with it
                raise
            if (number + 1) % len(servers) == 0 and number + 1 < attempts:
                await self.pause(backoff_s(number // len(servers)))
        assert last is not None
        last.shown = last.shown or shown
        raise last
