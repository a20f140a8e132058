"""The calls that the network knows: each runs once, and its outcome can be read until it is forgotten."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from devnet.replica import hash_tree
from devnet.replica.hash_tree import EMPTY, Leaf, Node, put, remove
from devnet.replica.outcomes import Outcome, Rejected, Replied
from devnet.replica.request_id import uleb128

__all__ = ["KEPT_AFTER_EXPIRY_NS", "Record", "RequestLog"]

KEPT_AFTER_EXPIRY_NS: Final = 5 * 60 * 1_000_000_000
"""A late poll still finds its outcome; nobody can send the request again, because it has expired."""


@dataclass(frozen=True, slots=True)
class Record:
    """A call: who made it, to which canister, until when it was valid, how it ended (None while it runs)."""

    sender: bytes
    canister_id: bytes
    expiry_ns: int
    outcome: Outcome | None = None


class RequestLog:
    """Records by request id, and the level `request_status` of the state tree that shows them."""

    def __init__(self, finished: Iterable[tuple[bytes, Record]] = ()) -> None:
        self._records: dict[bytes, Record] = {}
        self._by_expiry: list[tuple[int, bytes]] = []
        self.tree: Node = EMPTY
        for request_id, record in finished:
            self._show(request_id, record)
            heapq.heappush(self._by_expiry, (record.expiry_ns, request_id))

    def get(self, request_id: bytes) -> Record | None:
        """Return what is known of a request."""
        return self._records.get(request_id)

    def begin(self, request_id: bytes, record: Record) -> None:
        """Take up a call: from now on its status is `processing`."""
        self._show(request_id, record)
        heapq.heappush(self._by_expiry, (record.expiry_ns, request_id))

    def finish(self, request_id: bytes, outcome: Outcome) -> Record:
        """Note how a call ended, and return the record of it."""
        record = replace(self._records[request_id], outcome=outcome)
        self._show(request_id, record)
        return record

    def forget_expired(self, now_ns: int) -> None:
        """Drop what expired long enough before `now_ns`, unless it still runs."""
        due_ns = now_ns - KEPT_AFTER_EXPIRY_NS
        running: list[tuple[int, bytes]] = []
        while self._by_expiry and self._by_expiry[0][0] < due_ns:
            expiry_ns, request_id = heapq.heappop(self._by_expiry)
            if self._records[request_id].outcome is None:
                running.append((expiry_ns, request_id))
                continue
            del self._records[request_id]
            self.tree = remove(self.tree, request_id)
        for entry in running:
            heapq.heappush(self._by_expiry, entry)

    def _show(self, request_id: bytes, record: Record) -> None:
        self._records[request_id] = record
        self.tree = put(self.tree, request_id, _status(record.outcome))


def _status(outcome: Outcome | None) -> Node:
    match outcome:
        case None:
            fields = {b"status": b"processing"}
        case Replied():
            fields = {b"status": b"replied", b"reply": outcome.reply}
        case Rejected():
            fields = {
                b"status": b"rejected",
                b"reject_code": uleb128(outcome.reject_code),
                b"reject_message": outcome.reject_message.encode(),
                b"error_code": outcome.error_code.encode(),
            }
    level: hash_tree.Node = EMPTY
    for label, value in fields.items():
        level = put(level, label, Leaf(value))
    return level
