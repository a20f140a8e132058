"""What becomes of one call: sending the same bytes until somebody proves an outcome.

The same bytes execute at most once, so sending them again is always safe. Only a certificate ends the doubt:
it shows the result, or, after the expiry, that the call is absent and can never execute.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from chain.answers import (
    Accepted,
    CertificateBytes,
    Pending,
    Rejection,
    Reply,
    call_answer,
    request_status,
    shown_reply,
)
from chain.certificate import Certificate
from chain.clock import Certified
from chain.errors import (
    CallExpired,
    CallRejected,
    ChainError,
    LyingReplica,
    OutcomeUnknown,
    RequestRefused,
    UncertifiedReject,
    Unreachable,
)
from chain.identity import Identity
from chain.principal import principal_to_text
from chain.request import SignedCall
from chain.state_reader import SECOND, StateReader, backoff_s
from chain.transport import Endpoint, NoAnswer

__all__ = ["Submission"]

ANSWERS_KEPT_NS: Final = 300 * SECOND
"""Replicas keep answers at least until the expiry and five minutes more; absence proves nothing later."""
LATEST_VERDICT_NS: Final = 360 * SECOND
"""After the expiry: when we stop asking."""
PROCESSING_PATIENCE_NS: Final = 900 * SECOND
"""After the expiry, for a call that is certified to be in progress (it waits for another canister)."""
RESEND_AFTER_NS: Final = 10 * SECOND
"""A server that took a call in has usually had it executed by then; if not, it may have dropped it."""


class _Heard(Enum):
    NOTHING = auto()
    TAKEN_IN = auto()


class Submission:
    """One attempt to bring a call to an end. `give_up_after_s`: stop waiting for a proof after that long.

    `urgent`: it waits behind no other request, and asks for no time when its own is refused.
    """

    def __init__(
        self,
        reader: StateReader,
        identity: Identity,
        call: SignedCall,
        give_up_after_s: float | None,
        *,
        urgent: bool = False,
    ) -> None:
        self._reader = reader
        self._identity = identity
        self._call = call
        self._last: ChainError | None = None
        self._may_have_arrived = False
        self._urgent = urgent
        self._shown: bytes | None = None
        self._stop_at_ns = None if give_up_after_s is None else self._mono_ns() + int(give_up_after_s * SECOND)

    async def send(self) -> Certified[bytes]:
        """Send until there is a proof. Raises as `Agent.submit` says, with what was shown without one."""
        try:
            return await self._send()
        except ChainError as error:
            error.shown = error.shown or self._shown
            raise

    async def _send(self) -> Certified[bytes]:
        ring = list(self._reader.servers)
        attempt = 0
        # What is urgent may be signed by a server's time, for our own clock is off: the patience ends it.
        while ring and (self._urgent or not self._expired()):
            heard = await self._round(ring)
            if isinstance(heard, Certified):
                return heard
            if not ring:
                break
            if heard is _Heard.TAKEN_IN:
                proof = await self._poll(self._mono_ns() + RESEND_AFTER_NS)
                if proof is not None:
                    return proof
            self._check_patience()
            await self._reader.pause(backoff_s(attempt))
            attempt += 1
        if not self._may_have_arrived and self._last is not None:
            # Nobody took it in as far as we can tell. What that proves is in the docstring of each class.
            raise self._last
        return await self.follow()

    async def follow(self) -> Certified[bytes]:
        """Find out what became of the call, without sending it."""
        self._may_have_arrived = True  # whoever asks has sent it, so no failure of ours proves anything
        proof = await self._poll(None)
        assert proof is not None
        return proof

    async def _round(self, ring: list[Endpoint]) -> Certified[bytes] | _Heard:
        """Send once through every server. Those that refuse or lie leave the ring: they would do it again."""
        for server in list(ring):
            try:
                answer = await self._post(server)
            except (RequestRefused, UncertifiedReject) as exc:
                self._last = exc
                ring.remove(server)
                if isinstance(exc, RequestRefused) and exc.for_its_expiry and not self._urgent:
                    await self._learn_time()
            except LyingReplica as exc:
                # It has the call, whatever it says about it.
                self._may_have_arrived = True
                self._last = exc
                self._see(exc)
                ring.remove(server)
                if not ring:
                    raise
            except NoAnswer as exc:
                self._may_have_arrived = True
                self._last = exc
                self._reader.prefer_others(server)
            except Unreachable as exc:
                self._last = exc
                self._reader.prefer_others(server)
            except asyncio.CancelledError:
                self._reader.prefer_others(server)  # whoever asked has no more patience with it
                raise
            else:
                return answer if isinstance(answer, Certified) else _Heard.TAKEN_IN
        return _Heard.NOTHING

    async def _post(self, server: Endpoint) -> Certified[bytes] | Accepted:
        call = self._call
        target = principal_to_text(call.canister)
        response = await self._reader.transport.post(server, target, "call", call.envelope, urgent=self._urgent)
        answer = call_answer(response)
        match answer:
            case Accepted():
                self._may_have_arrived = True
                return answer
            case Rejection(code, message, error_code):
                raise UncertifiedReject(code, message, error_code)
            case CertificateBytes(encoded):
                self._may_have_arrived = True
                certificate = await self._reader.verified(server, encoded, call.canister, call.signed_at_chain_ns)
                return self._verdict(certificate) or Accepted()

    def _verdict(self, certificate: Certificate) -> Certified[bytes] | None:
        """Return the reply that a certificate proves, None while it proves nothing; raise what else it proves."""
        call = self._call
        status = request_status(certificate, call.request_id)
        late_ns = certificate.time_ns - call.ingress_expiry_ns
        match status:
            case Reply(value):
                return Certified(
                    value, certificate.time_ns, call.signed_at_chain_ns, call.signed_at_mono_ns, call.request_id
                )
            case Rejection(code, message, error_code):
                raise CallRejected(code, message, error_code)
            case Pending.DONE:
                raise OutcomeUnknown(call.request_id, "it is over, but the network has forgotten its answer")
            case Pending.ABSENT if 0 < late_ns <= ANSWERS_KEPT_NS:
                raise CallExpired(call.request_id)
            case Pending.ABSENT if late_ns > ANSWERS_KEPT_NS:
                raise OutcomeUnknown(call.request_id, "it expired so long ago that the network may have forgotten it")
            case Pending.RECEIVED | Pending.PROCESSING if late_ns > PROCESSING_PATIENCE_NS:
                raise OutcomeUnknown(call.request_id, "it is still being processed")
            case Pending():
                self._may_have_arrived = self._may_have_arrived or status is not Pending.ABSENT
                self._last = None
                return None

    async def _poll(self, until_mono_ns: int | None) -> Certified[bytes] | None:
        """Ask for the result until there is one, or, if it stays absent, until the given moment."""
        attempt = 0
        while True:
            server = self._reader.servers[0]
            absent = True
            try:
                certificate = await self._reader.read(
                    server, self._call.canister, [(b"request_status", self._call.request_id)], self._identity
                )
                proof = self._verdict(certificate)
                if proof is not None:
                    return proof
                absent = request_status(certificate, self._call.request_id) is Pending.ABSENT
            except (LyingReplica, Unreachable, RequestRefused) as exc:
                self._last = exc
                if isinstance(exc, LyingReplica):
                    self._see(exc)
                self._reader.prefer_others(server)
                self._check_deadline()
            if until_mono_ns is not None and absent and self._mono_ns() >= until_mono_ns:
                return None
            self._check_patience()
            await self._reader.pause(min(3.0, 0.5 * 1.4**attempt))
            attempt += 1

    def _see(self, error: LyingReplica) -> None:
        """Keep what a certificate shows that does not pass: a hint, no more."""
        if error.unproven is not None and self._shown is None:
            self._shown = shown_reply(error.unproven, self._call.request_id)

    def _check_deadline(self) -> None:
        late_ns = self._reader.chain_time.now_ns() - self._call.ingress_expiry_ns
        if late_ns > LATEST_VERDICT_NS:
            reason = f"no server showed it before it was too late to tell ({self._last})"
            raise OutcomeUnknown(self._call.request_id, reason) from self._last

    def _check_patience(self) -> None:
        if self._stop_at_ns is None or self._mono_ns() < self._stop_at_ns:
            return
        if not self._may_have_arrived and self._last is not None:
            raise self._last
        reason = f"no proof in the time given ({self._last or 'it is still pending'})"
        raise OutcomeUnknown(self._call.request_id, reason) from self._last

    async def _learn_time(self) -> None:
        """After "invalid expiry": the next call shall be signed by certified time, not by what the server claims.

        This call is not signed anew. A second signature is a second call, and one server's refusal is no proof
        that the first will not execute.
        """
        with suppress(Unreachable, LyingReplica, RequestRefused):  # the refusal stays the news
            await self._reader.synchronise(self._call.canister)

    def _expired(self) -> bool:
        return self._reader.chain_time.now_ns() > self._call.ingress_expiry_ns

    def _mono_ns(self) -> int:
        return self._reader.clock.monotonic_ns()
