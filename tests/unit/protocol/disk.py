"""What is durable of one side: the records of `protocol.effects`, kept in memory as the store keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from protocol.counting import Counted
from protocol.effects import (
    CountedRecord,
    DeclinesRecord,
    EventRecord,
    GivenUpRecord,
    IncludedRecord,
    LossEndRecord,
    PaymentsEndedRecord,
    PaymentsOfferedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    Phase,
    PhaseRecord,
    Record,
    RegisteredRecord,
    SignatureRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.memory import ChannelMemory
from protocol.messages import Update
from protocol.payments import PAYMENT_ID_BYTES, Batch, Payment
from protocol.terms import Terms
from protocol.types import ChannelId, ParticipantIndex, SignedState


@dataclass(frozen=True)
class Row:
    """A payment. `version`: of the update that contains it; `status` counts only without one."""

    payment: Payment
    version: int | None
    status: str | None
    code: str = ""


@dataclass
class Disk:
    """One side's store. It survives crashes; everything else does not."""

    terms: Terms
    newest: SignedState
    signature: SignatureRecord
    phase: Phase = Phase.FUNDING
    frozen: str = ""
    reason: str = ""
    outstanding: Update | None = None
    given_up: dict[int, Update] = field(default_factory=dict)
    loss_end_version: int | None = None
    peer_holds: int = 0
    counted: int = 0
    settled_version: int | None = None
    signed: dict[int, bytes] = field(default_factory=dict)
    """Digest by version of everything that we signed."""
    rows: dict[tuple[int, bytes], Row] = field(default_factory=dict)
    declined_up_to: bytes = b""
    declined_before: set[bytes] = field(default_factory=set)
    """Ids whose rows are gone because `declined_up_to` stands for them: they are declined for ever all the same."""
    events: list[EventRecord] = field(default_factory=list)
    transactions: int = 0

    def __post_init__(self) -> None:
        self.signed[self.signature.version] = self.signature.digest

    def commit(self, records: tuple[Record, ...]) -> None:
        """Make records durable, all of them or none."""
        self.transactions += 1
        for record in records:
            self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case SignatureRecord():
                earlier = self.signed.setdefault(record.version, record.digest)
                assert earlier == record.digest, f"rule 1: two states of version {record.version} are signed"
                if self.signature.finalized:
                    assert record.digest == self.signature.digest, "rule 1: signed after the final state"
                self.signature = record
            case UpdateRecord():
                self.outstanding = record.update
                self._include(0, record.update.from_0, record.update.version)
                self._include(1, record.update.from_1, record.update.version)
            case GivenUpRecord():
                self.given_up[record.update.version] = record.update
            case IncludedRecord():
                self._include(0, record.from_0, record.version)
                self._include(1, record.from_1, record.version)
            case LossEndRecord():
                self.loss_end_version = record.version
            case StateRecord():
                self.newest = record.signed
                version = record.signed.state.version
                if self.outstanding is not None and self.outstanding.version <= version:
                    self.outstanding = None
                self._include(0, record.from_0, version)
                self._include(1, record.from_1, version)
                self.counted = version if record.counts else self.counted
            case CountedRecord():
                self.counted = max(self.counted, record.version)
            case PaymentsQueuedRecord():
                status = "offered" if record.offered else "queued"
                for payment in record.payments:
                    key = (int(record.sender), payment.id)
                    row = self.rows.get(key)
                    if row is None:
                        self.rows[key] = Row(payment, None, status)
                    elif row.version is None:
                        self.rows[key] = replace(row, status=status)
            case PaymentsOfferedRecord():
                for key, row in self.rows.items():
                    if key[0] == record.sender and row.status == "queued":
                        self.rows[key] = replace(row, status="offered")
            case PaymentsEndedRecord():
                for payment_id in ids_of(record.ids):
                    key = (int(record.sender), payment_id)
                    row = self.rows.get(key, Row(Payment(payment_id, 0), None, None))
                    self.rows[key] = Row(row.payment, None, record.status, record.code)
            case PeerHoldsRecord():
                self.peer_holds = max(self.peer_holds, record.version)
            case PhaseRecord():
                self.phase, self.frozen = record.phase, record.frozen
                self.reason = record.reason or self.reason
            case EventRecord():
                self.events.append(record)
            case RegisteredRecord():
                pass
            case DeclinesRecord():
                self.declined_up_to = max(self.declined_up_to, record.up_to)
                gone = [k for k, r in self.rows.items() if self._stands_for(record, k, r)]
                self.declined_before |= {self.rows.pop(key).payment.id for key in gone}
            case _:
                assert_never(record)

    @staticmethod
    def _stands_for(record: DeclinesRecord, key: tuple[int, bytes], row: Row) -> bool:
        return key[0] == record.sender and row.status == "declined" and key[1] <= record.up_to

    def _include(self, sender: int, batch: Batch, version: int) -> None:
        for payment in batch:
            declined = sender != self.terms.our_index and payment.id in self.declined_before
            assert not declined, f"payment {payment.id.hex()} was declined, and is included"
            earlier = self.rows.get((sender, payment.id))
            if earlier is not None:
                assert earlier.version in (None, version), f"payment {payment.id.hex()} is in two updates"
                assert earlier.payment == payment, f"payment {payment.id.hex()} changed on its way into an update"
                assert earlier.status in (None, "queued", "offered", "unknown"), (
                    f"an ended payment ({earlier.status}) is included"
                )
            self.rows[(sender, payment.id)] = Row(payment, version, None)

    # --- what a restart, and the machine, ask for --------------------------------------------------------

    def memory(self) -> ChannelMemory:
        """Return what the store remembers."""
        ours = self.terms.our_index
        return ChannelMemory(
            phase=self.phase,
            newest=self.newest,
            last_signature=self.signature,
            pending=self.outstanding if ours == 0 else None,
            settled_version=self.settled_version,
            peer_holds=self.peer_holds,
            frozen=self.frozen,
            counted=self.counted,
            uncounted_sent=self._above_counted(ours),
            uncounted_received=self._above_counted(1 - ours),
            given_up=tuple(self.given_up.values()) if ours == 0 else (),
            loss_end_version=self.loss_end_version,
            queued=self._waiting("queued"),
            offered=self._waiting("offered"),
            highest_peer_id=max((i for s, i in self.rows if s != ours), default=b""),
            declined=sum(s != ours and row.status == "declined" for (s, _), row in self.rows.items()),
            declined_up_to=self.declined_up_to,
        )

    def _above_counted(self, sender: int) -> Batch:
        newest, mine = self.newest.state.version, [r for (s, _), r in sorted(self.rows.items()) if s == sender]
        return Batch.of([r.payment for r in mine if r.version is not None and self.counted < r.version <= newest])

    def _waiting(self, status: str) -> Batch:
        ours = self.terms.our_index
        rows = [r for (s, _), r in sorted(self.rows.items()) if s == ours and r.version is None and r.status == status]
        return Batch.of([r.payment for r in rows])

    def known(self, channel: ChannelId, sender: ParticipantIndex, ids: Batch) -> dict[bytes, str]:
        """Fulfil `protocol.channel.Books`."""
        assert channel == self.terms.channel
        found = {i: self.rows[(sender, i)] for i in ids.each_id() if (sender, i) in self.rows}
        return {i: row.status or "included" for i, row in found.items()}

    def status(self, sender: int, payment_id: bytes) -> str:
        """Return what a user is told about a payment, or "unknown" when nothing of it is here."""
        row = self.rows.get((sender, payment_id))
        if row is None:
            below = sender != self.terms.our_index and payment_id <= self.declined_up_to
            return "declined" if below else "unknown"
        if row.version is None:
            return row.status or "unknown"
        counted = Counted(self.counted, self.peer_holds, self.settled_version)
        return counted.status(row.version, ours=sender == self.terms.our_index)


def ids_of(joined: bytes) -> list[bytes]:
    """Cut joined ids."""
    return [joined[i : i + PAYMENT_ID_BYTES] for i in range(0, len(joined), PAYMENT_ID_BYTES)]
