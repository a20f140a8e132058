"""Every record comes back from the disk as it was written, also after a restart."""

from __future__ import annotations

import time
from pathlib import Path

import apsw
import pytest

from perund.recovery.copying import copy_store
from perund.store import store as store_module
from perund.store.jobs import (
    book_cost,
    insert_channel,
    insert_transfer,
    insert_withdrawal,
    record_addresses,
    record_opening,
    record_request,
    set_force_after,
    transfer_asked,
    transfer_ended,
    transfer_refused,
    withdrawal_ended,
)
from perund.store.reading import open_reader
from perund.store.rows import Cost, PeerAddress, RequestRow, TransferIntent, WithdrawalIntent
from perund.store.schema import MIGRATIONS, migrate
from protocol.effects import (
    EventRecord,
    GivenUpRecord,
    IncludedRecord,
    LossEndRecord,
    PaymentsEndedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    Phase,
    PhaseRecord,
    RegisteredRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.funding import DepositIntent, IntentStatus
from protocol.messages import ChannelAccept, ChannelProposal, Update
from protocol.opening import Accepted, Dead, OpeningPhase, Proposed, Signing
from protocol.payments import EMPTY
from protocol.types import Nanos, ParticipantIndex, ParticipantKey, RegisteredState, State
from tests.unit.store.books import (
    FORCE_AFTER_NS,
    KEYS,
    NETWORK,
    PEER,
    Books,
    batch,
    opened,
    signature_of,
    signed,
    terms_of,
)
from wire.address import Address
from wire.nearness import Nearness

DAY_MS = 86_400_000


@pytest.mark.parametrize("ours", [0, 1])
async def test_a_new_channel(books: Books, ours: ParticipantIndex) -> None:
    terms = await books.add(terms_of(ours=ours))
    books.reopen()
    row = books.row()

    assert row.terms == terms
    assert row.terms.channel == terms.params.channel_id  # it is not computed again, and it is the same
    assert (row.opened_ns, row.since_ns, row.force_after_ns) == (7, 7, FORCE_AFTER_NS)
    assert (row.registered, row.settled_version, row.reason) == (None, None, "")
    memory = row.memory
    assert memory.phase is Phase.FUNDING
    assert memory.newest == signed(terms.channel, 0, 1000, 500)
    assert memory.last_signature == signature_of(memory.newest.state)
    assert (memory.pending, memory.peer_holds, memory.frozen) == (None, 0, "")
    assert (memory.queued, memory.offered, memory.highest_peer_id) == (EMPTY, EMPTY, b"")
    assert [live.number for live in books.store.read.live_channels()] == [1]


async def test_an_update_until_it_is_acknowledged(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    after = signed(channel, 1, 989, 511)
    update = Update(channel, 1, (989, 511), False, batch(1, memo=b"rent"), EMPTY, after.signatures[0])
    await books.store.write([signature_of(after.state), UpdateRecord(update)])
    books.reopen()
    memory = books.row().memory
    assert memory.pending == update  # byte for byte what was sent
    assert memory.newest.state.version == 0
    assert memory.last_signature == signature_of(after.state)

    books.store.name(channel, 1)
    await books.store.write([StateRecord(after, EMPTY, EMPTY), PeerHoldsRecord(channel, 1)])
    books.reopen()
    memory = books.row().memory
    assert memory.pending is None
    assert memory.newest == after
    assert memory.peer_holds == 1


async def test_an_update_that_was_given_up_is_kept_until_the_canister_has_settled(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    after, final = signed(channel, 1, 989, 511), signed(channel, 2**32, 1000, 500, finalized=True)
    update = Update(channel, 1, (989, 511), False, batch(1, memo=b"rent"), EMPTY, after.signatures[0])
    end = Update(channel, 2**32, (1000, 500), True, EMPTY, EMPTY, final.signatures[0])
    await books.store.write([signature_of(after.state), UpdateRecord(update)])
    await books.store.write([GivenUpRecord(update), signature_of(final.state), UpdateRecord(end)])
    books.reopen()
    memory = books.row().memory
    assert (memory.given_up, memory.pending) == ((update,), end)

    books.store.name(channel, 1)
    ended = PaymentsEndedRecord(channel, 0, update.from_0.ids, "unknown", "peer_lost_data")
    await books.store.write([ended, StateRecord(after, update.from_0, EMPTY), PeerHoldsRecord(channel, 1)])
    books.reopen()
    memory = books.row().memory
    assert (memory.given_up, memory.pending, memory.newest) == ((update,), end, after), "the end can still come"
    [(_, row)] = books.store.read.payments(1, (0, -1, b""), 10)
    assert (row.status, row.code, row.version) == ("delivered", "", 1)

    books.store.name(channel, 1)
    await books.store.write([StateRecord(final, EMPTY, EMPTY)])
    books.reopen()
    assert (books.row().memory.given_up, books.row().memory.pending) == ((update,), None)


async def test_what_turned_out_to_be_in_the_settled_state(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    paid = batch(1, 2)
    await books.store.write([UpdateRecord(Update(channel, 1, (977, 523), False, paid, EMPTY, b"\x01" * 64))])
    await books.store.write([PaymentsEndedRecord(channel, 0, paid.ids, "unknown", "peer_lost_data")])
    await books.store.write([IncludedRecord(channel, 1, paid, EMPTY), PeerHoldsRecord(channel, 1)])
    rows = [row for _, row in books.store.read.payments(1, (0, -1, b""), 10)]
    assert [(row.status, row.code) for row in rows] == [("delivered", "")] * 2


@pytest.mark.parametrize("ours", [0, 1])
async def test_a_copy_forgets_on_what_a_loss_may_be_ended(books: Books, ours: ParticipantIndex, tmp_path: Path) -> None:
    """What was adopted before the copy was made says nothing of what came after it."""
    channel = (await books.add(terms_of(ours=ours))).channel
    frozen = "data_loss: version 3 came from the peer: this node had lost it"
    await books.store.write(
        [
            StateRecord(signed(channel, 3, 900, 600), EMPTY, EMPTY),
            LossEndRecord(channel, 3),
            PhaseRecord(channel, Phase.CLOSING, frozen, "", Nanos(9)),
        ]
    )
    books.reopen()
    assert books.row().memory.loss_end_version == 3
    assert copy_store(books.path, tmp_path / "copy.db") == 1
    row = open_reader(tmp_path / "copy.db").channel(1)
    assert row is not None
    assert (row.memory.frozen, row.memory.loss_end_version) == (frozen, None)


async def test_a_store_of_an_older_schema_is_copied_too(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    database = apsw.Connection(str(path))
    migrate(database, MIGRATIONS[:4])
    database.close()
    assert copy_store(path, tmp_path / "copy.db") == 0


async def test_an_older_state_does_not_take_the_outstanding_update_along(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    update = Update(channel, 2, (980, 520), False, batch(1), EMPTY, b"\x01" * 64)
    await books.store.write([UpdateRecord(update), StateRecord(signed(channel, 1, 990, 510), EMPTY, EMPTY)])
    assert books.row().memory.pending == update


async def test_the_follower_remembers_no_outstanding_update(books: Books) -> None:
    channel = (await books.add(terms_of(ours=1))).channel
    await books.store.write([UpdateRecord(Update(channel, 1, (990, 510), False, batch(1), EMPTY, b"\x01" * 64))])
    assert books.row().memory.pending is None


async def test_a_final_state_and_the_largest_amounts(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    final = signed(channel, 2**62, 2**63 - 1, 0, finalized=True)
    await books.store.write([signature_of(final.state), StateRecord(final, EMPTY, EMPTY)])
    books.reopen()
    assert books.row().memory.newest == final
    assert books.row().memory.last_signature == signature_of(final.state)


async def test_phases_keep_their_first_moment_and_their_newest_reason(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([PhaseRecord(channel, Phase.CLOSING, "", "asked for", Nanos(100))])
    await books.store.write([PhaseRecord(channel, Phase.CLOSING, "bad_ack: x", "", Nanos(200))])
    row = books.row()
    assert (row.memory.phase, row.memory.frozen, row.reason, row.since_ns) == (
        Phase.CLOSING, "bad_ack: x", "asked for", 100,
    )  # fmt: skip
    await books.store.write([PhaseRecord(channel, Phase.CLOSED, "bad_ack: x", "", Nanos(300))])
    assert books.row().since_ns == 300
    assert list(books.store.read.live_channels()) == []
    assert books.store.read.phase_counts() == {"closed": 1}


async def test_what_a_look_showed(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    first, second = State(channel, 0, (1000, 500), False), State(channel, 4, (900, 600), True)
    await books.store.write([RegisteredRecord(channel, first, Nanos(2**62))])
    await books.store.write([RegisteredRecord(channel, second, Nanos(2**63 - 1))])
    books.reopen()
    assert books.row().registered == RegisteredState(second, Nanos(2**63 - 1))


async def test_peer_holds_never_goes_back(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([PeerHoldsRecord(channel, 5), PeerHoldsRecord(channel, 3)])
    assert books.row().memory.peer_holds == 5


async def test_queued_and_offered_payments_come_back_in_order_with_their_memos(books: Books) -> None:
    channel = (await books.add(terms_of(ours=1))).channel
    await books.store.write([PaymentsQueuedRecord(channel, 1, batch(5, 3, memo=b"two"), offered=False)])
    await books.store.write([PaymentsQueuedRecord(channel, 1, batch(4), offered=True)])
    await books.store.write([StateRecord(signed(channel, 1, 983, 517), batch(7, 9), EMPTY)])
    books.reopen()
    memory = books.row().memory
    assert memory.queued == batch(3, 5, memo=b"two")
    assert memory.offered == batch(4)
    assert memory.highest_peer_id == (9).to_bytes(16, "big")
    assert books.store.read.waiting_count(1, 1) == 3


async def test_events_in_pages(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    data: dict[str, str | int | bool] = {"text": 'ü \x00 "', "amount": 2**63 - 1, "alarm": True}
    await books.store.write([EventRecord("channel.tested", channel, data)])
    await books.store.write([EventRecord("node.tested", None, {"n": n}) for n in range(9)])
    books.reopen()
    first = books.store.read.events(0, 1)
    assert [(e.cursor, e.kind, e.channel, e.data) for e in first] == [(1, "channel.tested", channel, data)]
    pages = [[e.cursor for e in books.store.read.events(after, 4)] for after in (1, 5, 9, 10)]
    assert pages == [[2, 3, 4, 5], [6, 7, 8, 9], [10], []]


# --- openings ---------------------------------------------------------------------------------------------

PROPOSAL = ChannelProposal(
    b"\x07" * 32, b"\x08" * 32, ParticipantKey(KEYS[0].public), (1000, 500), Nanos(60 * 10**9), Nanos(2**62)
)
ACCEPT = ChannelAccept(PROPOSAL.proposal_id, b"\x09" * 32, ParticipantKey(KEYS[1].public))


@pytest.mark.parametrize(
    ("phase", "ours"),
    [
        (Proposed(PEER, PROPOSAL), True),
        (Accepted(PEER, PROPOSAL, ACCEPT), False),
        (Signing(PEER, PROPOSAL, ACCEPT, b"\x0a" * 64), True),
    ],
)
async def test_openings_that_go_on(books: Books, phase: OpeningPhase, ours: bool) -> None:
    await books.store.write([record_opening(phase, we_proposed=ours)])
    books.reopen()
    assert books.store.read.live_openings() == [phase]
    assert books.store.read.opening(PROPOSAL.proposal_id) == phase


async def test_an_opening_through_all_its_phases_to_its_death(books: Books) -> None:
    dead = Dead(PEER, PROPOSAL, "expired", "too late")
    for phase in (Proposed(PEER, PROPOSAL), Signing(PEER, PROPOSAL, ACCEPT, b"\x0a" * 64), dead):
        await books.store.write([record_opening(phase, we_proposed=True)])
    books.reopen()
    assert books.store.read.live_openings() == []
    assert books.store.read.opening(PROPOSAL.proposal_id) == dead


async def test_an_opening_that_became_a_channel(books: Books) -> None:
    done = opened(terms_of(ours=1))
    books.store.name(done.terms.channel, 1)
    await books.store.write(
        [record_opening(done, we_proposed=False), *insert_channel(done, 1, NETWORK, Nanos(7), FORCE_AFTER_NS)]
    )
    read = books.store.read
    assert read.live_openings() == []
    assert read.opening(done.terms.proposal_id) is None
    assert read.channel_of_proposal(done.terms.proposal_id) == 1
    assert read.channel_of_proposal(b"\xff" * 32) is None
    assert read.our_signature_0(1) == done.signed.signatures[1]


# --- jobs -------------------------------------------------------------------------------------------------

TRANSFER = TransferIntent(
    1, 1, b"\x0b" * 32, 2**60, 10_000, 2**64 - 1, Nanos(2**61), IntentStatus.OPEN, None, Nanos(0), 0, 2**40
)


async def test_a_transfer_from_its_intent_to_its_block(books: Books) -> None:
    read = books.store.read
    await books.store.write([insert_transfer(TRANSFER)])
    assert read.transfer(1) == TRANSFER
    assert read.committed_to_channels() == 2**60 + 10_000

    await books.store.write([transfer_asked(1, 500)])
    await books.store.write([transfer_asked(1, 900)])
    asked = read.transfer(1)
    assert asked is not None
    assert (asked.last_expiry_ns, asked.unproven) == (900, 2)
    await books.store.write([transfer_refused(1, 500)])  # the second did nothing: the first expires at 500
    asked = read.transfer(1)
    assert asked is not None
    assert (asked.last_expiry_ns, asked.unproven) == (500, 1)

    await books.store.write([transfer_ended(1, IntentStatus.PAID, 77)])
    await books.store.write([transfer_ended(1, IntentStatus.CREDITED, None)])
    books.reopen()
    assert books.store.read.deposits(1) == (
        DepositIntent(1, 2**60, 10_000, 2**64 - 1, Nanos(2**61), IntentStatus.CREDITED, 77),
    )
    assert books.store.read.committed_to_channels() == 0
    assert books.store.read.transfer(2) is None


async def test_plain_sends_whose_end_is_not_known_are_taken_up_again(books: Books) -> None:
    def send(number: int, channel: int | None, status: IntentStatus) -> TransferIntent:
        return TransferIntent(number, channel, b"\x0b" * 32, 5, 1, 0, Nanos(1), status, None, Nanos(0), 0, 0)

    intents = [
        send(1, None, IntentStatus.OPEN),
        send(2, None, IntentStatus.VOID),
        send(3, 1, IntentStatus.OPEN),
        send(4, None, IntentStatus.PAID),
    ]
    await books.store.write([insert_transfer(intent) for intent in intents])
    books.reopen()
    assert books.store.read.open_sends() == intents[:1]
    assert books.store.read.highest("transfer") == 4


async def test_withdrawals_and_costs(books: Books) -> None:
    first = WithdrawalIntent(1, 500, b"envelope", "open", None, None, 12)
    second = WithdrawalIntent(2, 600, None, "open", None, None, 0)
    await books.store.write([insert_withdrawal(1, first), insert_withdrawal(1, second), insert_withdrawal(2, first.__class__(3, 1, None, "open", None, None, 0))])  # fmt: skip  # noqa: E501
    await books.store.write([withdrawal_ended(1, "paid", 99, 490), withdrawal_ended(2, "void", None, None)])
    await books.store.write([book_cost(1, "withdrawal fee", 10), book_cost(1, "dust", 3), book_cost(None, "other", 7)])
    books.reopen()
    read = books.store.read
    assert read.withdrawals(1) == (
        WithdrawalIntent(1, 500, b"envelope", "paid", 99, 490, 12),
        WithdrawalIntent(2, 600, None, "void", None, None, 0),
    )
    assert read.is_booked(99)
    assert not read.is_booked(98)
    assert read.costs(1) == [Cost("withdrawal fee", 10), Cost("dust", 3)]
    assert read.highest("withdrawal") == 3


async def test_peers_and_force_after(books: Books) -> None:
    await books.add(terms_of())
    given = PeerAddress(Address("::1", 9735), given=True, since_ms=3, proven_ms=4, nearest=None)
    announced = PeerAddress(Address("a.example", 1), given=False, since_ms=5, proven_ms=7, nearest=Nearness.PRIVATE)
    gone = PeerAddress(Address("a.example", 2), given=False, since_ms=5, proven_ms=None, nearest=Nearness.PUBLIC)
    await books.store.write(
        [*record_addresses(PEER, [gone]), *record_addresses(PEER, [given, announced]), set_force_after(1, 5)]
    )
    books.reopen()
    assert books.store.read.addresses() == {PEER: [given, announced]}
    assert books.row().force_after_ns == 5


async def test_idempotency_keys_are_kept_for_weeks(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEPT_REQUESTS", 1)
    now_ms = time.time_ns() // 1_000_000
    assert books.store.read.request("key") is None
    await books.store.write([record_request("key", "channel.pay", b"\x01" * 32, "result", now_ms - 50 * DAY_MS)])
    await books.store.write([record_request("old", "channel.pay", b"\x02" * 32, "result", now_ms - 61 * DAY_MS)])
    books.reopen()
    assert books.store.read.request("key") == RequestRow("channel.pay", b"\x01" * 32, "result")
    assert books.store.read.request("old") is None


async def test_a_clock_that_is_years_off_forgets_no_idempotency_key(books: Books) -> None:
    """A machine without a battery begins in 1970, and a clock can be set ahead: no key is old by that."""
    await books.store.write([record_request("key", "channel.pay", b"\x01" * 32, "result", 0)])
    books.reopen()
    assert books.store.read.request("key") is not None


# --- finding ----------------------------------------------------------------------------------------------


async def test_channels_by_the_beginning_of_their_id(books: Books) -> None:
    for number in range(1, 40):
        await books.add(terms_of(number), number)
    ids = sorted(row.terms.channel.hex() for row in books.store.read.live_channels())

    def found(digits: str) -> list[str]:
        half = int(digits[-1], 16) if len(digits) % 2 else None
        return [c.hex() for c in books.store.read.find_by_prefix(bytes.fromhex(digits[: len(digits) // 2 * 2]), half)]

    for whole in ids:
        for length in (1, 2, 3, 8, 127, 128):
            digits = whole[:length]
            assert sorted(found(digits)) == [i for i in ids if i.startswith(digits)][:2] or len(found(digits)) == 2
            assert all(i.startswith(digits) for i in found(digits))
        assert found(whole) == [whole]
    assert found("0" * 127 + "1") == []


async def test_channels_in_pages(books: Books) -> None:
    for number in range(1, 8):
        await books.add(terms_of(number), number)
    await books.store.write([PhaseRecord(terms_of(4).channel, Phase.OPEN, "", "", Nanos(1))])
    read = books.store.read
    assert [[r.number for r in read.channels_page(None, after, 3)] for after in (0, 3, 6, 7)] == [
        [1, 2, 3], [4, 5, 6], [7], [],
    ]  # fmt: skip
    assert [r.number for r in read.channels_page("open", 0, 9)] == [4]
    assert read.channels_page("open", 4, 9) == []
    assert read.phase_counts() == {"funding": 6, "open": 1}
