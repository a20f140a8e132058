"""The replica: takes requests as bytes, answers in the bytes that clients expect. HTTP is one floor above."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Final

from devnet.canister import CanisterModule
from devnet.replica import cbor
from devnet.replica.authentication import authenticate
from devnet.replica.clock import ChainClock
from devnet.replica.envelope import (
    CallContent,
    Envelope,
    Invocation,
    QueryContent,
    ReadStateContent,
    decode_envelope,
)
from devnet.replica.errors import RequestRefused
from devnet.replica.execution import Executor
from devnet.replica.gate import Gate
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.outcomes import Outcome, Rejected, Replied
from devnet.replica.paths import check_canister_paths, check_subnet_paths
from devnet.replica.principals import MANAGEMENT, to_text
from devnet.replica.request_id import hash_of_map
from devnet.replica.requests import Record, RequestLog
from devnet.replica.rounds import Rounds
from devnet.replica.state_tree import StateTree
from devnet.replica.storage import Savings

__all__ = ["MAX_REQUEST_BYTES", "Replica"]

MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""The limit of an application subnet on one request."""
SYNC_CALL_WAIT_S: Final = 10.0
"""How long a synchronous call is waited for before its client is told to poll, as the public replica does."""
_FINISH_WAIT_S: Final = 1.0


class Replica:
    """One node of one subnet with fixed canisters. Make it inside the event loop that runs it.

    `canisters`: by raw principal. `clock`: the time of the network. `savings`: where state is kept; without it the
    network is new and ends with the process. `sync_wait_s`: how long a synchronous call waits for its outcome, in
    seconds.
    """

    def __init__(
        self,
        canisters: Mapping[bytes, CanisterModule],
        clock: ChainClock,
        savings: Savings | None = None,
        *,
        sync_wait_s: float = SYNC_CALL_WAIT_S,
    ) -> None:
        self.root_key = savings.root_key if savings else RootKey.generate()
        self._node_key = savings.node_key if savings else NodeKey.generate()
        self.clock = clock
        self._requests = savings.requests if savings else RequestLog()
        self._savings = savings
        self._canisters = canisters
        self._executor = Executor(canisters)
        self.gate = Gate()
        self.tree = StateTree(self.root_key, self._node_key, canisters)
        self.tree.installed_ns.update(savings.installed_ns if savings else dict.fromkeys(canisters, clock.now_ns()))
        self._snapshots: dict[bytes, bytes] = {}
        self.rounds = Rounds(self.root_key, self.tree, self._requests, self.clock, self.gate, savings)
        self._sync_wait_s = sync_wait_s
        self._running: dict[bytes, asyncio.Task[None]] = {}

    def status(self) -> bytes:
        """Return the body of `/api/v2/status`."""
        return cbor.encode(
            {
                "root_key": self.root_key.public_der,
                "impl_version": "perund-devnet",
                "replica_health_status": "unhealthy" if self.rounds.failure else "healthy",
            }
        )

    async def call_async(self, canister_id: bytes, body: bytes) -> bytes | None:
        """Take up a call and return at once: None, or the body of an immediate reject. Raises `RequestRefused`."""
        envelope = self._checked_call(canister_id, body)
        refused = self._take_up(envelope)
        return None if refused is None else cbor.encode(_reject_fields(refused))

    async def call_sync(self, canister_id: bytes, body: bytes) -> bytes | None:
        """Run a call and return the body with its certificate, None if it takes too long: the client polls.

        Raises `RequestRefused`.
        """
        envelope = self._checked_call(canister_id, body)
        refused = self._take_up(envelope)
        if refused is not None:
            return cbor.encode({"status": "non_replicated_rejection", **_reject_fields(refused)})
        task = self._running.get(envelope.request_id)
        if task is not None:
            done, _ = await asyncio.wait({task}, timeout=self._sync_wait_s)
            if not done:
                return None
        certified = await self.rounds.certified()
        certificate = certified.certificate([(b"request_status", envelope.request_id)])
        return cbor.encode({"status": "replied", "certificate": certificate})

    async def query(self, canister_id: bytes, body: bytes) -> bytes:
        """Run a query and return its signed answer. Raises `RequestRefused`."""
        envelope = self._checked(decode_envelope(body, "query"), body, canister_id)
        assert isinstance(envelope.content, QueryContent)
        outcome = await self._executor.query(envelope.content, self.clock.now_ns())
        return self.signed_answer(envelope.request_id, outcome)

    async def ask(self, canister_id: bytes, body: bytes, arg: bytes | None = None) -> Outcome:
        """Run the query in `body`, with its own argument or another one. Raises `RequestRefused`."""
        content = self._checked(decode_envelope(body, "query"), body, canister_id).content
        assert isinstance(content, QueryContent)
        asked = content if arg is None else replace(content, arg=arg)
        return await self._executor.query(asked, self.clock.now_ns())

    def signed_answer(self, request_id: bytes, outcome: Outcome, key: NodeKey | None = None) -> bytes:
        """Return the body that answers a query with this outcome, signed now by the node (or with `key`)."""
        signer, timestamp_ns, answer = key or self._node_key, self.clock.now_ns(), _query_fields(outcome)
        signed = {**answer, "timestamp": timestamp_ns, "request_id": request_id}
        signature: dict[str, cbor.Value] = {
            "timestamp": timestamp_ns,
            "signature": signer.sign(hash_of_map(signed)),
            "identity": signer.node_id,
        }
        return cbor.encode({**answer, "signatures": [signature]})

    def end_at_once(self, canister_id: bytes, body: bytes, outcome: Outcome) -> None:
        """Take the call in `body` up, unless it is known, and end it with this outcome instead of running it.

        Raises `RequestRefused`.
        """
        envelope = self._checked_call(canister_id, body)
        content = envelope.content
        assert isinstance(content, CallContent)
        if self._requests.get(envelope.request_id) is None:
            self._requests.begin(envelope.request_id, Record(content.sender, content.canister_id, content.expiry_ns))
            record = self._requests.finish(envelope.request_id, outcome)
            if self._savings is not None:
                self._savings.note(envelope.request_id, record)

    async def take_snapshot(self, canister_id: bytes) -> None:
        """Keep what a canister is now, in place of an older snapshot of it. Raises `KeyError` for an unknown one."""
        async with self.gate.passage():
            self._snapshots[canister_id] = self._canisters[canister_id].save()

    async def put_back(self, canister_id: bytes) -> int:
        """Make a canister what its snapshot has; return the time of that, which is certified from then on.

        Raises `KeyError` when there is no snapshot of it.
        """
        async with self.gate.passage():
            self._canisters[canister_id].load(self._snapshots[canister_id])
            now_ns = self.tree.installed_ns[canister_id] = self.clock.now_ns()
            if self._savings is not None:
                self._savings.note_install(canister_id, now_ns)
        await self.rounds.certified()
        return now_ns

    def state_digest(self) -> bytes:
        """Return SHA-256 (32 bytes) of what calls made of the network: every canister and every outcome that is kept.

        Equal calls at equal times give equal digests, whatever the network's keys are.
        """
        digest = sha256(self._requests.tree.digest)
        for canister_id, canister in sorted(self._canisters.items()):
            saved = canister.save()
            digest.update(bytes([len(canister_id)]) + canister_id + len(saved).to_bytes(8, "big") + saved)
        return digest.digest()

    async def read_canister_state(self, canister_id: bytes, body: bytes) -> bytes:
        """Return certified state, asked for at a canister. Raises `RequestRefused`."""
        envelope = decode_envelope(body, "read_state")
        _check_size(envelope, body)
        targets = authenticate(envelope, self.clock.now_ns())
        assert isinstance(envelope.content, ReadStateContent)
        check_canister_paths(envelope.content, canister_id, targets, self._owner)
        return await self._read_state(envelope.content)

    async def read_subnet_state(self, subnet_id: bytes, body: bytes) -> bytes:
        """Return certified state, asked for at a subnet. Raises `RequestRefused`."""
        if subnet_id != self.root_key.subnet_id:
            raise RequestRefused(400, f"subnet_not_found: there is no subnet {to_text(subnet_id)} here")
        envelope = decode_envelope(body, "read_state")
        _check_size(envelope, body)
        authenticate(envelope, self.clock.now_ns())
        assert isinstance(envelope.content, ReadStateContent)
        check_subnet_paths(envelope.content)
        return await self._read_state(envelope.content)

    async def close(self) -> None:
        """Let running calls finish for a moment, then let go of everything."""
        running = set(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=_FINISH_WAIT_S)
            if late:
                self.rounds.abandon()  # a call that is cut off must not be saved half done
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.rounds.settle()
        if self._savings is not None:
            self._savings.close()

    async def _read_state(self, content: ReadStateContent) -> bytes:
        certified = await self.rounds.certified()
        return cbor.encode({"certificate": certified.certificate(content.paths)})

    def _owner(self, request_id: bytes) -> tuple[bytes, bytes] | None:
        record = self._requests.get(request_id)
        return None if record is None else (record.sender, record.canister_id)

    def _checked_call(self, canister_id: bytes, body: bytes) -> Envelope:
        return self._checked(decode_envelope(body, "call"), body, canister_id)

    def _checked(self, envelope: Envelope, body: bytes, canister_id: bytes) -> Envelope:
        assert isinstance(envelope.content, Invocation)
        _check_size(envelope, body)
        named = envelope.content.canister_id
        if named not in {canister_id, MANAGEMENT}:
            raise RequestRefused(
                400,
                f"Specified CanisterId {to_text(named)} does not match effective canister id in URL "
                f"{to_text(canister_id)}",
            )
        authenticate(envelope, self.clock.now_ns())
        return envelope

    def _take_up(self, envelope: Envelope) -> Rejected | None:
        """Start a call unless it is known already; a request id runs once. Return why it is refused, or None."""
        content = envelope.content
        assert isinstance(content, CallContent)
        if self._requests.get(envelope.request_id) is not None:
            return None
        refused = self._executor.refusal(content)
        if refused is not None:
            return refused
        record = Record(content.sender, content.canister_id, content.expiry_ns)
        self._requests.begin(envelope.request_id, record)
        task = asyncio.create_task(self._run(envelope.request_id, content))
        self._running[envelope.request_id] = task
        return None

    async def _run(self, request_id: bytes, content: CallContent) -> None:
        try:
            # Change and outcome are inside the gate together: one is never saved without the other.
            async with self.gate.passage():
                outcome = await self._executor.update(content, self.clock.now_ns())
                record = self._requests.finish(request_id, outcome)
                if self._savings is not None:
                    self._savings.note(request_id, record)
        finally:
            del self._running[request_id]


def _check_size(envelope: Envelope, body: bytes) -> None:
    if len(body) > MAX_REQUEST_BYTES:
        raise RequestRefused(
            413,
            f"Request 0x{envelope.request_id.hex()} is too large. Message byte size {len(body)} is larger "
            f"than the max allowed {MAX_REQUEST_BYTES}.",
        )


def _reject_fields(rejected: Rejected) -> dict[str, cbor.Value]:
    return {
        "reject_code": rejected.reject_code,
        "reject_message": rejected.reject_message,
        "error_code": rejected.error_code,
    }


def _query_fields(outcome: Outcome) -> dict[str, cbor.Value]:
    match outcome:
        case Replied():
            return {"status": "replied", "reply": {"arg": outcome.reply}}
        case Rejected():
            return {"status": "rejected", **_reject_fields(outcome)}
