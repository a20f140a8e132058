"""The agent: calls, queries and reads on the Internet Computer, believing only what is certified."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiohttp

from chain import cbor
from chain.answers import QueryAnswer, Rejection, Reply, query_answer
from chain.cbor import MalformedCbor
from chain.certificate import Certificate, CertificateVerifier, key_of_der
from chain.clock import Certified, Clock, SystemClock
from chain.errors import ChainError, LyingReplica, RequestRefused, UncertifiedReject
from chain.everywhere import Errand
from chain.identity import Anonymous, Identity
from chain.node_keys import NodeKeys
from chain.principal import principal_to_text
from chain.request import SignedCall, call_content, envelope, hash_of_map, query_content
from chain.state_reader import INGRESS_TTL_NS, Pause, StateReader
from chain.submission import Submission
from chain.transport import Endpoint, Transport, endpoints

__all__ = ["Agent", "fetch_root_key"]

NONCE_BYTES: Final = 16
MAX_IN_FLIGHT: Final = 32
QUERY_ATTEMPTS: Final = 2
"""Hints come again by themselves."""


class Agent:
    """Talks to one network as one identity.

    `urls`: servers of the network, tried in this order; `root_key`: 133 bytes of DER, pinned; `http`: a session to
    share (the agent does not close it); `clock`, `pause`: time, for tests; `max_in_flight`: requests at once.
    Use it as an async context manager, or `close` it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        root_key: bytes,
        identity: Identity,
        *,
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.identity = identity
        self.clock = clock or SystemClock()
        self._transport = Transport(http, max_in_flight)
        self._reader = StateReader(endpoints(urls), self._transport, CertificateVerifier(root_key), self.clock, pause)
        self._node_keys = NodeKeys(self._reader)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the agent's connections."""
        await self._transport.close()

    def chain_time(self) -> int:
        """Return chain time now in ns: the newest certificate's and what has passed since; never goes back.

        Before the first certificate (see `chain_time_is_certified`) it is this machine's wall clock.
        """
        return self._reader.chain_time.now_ns()

    @property
    def chain_time_is_certified(self) -> bool:
        """Whether any certificate has been seen. Decide about no deadline before."""
        return self._reader.chain_time.certified

    def certified_age_ns(self) -> int | None:
        """Return how long ago the newest certificate came, or None before the first."""
        seen_ns = self._reader.chain_time.observed_at_mono_ns
        return None if seen_ns is None else self.clock.monotonic_ns() - seen_ns

    async def synchronise(self, canister: bytes) -> int:
        """Learn chain time from a certificate and return it. Any canister of the network will do.

        Raises `Unreachable`, `LyingReplica`, `RequestRefused`.
        """
        await self._reader.synchronise(canister)
        return self.chain_time()

    async def ensure_time(self, canister: bytes) -> None:
        """Learn chain time unless it is known, so that the next `sign_call` does not hang on the wall clock."""
        await self._reader.ensure_time(canister)

    def chain_time_is_young(self, most_ns: int) -> bool:
        """Whether a certificate came within so long, and the machine did not sleep since, as far as it knows."""
        return self._reader.chain_time.is_young(most_ns)

    async def renew_time(self, canister: bytes, older_than_ns: int) -> None:
        """Learn chain time anew unless it is that young: for who decides by it. Raises as `synchronise` does."""
        await self._reader.renew_time(canister, older_than_ns)

    def sign_call(self, canister: bytes, method: str, arg: bytes) -> SignedCall:
        """Return a new call, signed and not sent. `arg`: Candid bytes.

        Each one executes at most once, however often it is submitted; two are two calls even if they look alike.
        """
        return self._sign_call(canister, method, arg, self.chain_time())

    def _sign_call(self, canister: bytes, method: str, arg: bytes, now_ns: int) -> SignedCall:
        expiry_ns = now_ns + INGRESS_TTL_NS
        nonce = secrets.token_bytes(NONCE_BYTES)
        content = call_content(canister, method, arg, self.identity.sender, expiry_ns, nonce)
        return SignedCall(
            canister=canister,
            method=method,
            request_id=hash_of_map(content),
            envelope=envelope(content, self.identity),
            ingress_expiry_ns=expiry_ns,
            signed_at_mono_ns=self.clock.monotonic_ns(),
            signed_at_chain_ns=self._reader.asked_at_ns(),
        )

    async def submit(self, call: SignedCall, *, give_up_after_s: float | None = None) -> Certified[bytes]:
        """Send a call until its outcome is proven, and return the certified reply (Candid bytes).

        The same bytes go to every server, with back-off, until the call's expiry (4 minutes after signing); after
        it, a certificate decides. Raises:

        * `CallRejected`: certified. `CallExpired`: certified, **proves that it never executes**.
        * `OutcomeUnknown`: neither could be proven by some 6 minutes after the expiry, or in `give_up_after_s`.
        * `Unreachable`: no connection was made in all that time. If this was the call's first submission, it is
          a proof too: the bytes never left.
        * `RequestRefused`, `UncertifiedReject`, `LyingReplica`: all servers answer so, which proves nothing.
          `outcome` finds out, by the expiry.
        """
        return await Submission(self._reader, self.identity, call, give_up_after_s).send()

    async def outcome(self, call: SignedCall, *, give_up_after_s: float | None = None) -> Certified[bytes]:
        """Find out what became of a call without sending it (again).

        Returns the certified reply. Raises `CallRejected`, `CallExpired` and `OutcomeUnknown` as `submit` does.
        """
        return await Submission(self._reader, self.identity, call, give_up_after_s).follow()

    async def call(
        self, canister: bytes, method: str, arg: bytes, *, give_up_after_s: float | None = None
    ) -> Certified[bytes]:
        """Sign a call by certified chain time and submit it. For calls that can simply be made again.

        A machine that was paused does not know it, and signs by a time of before: what every server refuses for that is
        made once more, by the time that was learnt then. A call that moves money is signed, stored and submitted in
        three steps. Raises as `submit` does.
        """
        await self.ensure_time(canister)
        try:
            return await self.submit(self.sign_call(canister, method, arg), give_up_after_s=give_up_after_s)
        except RequestRefused as error:
            if not error.for_its_expiry:
                raise
        return await self.submit(self.sign_call(canister, method, arg), give_up_after_s=give_up_after_s)

    async def call_everywhere(self, canister: bytes, method: str, arg: bytes, within_s: float) -> Certified[bytes]:
        """Give one call to every server at once, and return the first certified reply.

        Only for calls that do no harm whenever and however often they execute: without a certified time they are
        signed by this machine's, or by what a server claims. Raises `ChainError` when nothing was proven within
        `within_s` seconds; then the call has been handed over all the same, and `ChainError.shown` is what an answer
        without a proof showed.
        """
        errand = Errand(
            self._reader, self.identity, canister, lambda now_ns: self._sign_call(canister, method, arg, now_ns)
        )
        return await errand.run(within_s)

    async def query(self, canister: bytes, method: str, arg: bytes) -> bytes:
        """Return one node's answer to a query (Candid bytes), its signature verified.

        It proves who said so, not that it is true or new: good for a hint, never for a decision about money. It is
        asked anonymously, for such a query may bear any expiry: no clock can keep a hint away.
        Raises `UncertifiedReject` (the node refused), `Unreachable`, `RequestRefused`, `LyingReplica`; what an
        answer showed whose signature could not be verified is in `ChainError.shown`.
        """
        answer = await self._reader.on_any_server(
            lambda server: self._reader.in_time(canister, lambda: self._ask(server, canister, method, arg)),
            attempts=QUERY_ATTEMPTS,
        )
        match answer.result:
            case Reply(value):
                return value
            case Rejection(code, message, error_code):
                raise UncertifiedReject(code, message, error_code)

    async def read_state(self, canister: bytes, paths: Sequence[Sequence[bytes]]) -> Certificate:
        """Return a certificate with these paths, about this canister, verified and fresh.

        What it does not show it must prove absent: see `Certificate.lookup`.
        Raises `Unreachable`, `RequestRefused`, `LyingReplica`.
        """
        return await self._reader.on_any_server(
            lambda server: self._reader.read(server, canister, paths, self.identity)
        )

    async def _ask(self, server: Endpoint, canister: bytes, method: str, arg: bytes) -> QueryAnswer:
        asker = Anonymous()
        content = query_content(canister, method, arg, asker.sender, self.chain_time() + INGRESS_TTL_NS)
        response = await self._transport.post(server, principal_to_text(canister), "query", envelope(content, asker))
        answer = query_answer(response.body)
        try:
            await self._node_keys.check(server, canister, hash_of_map(content), answer)
        except ChainError as error:
            if isinstance(answer.result, Reply):
                error.shown = answer.result.value
            raise
        return answer


async def fetch_root_key(url: str, *, http: aiohttp.ClientSession | None = None) -> bytes:
    """Return the root key (133 bytes of DER) that a local network says is its own. Only for tests and trials.

    Whoever answers at `url` decides what this node will believe. Raises `UnsafeRootKey` for an address of the
    Internet Computer itself, whose key is built in (`chain.certificate.MAINNET_ROOT_KEY`); `Unreachable`,
    `RequestRefused`, `LyingReplica`.
    """
    transport = Transport(http, 1)
    try:
        body = await transport.status(url)
    finally:
        await transport.close()
    try:
        status = cbor.decode(body)
    except MalformedCbor as exc:
        raise LyingReplica(f"the status of {url} is malformed: {exc}") from exc
    match status:
        case {"root_key": bytes(root_key)}:
            key_of_der(root_key)
            return root_key
        case _:
            raise LyingReplica(f"the status of {url} shows no root key; is it a local network?")
