"""Statements of the node's durable jobs: transfers, withdrawals, costs, peers and idempotency keys."""

from __future__ import annotations

import json
from collections.abc import Iterable

from perund.store.rows import CodeSeen, PeerAddress, TransferIntent, WithdrawalIntent
from perund.store.writer import Statement
from protocol.effects import Phase
from protocol.funding import IntentStatus
from protocol.opening import Accepted, Dead, Opened, OpeningPhase, Proposed, Signing
from protocol.types import MAX_INT64, Nanos

__all__ = [
    "book_cost",
    "book_credit",
    "charge_channel",
    "forget_opening",
    "forget_problem",
    "insert_channel",
    "insert_transfer",
    "insert_withdrawal",
    "record_addresses",
    "record_code",
    "record_held",
    "record_opening",
    "record_problem",
    "record_request",
    "record_seen_at",
    "set_force_after",
    "transfer_asked",
    "transfer_ended",
    "transfer_refused",
    "withdrawal_ended",
]


def insert_transfer(intent: TransferIntent) -> Statement:
    """A new transfer, before the ledger hears of it."""
    return Statement(
        "INSERT INTO transfer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            intent.number,
            intent.channel_number,
            intent.receiver,
            intent.amount_e8s,
            intent.fee_e8s,
            intent.memo.to_bytes(8, "little"),
            intent.created_at_ns,
            intent.status,
            intent.block,
            intent.last_expiry_ns,
            intent.unproven,
            intent.from_block,
        ),
    )


def transfer_asked(number: int, expiry_ns: int) -> Statement:
    """A request for it is signed, and may be executed until this chain time."""
    return Statement(
        "UPDATE transfer SET last_expiry_ns = max(last_expiry_ns, ?), unproven = unproven + 1 WHERE id = ?",
        (expiry_ns, number),
    )


def transfer_refused(number: int, expiry_before_ns: int) -> Statement:
    """The last request for it is proven to have done nothing; the others expire by this chain time."""
    return Statement(
        "UPDATE transfer SET last_expiry_ns = ?, unproven = unproven - 1 WHERE id = ?", (expiry_before_ns, number)
    )


def transfer_ended(number: int, status: IntentStatus, block: int | None) -> Statement:
    """Its end is known: paid in a block, credited, or void."""
    return Statement("UPDATE transfer SET status = ?, block = coalesce(?, block) WHERE id = ?", (status, block, number))


def insert_withdrawal(number: int, intent: WithdrawalIntent) -> Statement:
    """A new withdrawal of the channel in row `number`."""
    return Statement(
        "INSERT INTO withdrawal VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            intent.number,
            number,
            intent.holdings_e8s,
            intent.envelope,
            intent.status,
            intent.block,
            intent.received_e8s,
            intent.from_block,
        ),
    )


def withdrawal_ended(intent: int, status: str, block: int | None, received_e8s: int | None) -> Statement:
    """Its end is known: paid in a block, or void."""
    return Statement(
        "UPDATE withdrawal SET status = ?, block = ?, received = ? WHERE id = ?", (status, block, received_e8s, intent)
    )


def book_cost(number: int | None, what: str, amount_e8s: int) -> Statement:
    """What a channel cost (rule 6)."""
    return Statement("INSERT INTO cost(number, what, amount) VALUES (?, ?, ?)", (number, what, amount_e8s))


def charge_channel(number: int, what: str, amount_e8s: int) -> Statement:
    """A cost of the wallet, booked for nobody before, is this channel's."""
    return Statement(
        "UPDATE cost SET number = ? WHERE id = "
        "(SELECT max(id) FROM cost WHERE number IS NULL AND what = ? AND amount = ?)",
        (number, what, amount_e8s),
    )


def book_credit(number: int, what: str, amount_e8s: int) -> Statement:
    """What a channel brought that this node did not pay for."""
    return Statement("INSERT INTO credit(number, what, amount) VALUES (?, ?, ?)", (number, what, amount_e8s))


def record_code(seen: CodeSeen) -> Statement:
    """What was certified of the Perun canister's code."""
    return Statement(
        "INSERT OR REPLACE INTO canister_code(id, module_hash, controllers, changed, installed_ns, reinstalled) "
        "VALUES (1, ?, ?, ?, ?, ?)",
        (
            seen.module_hash,
            json.dumps([controller.hex() for controller in seen.controllers]),
            seen.changed,
            seen.installed_ns,
            seen.reinstalled,
        ),
    )


def record_addresses(peer: bytes, rows: Iterable[PeerAddress]) -> list[Statement]:
    """All places where a peer (33 bytes) can be dialed, as it is known now."""
    return [Statement("DELETE FROM peer_address WHERE peer = ?", (peer,))] + [
        Statement(
            "INSERT INTO peer_address VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                peer,
                row.address.host,
                row.address.port,
                "given" if row.given else "announced",
                row.since_ms,
                row.proven_ms,
                row.nearest,
            ),
        )
        for row in rows
    ]


def record_held(number: int, held: tuple[int, int]) -> Statement:
    """What a certified look showed of participants 0 and 1, in e8s."""
    return Statement("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (number, *(min(e8s, MAX_INT64) for e8s in held)))


def record_seen_at(peer: bytes, origin: str) -> Statement:
    """Where a peer that has money proved its key."""
    return Statement("INSERT OR REPLACE INTO seen_at VALUES (?, ?)", (peer, origin))


def record_request(key: str, method: str, arguments: bytes, result: str, now_ms: int) -> Statement:
    """An action asked for under an idempotency key."""
    return Statement("INSERT INTO request VALUES (?, ?, ?, ?, ?)", (key, method, arguments, result, now_ms))


def record_problem(code: str, subject: str, since_ns: int) -> Statement:
    """Since when a problem lasts, in ns of the machine's clock. `subject`: in hex."""
    return Statement("INSERT OR REPLACE INTO problem VALUES (?, ?, ?)", (code, subject, since_ns))


def forget_problem(code: str, subject: str) -> Statement:
    """A problem has ended."""
    return Statement("DELETE FROM problem WHERE code = ? AND subject = ?", (code, subject))


def set_force_after(number: int, force_after_ns: int) -> Statement:
    """How long the peer has to close together."""
    return Statement("UPDATE channel_state SET force_after_ns = ? WHERE number = ?", (force_after_ns, number))


def record_opening(phase: OpeningPhase, *, we_proposed: bool) -> Statement:
    """An opening in its newest phase."""
    if isinstance(phase, Opened):
        return Statement("UPDATE opening SET phase = 'opened' WHERE proposal_id = ?", (phase.terms.proposal_id,))
    proposal = phase.proposal
    accept = phase.accept if isinstance(phase, Accepted | Signing) else None
    name = {Proposed: "proposed", Accepted: "accepted", Signing: "signing", Dead: "dead"}[type(phase)]
    return Statement(
        "INSERT INTO opening VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "phase = excluded.phase, share_1 = coalesce(excluded.share_1, share_1), "
        "participant_1 = coalesce(excluded.participant_1, participant_1), "
        "signature = coalesce(excluded.signature, signature), code = excluded.code, text = excluded.text",
        (
            proposal.proposal_id,
            phase.peer,
            we_proposed,
            name,
            proposal.nonce_share,
            proposal.participant,
            accept.nonce_share if accept else None,
            accept.participant if accept else None,
            *proposal.allocation,
            proposal.challenge_duration_ns,
            proposal.funding_deadline_ns,
            phase.signature if isinstance(phase, Signing) else None,
            phase.code if isinstance(phase, Dead) else "",
            phase.text if isinstance(phase, Dead) else "",
        ),
    )


def forget_opening(proposal_id: bytes) -> Statement:
    """An opening that nobody can complete: we signed nothing in it."""
    return Statement("DELETE FROM opening WHERE proposal_id = ?", (proposal_id,))


def insert_channel(
    opened: Opened, number: int, network: bytes, now_ns: Nanos, force_after_ns: int
) -> tuple[Statement, ...]:
    """A channel whose state 0 is fully signed."""
    terms, signed = opened.terms, opened.signed
    params = terms.params
    return (
        Statement(
            "INSERT INTO channel VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                terms.channel,
                network,
                terms.proposal_id,
                terms.peer,
                terms.our_index,
                params.nonce,
                terms.our_share,
                terms.peer_share,
                *params.participants,
                *terms.allocation,
                params.challenge_duration_ns,
                terms.funding_deadline_ns,
                *signed.signatures,
                now_ns,
            ),
        ),
        Statement(
            "INSERT INTO channel_state(number, phase, since_ns, force_after_ns, version, allocation_0, allocation_1, "
            "finalized, signature_0, signature_1, signed_version, signed_digest, signed_final) "
            "VALUES (?, ?, ?, ?, 0, ?, ?, 0, ?, ?, 0, ?, 0)",
            (
                number,
                Phase.FUNDING,
                now_ns,
                force_after_ns,
                *terms.allocation,
                *signed.signatures,
                signed.state.digest,
            ),
        ),
    )
