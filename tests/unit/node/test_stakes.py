"""Who has money here: from certified looks, durable, and gone when the money is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perund.node.stakes import Stakes
from perund.store.errors import StorageFailed
from perund.store.schema import MIGRATIONS, migrate
from perund.store.store import Store, connect
from protocol.terms import Terms
from protocol.types import Nanos, Params, ParticipantKey

NETWORK = b"\x11" * 32
ALICE, BOB = b"\x02" + b"\xaa" * 32, b"\x03" + b"\xbb" * 32
LEAST = 1_000


def terms_of(peer: bytes, number: int, total: int = 5_000) -> Terms:
    keys = (ParticipantKey(bytes([number]) * 32), ParticipantKey(b"\xee" * 32))
    params = Params(bytes([number]) * 64, keys, Nanos(10**12))
    return Terms(bytes([number]) * 32, peer, 1, params, (total, 0), Nanos(10**18), b"\x01" * 32, b"\x02" * 32)


def opened(path: Path) -> tuple[Store, Stakes, list[Terms]]:
    failures: list[StorageFailed] = []
    store, changes = Store(path, NETWORK, failures.append), list[Terms]()
    return store, Stakes(store, LEAST, changes.append), changes


async def test_a_peer_is_known_for_what_a_look_showed(tmp_path: Path) -> None:
    store, stakes, changes = opened(tmp_path / "perund.db")
    first, second = terms_of(ALICE, 1), terms_of(ALICE, 2)
    assert stakes.of(ALICE) == 0
    stakes.seen(first, 1, (5_000, 0))
    stakes.seen(second, 2, (0, 2_000))  # ours counts as well: it is what would be lost with this peer
    assert (stakes.of(ALICE), stakes.of(BOB)) == (7_000, 0)
    assert (stakes.channels, stakes.channels_with(ALICE)) == (2, 2)
    stakes.seen(first, 1, (0, 0))
    stakes.forget(second)
    assert (stakes.of(ALICE), stakes.channels) == (0, 0)
    assert changes == [first, second, first, second]
    await store.write(())
    store.close()


async def test_dust_is_no_money_unless_it_is_all_that_was_agreed(tmp_path: Path) -> None:
    store, stakes, _ = opened(tmp_path / "perund.db")
    stakes.seen(terms_of(ALICE, 1), 1, (LEAST - 1, 0))
    assert stakes.of(ALICE) == 0
    stakes.seen(terms_of(ALICE, 1), 1, (LEAST, 0))
    assert stakes.of(ALICE) == LEAST
    stakes.seen(terms_of(BOB, 2, total=10), 2, (9, 0))
    assert stakes.of(BOB) == 0
    stakes.seen(terms_of(BOB, 2, total=10), 2, (10, 0))
    assert stakes.of(BOB) == 10
    store.close()


async def test_what_a_look_showed_is_durable_and_bounded_for_the_store(tmp_path: Path) -> None:
    store, stakes, _ = opened(tmp_path / "perund.db")
    stakes.seen(terms_of(ALICE, 1), 1, (2**80, 7))
    await store.write(())
    assert store.read._rows("SELECT * FROM held") == [(1, 2**63 - 1, 7)]
    wrote: list[object] = []
    store.commit, commit = lambda records, then=None: wrote.append(records), store.commit  # type: ignore[method-assign]
    stakes.seen(terms_of(ALICE, 1), 1, (2**80, 7))  # the same again is no news
    assert wrote == []
    store.commit = commit  # type: ignore[method-assign]
    store.close()


async def test_a_store_of_before_knows_whose_channels_were_open(tmp_path: Path) -> None:
    database = connect(tmp_path / "old.db")
    migrate(database, MIGRATIONS[:4])
    columns = (
        "number, phase, since_ns, force_after_ns, version, allocation_0, allocation_1, finalized, signature_0, "
        "signature_1, signed_version, signed_digest, signed_final"
    )
    for number, (phase, version) in enumerate(
        [("funding", 0), ("open", 0), ("closing", 3), ("leaving", 3), ("leaving", 0), ("closed", 3)], start=1
    ):
        database.execute(
            f"INSERT INTO channel_state({columns}) VALUES (?, ?, 0, 0, ?, 5, 6, 0, x'', x'', 0, x'', 0)",
            (number, phase, version),
        )
    migrate(database)
    assert database.execute("SELECT * FROM held ORDER BY number").fetchall() == [(2, 5, 6), (3, 5, 6), (4, 5, 6)]
    database.close()
    await asyncio.sleep(0)
