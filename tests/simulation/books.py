"""When everything has healed: both books agree, every promise is kept, and the money is where the books say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.house import House

if TYPE_CHECKING:
    from tests.simulation.user import User
    from tests.simulation.world import World

__all__ = ["check"]

_PAYMENTS = (
    "SELECT p.sender, p.id, p.amount, p.memo, p.version, coalesce(p.status, ''), s.version, s.settled_version, "
    "c.our_index FROM payment p JOIN channel c USING (number) JOIN channel_state s USING (number) WHERE c.channel = ?"
)
_Delivered = dict[tuple[int, bytes], tuple[int, bytes, int]]


def check(world: World) -> None:
    """Check the ends. What is wrong is told to the rules."""
    fail = world.rules.fail
    for house in world.houses:
        _no_accusations(house, world)
        _wallet(house, world)
    for place, house in enumerate(world.houses):
        for peer in world.houses[place + 1 :]:
            _both_agree(house, peer, world)
    for user in world.users:
        _promises(user, world)
    owed, held = world.chain.perun.owed_e8s, world.chain.ledger.balance(world.chain.account)
    dust = sum(_costs(house, "dust") for house in world.houses)
    if not owed == held == dust:
        fail(f"the canister holds {held} e8s and owes {owed}; {dust} e8s are booked as dust")


def delivered(house: House, channel: bytes) -> _Delivered:
    """Return the payments that this side counts as delivered, with amount, memo and version."""
    found: _Delivered = {}
    number = house.disk.read.channel_number(channel)
    assert number is not None
    for _, row in house.disk.read.payments(number, (0, -1, b""), 1_000_000):
        if row.status == "delivered":
            assert row.version is not None
            found[row.sender, row.payment.id] = (row.payment.amount_e8s, row.payment.memo, row.version)
        elif row.ours and row.status not in ("declined", "failed", "cancelled"):
            house.rules.fail(f"{house.name}: payment {row.payment.id.hex()} is {row.status} after the end")
        elif row.ours and row.status == "declined":
            house.rules.fail(f"{house.name}: an honest payment was declined ({row.code})")
    return found


def _channels(house: House) -> dict[bytes, int]:
    return {row[0]: row[1] for row in house.disk.all("SELECT channel, our_index FROM channel")}  # type: ignore[misc]


def _both_agree(house: House, peer: House, world: World) -> None:
    shared = set(_channels(house)) & set(_channels(peer))
    for channel in sorted(shared):
        ours, theirs = delivered(house, channel), delivered(peer, channel)
        if ours != theirs:
            differing = sorted(set(ours.items()) ^ set(theirs.items()))
            world.rules.fail(f"{house.name} and {peer.name} disagree about payments: {differing[:3]}")
        world.statistics.facts["payments delivered"] += len(ours)
        world.statistics.facts["channels closed"] += 1


def _costs(house: House, what: str = "") -> int:
    row = house.disk.one("SELECT coalesce(sum(amount), 0) FROM cost WHERE ? IN ('', what)", what)
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def _wallet(house: House, world: World) -> None:
    """What is in the wallet is what was there, and came, less what went and what it cost (rule 6)."""
    from tests.simulation.world import WALLET_E8S

    expected = WALLET_E8S - _costs(house)
    for channel, index in _channels(house).items():
        for (sender, _), (amount, _, _) in delivered(house, channel).items():
            expected += -amount if sender == index else amount
    actual = world.chain.ledger.balance(house.account)
    if actual != expected:
        world.rules.fail(f"{house.name} has {actual} e8s; its books say {expected} ({actual - expected:+})")


def _no_accusations(house: House, world: World) -> None:
    rows = house.disk.all("SELECT kind, data FROM event WHERE data LIKE '%\"alarm\": true%' AND kind != 'channel.refuting'")
    if rows:
        world.rules.fail(f"{house.name}: an alarm among honest peers: {rows[0]}")
    complaint = house.disk.one(
        # A channel that one side has not got yet, or has no more, is unknown to it: that is no accusation.
        "SELECT data FROM event WHERE kind = 'peer.complained' AND data NOT LIKE '%unknown_channel%'"
    )
    if complaint:
        world.rules.fail(f"{house.name}: an honest peer complained: {complaint}")


def _promises(user: User, world: World) -> None:
    house = user.house
    for wish in user.wishes:
        if wish.kind != "pay" or wish.promised is None:
            continue
        first = wish.promised.payment or wish.promised.first_payment
        assert first is not None
        row = house.disk.one("SELECT count(*) FROM payment WHERE id = ?", bytes.fromhex(first))
        if row is None or row[0] != 1:
            world.rules.fail(f"{house.name}: payment {first} was promised, and is gone")
        final = wish.answers[-1]
        if final == "delivered":
            world.statistics.facts["promises kept"] += 1
