"""A row about one tower, opening or transfer that nobody here wrote: it is said, and the others are read."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from perund.store.jobs import insert_transfer, record_opening
from perund.store.rows import TransferIntent
from perund.store.writer import Statement
from perund.tower.receipt_rows import MOST_PROMISED_NS, MOST_SKEW_NS, KeptReceipt, record_receipt
from protocol.funding import IntentStatus
from protocol.messages import ChannelProposal, TowerReceipt
from protocol.opening import Proposed
from protocol.types import Nanos, ParticipantKey
from tests.unit.store.books import PEER, Books, terms_of

TOWER = b"\x03" * 33
NOW = Nanos(10**18)
DAY_NS = 86_400 * 10**9


def transfer(number: int) -> TransferIntent:
    return TransferIntent(number, None, b"\x01" * 32, 5, 1, 0, Nanos(7), IntentStatus.OPEN, None, Nanos(0), 0, 0)


def opening(number: int) -> Statement:
    proposal = ChannelProposal(
        bytes([number]) * 32, b"\x02" * 32, ParticipantKey(b"\x03" * 32), (5, 0), Nanos(10**10), Nanos(10**18)
    )
    return record_opening(Proposed(PEER, proposal), we_proposed=True)


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        ("tower_receipt", "UPDATE tower_receipt SET expires_ns = 'never' WHERE number = 1"),
        ("tower_receipt", "UPDATE tower_receipt SET chain_time_ns = 1.8e19 WHERE number = 1"),
        ("tower_receipt", "UPDATE tower_receipt SET version = -1 WHERE number = 1"),
        ("tower_receipt", "UPDATE tower_receipt SET digest = 7 WHERE number = 1"),
        ("transfer", "UPDATE transfer SET fee = 1.8e19 WHERE id = 1"),
        ("transfer", "UPDATE transfer SET memo = 'none' WHERE id = 1"),
        ("opening", "UPDATE opening SET deadline_ns = 1.8e19 WHERE proposal_id = x'" + "01" * 32 + "'"),
        ("opening", "UPDATE opening SET allocation_0 = 'much' WHERE proposal_id = x'" + "01" * 32 + "'"),
    ],
)
async def test_one_bad_row_is_said_and_the_others_are_read(books: Books, table: str, damage: str) -> None:
    for number in (1, 2):
        terms = await books.add(terms_of(number), number)
        receipt = TowerReceipt(terms.channel, 3, b"\x05" * 32, NOW, Nanos(NOW + DAY_NS), bytes(64))
        await books.store.write(
            [record_receipt(TOWER, number, receipt), insert_transfer(transfer(number)), opening(number)]
        )
    await books.store.write([Statement(damage)])
    read = books.store.read
    with capture_logs() as logs:
        found = {
            "tower_receipt": len(read.tower_receipts(TOWER)),
            "transfer": len(read.open_sends()),
            "opening": len(read.live_openings()),
        }
    assert found == {name: 1 if name == table else 2 for name in found}
    assert [(entry["event"], entry["table"], entry["alarm"]) for entry in logs] == [
        ("store.row_unreadable", table, True)
    ]


@pytest.mark.parametrize(
    ("chain_time_ns", "expires_ns", "believable"),
    [
        (NOW, NOW + DAY_NS, True),
        (NOW - 300 * DAY_NS, NOW + DAY_NS, True),
        (NOW + MOST_SKEW_NS, NOW + MOST_SKEW_NS + MOST_PROMISED_NS, True),
        (NOW + MOST_SKEW_NS + 1, NOW + DAY_NS, False),
        (NOW, NOW + MOST_PROMISED_NS + 1, False),
        (0, 2**63 - 1, False),
        (2**63 - 2, 2**63 - 1, False),
    ],
)
def test_a_receipt_is_of_now_and_for_a_time(chain_time_ns: int, expires_ns: int, believable: bool) -> None:
    assert KeptReceipt(1, bytes(32), Nanos(chain_time_ns), Nanos(expires_ns)).believable(NOW) is believable
