"""When everything has healed: both books agree, every promise is kept, and the money is where the books say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chain.ledger import Mint, Transfer
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, State
from tests.simulation.house import House
from tests.simulation.sim_chain import FEE_E8S
from tests.simulation.sim_published import PublishedContract

if TYPE_CHECKING:
    from tests.simulation.user import User
    from tests.simulation.world import World

__all__ = ["WALLET_E8S", "check"]

WALLET_E8S = 5_000_000

_PAYMENTS = (
    "SELECT p.sender, p.id, p.amount, p.memo, p.version, coalesce(p.status, ''), s.version, s.settled_version, "
    "c.our_index FROM payment p JOIN channel c USING (number) JOIN channel_state s USING (number) WHERE c.channel = ?"
)
_Delivered = dict[tuple[int, bytes], tuple[int, bytes, int]]


def check(world: World) -> None:
    """Check the ends. What is wrong is told to the rules."""
    fail = world.rules.fail
    for channel, state in world.chain.settled.items():
        stands = world.chain.registered(ChannelId(channel))
        if stands is None or stands.state != state:
            fail(f"the canister settled on version {state.version}, and says {stands} now")
    if world.plan.byzantine is not None:
        for house in world.houses:
            if house.honest:
                _channel_books(house, world)
                _nothing_stolen(house, world)
                _no_hostage(house, world)
        return
    for house in world.houses:
        _channel_books(house, world)
        _no_accusations(house, world)
        if not any(each.disks_lost for each in world.houses):
            _wallet(house, world)
    for place, house in enumerate(world.houses):
        for peer in world.houses[place + 1 :]:
            _both_agree(house, peer, world)
    for user in world.users:
        _promises(user, world)
    if any(house.disks_lost for house in world.houses):
        _nothing_left_behind(world)
        return
    owed, held = _owed(world), world.chain.ledger.balance(world.chain.account)
    dust = sum(_costs(house, "dust") for house in world.houses)
    if not owed == held - _lent(world) == dust:
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
        elif row.ours and row.status == "unknown" and any(channel in each.lost for each in house.neighbours):
            continue  # one side lost its disk: nobody can tell what became of it
        elif row.ours and row.status not in ("declined", "failed", "cancelled"):
            house.rules.fail(f"{house.name}: payment {row.payment.id.hex()} is {row.status} after the end")
        elif row.ours and row.status == "declined" and row.code not in ("amount_too_small", "declined_before"):
            house.rules.fail(f"{house.name}: an honest payment was declined ({row.code})")
    return found


def _channels(house: House) -> dict[bytes, int]:
    return {row[0]: row[1] for row in house.disk.all("SELECT channel, our_index FROM channel")}


def _both_agree(house: House, peer: House, world: World) -> None:
    shared = set(_channels(house)) & set(_channels(peer))
    for channel in sorted(shared):
        if channel in house.lost or channel in peer.lost:
            world.statistics.facts["channels closed after a loss"] += 1
            continue
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
    expected = WALLET_E8S - _costs(house) - _cost_of_copy(house, world)
    for channel, index in _channels(house).items():
        for (sender, _), (amount, _, _) in delivered(house, channel).items():
            expected += -amount if sender == index else amount
    actual = world.chain.ledger.balance(house.account)
    if actual != expected:
        world.rules.fail(f"{house.name} has {actual} e8s; its books say {expected} ({actual - expected:+})")


def _cost_of_copy(house: House, world: World) -> int:
    """What a copy that ran beside it paid before it was told, and is in no books that go on: what it put into a
    channel comes back, and what it lent does not.
    """
    double = world.double
    if double is None or double.original is not house:
        return 0
    known = {row[0] for row in house.disk.all("SELECT block FROM transfer WHERE block IS NOT NULL")}
    cost = 0
    for number, amount, fee, block in double.disk.all("SELECT number, amount, fee, block FROM transfer"):
        if block is not None and block not in known:
            cost += fee + (amount if number is None else 0)
    return cost


def _channel_books(house: House, world: World) -> None:
    """The newest state is enforceable, and its balance is what the payments in it add up to."""
    for (number,) in house.disk.all("SELECT number FROM channel"):
        row = house.disk.read.channel(number)
        assert row is not None
        newest, terms, ours = row.memory.newest, row.terms, row.terms.our_index
        if not verify_signed_state(terms.params, newest):
            world.rules.fail(f"{house.name}: version {newest.state.version} is not signed by both")
        mine = terms.allocation[ours]
        for sender, payment_id, amount in house.disk.all(
            "SELECT sender, id, amount FROM payment WHERE number = ? AND version <= ?", number, newest.state.version
        ):
            assert isinstance(amount, int)
            if sender == ours and payment_id not in house.made_ids:
                world.rules.fail(f"{house.name}: a payment of {amount} e8s left its channel that nobody asked for")
            mine += -amount if sender == ours else amount
        below = row.settled_version is not None and row.settled_version < newest.state.version
        # A peer that claims to have lost data makes payments `unknown`: whether they are in the state nobody can say.
        unknown = house.disk.one("SELECT 1 FROM payment WHERE number = ? AND status = 'unknown'", number)
        lost = terms.channel in house.lost
        if mine != newest.state.allocation[ours] and not below and not unknown and not lost:
            world.rules.fail(
                f"{house.name}: version {newest.state.version} gives it {newest.state.allocation[ours]} e8s; "
                f"its payments add up to {mine}"
            )
    for (data,) in house.disk.all("SELECT data FROM event WHERE kind = 'channel.refuting'"):
        facts = json.loads(str(data))
        if facts["registered"] >= facts["ours"]:
            world.rules.fail(f"{house.name} refutes what is not below its own: {facts}")


def _nothing_stolen(house: House, world: World) -> None:
    """An honest node got what its newest fully signed state says, or what a newer one does, less what it cost."""
    lost_books = house.disks_lost > 0
    expected = WALLET_E8S - _costs(house)
    for number, channel in house.disk.all("SELECT number, channel FROM channel"):
        row = house.disk.read.channel(number)
        assert row is not None
        settled, newest, ours = world.chain.registered(channel), row.memory.newest.state, row.terms.our_index
        if settled is None:
            continue  # never funded by anybody
        world.statistics.facts["channels with a liar closed"] += 1
        if settled.state.version < newest.version:
            world.rules.fail(f"{house.name} has version {newest.version}; {settled.state.version} was settled")
        if settled.state.version == newest.version and settled.state.digest != newest.digest:
            world.rules.fail(f"another state of version {newest.version} than that of {house.name} was settled")
        _list_is_true(house, number, settled.state, world)
        if settled.state.version:
            expected += settled.state.allocation[ours] - row.terms.allocation[ours]
    actual = world.chain.ledger.balance(house.account)
    if actual < expected and not lost_books:
        world.rules.fail(f"{house.name} has {actual} e8s; {expected} are due to it ({actual - expected:+})")


def _list_is_true(house: House, number: object, settled: State, world: World) -> None:
    """What the list of payments calls delivered is what the settled state moved."""
    assert isinstance(number, int)
    row = house.disk.read.channel(number)
    assert row is not None
    if row.terms.channel in house.lost or row.settled_version is None:
        return
    moved = 0
    for _, payment in house.disk.read.payments(number, (0, -1, b""), 1_000_000):
        if payment.status == "unknown":
            return  # a peer that claims to have lost data: nobody can tell what became of it
        if payment.status == "delivered":
            moved += -payment.payment.amount_e8s if payment.ours else payment.payment.amount_e8s
    ours = row.terms.our_index
    if moved != settled.allocation[ours] - row.terms.allocation[ours]:
        world.rules.fail(f"{house.name} lists {moved} e8s as paid to it; version {settled.version} was settled")


def _no_hostage(house: House, world: World) -> None:
    """Who lost nothing never believes that it did, whatever a liar shows it: it would not dispute any more (rule 7)."""
    for channel, frozen in house.disk.all(
        "SELECT c.channel, s.frozen FROM channel c JOIN channel_state s USING (number)"
    ):
        if channel not in house.lost and str(frozen).startswith(("data_loss", "risk_accepted")):
            world.rules.fail(f"rule 7: {house.name} lost no data, and a liar has it believe so: {frozen}")


def _no_accusations(house: House, world: World) -> None:
    rows = [
        row[1:]
        for row in house.disk.all(
            "SELECT c.channel, e.kind, e.data FROM event e LEFT JOIN channel c USING (number) WHERE e.kind IN ("
            "'channel.frozen', 'channel.conflicting_state_registered', 'channel.newer_state_registered', "
            "'channel.settled_below_ours')"
        )
        if row[0] not in house.lost
    ]
    if rows:
        world.rules.fail(f"{house.name}: an alarm among honest peers: {rows[0]}")
    complaint = house.disk.one(
        # A channel that one side has not got yet, or has no more, is unknown to it: that is no accusation.
        "SELECT data FROM event WHERE kind = 'peer.complained' AND data NOT LIKE '%unknown_channel%'"
    )
    if complaint and not any(each.disks_lost for each in world.houses):
        world.rules.fail(f"{house.name}: an honest peer complained: {complaint}")


def _promises(user: User, world: World) -> None:
    house = user.house
    if house.disks_lost:
        return  # what was promised is on the disk that is gone
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


def _memos(world: World) -> set[int]:
    """Those of all fundings."""
    rows = [row.terms for house in world.houses for row in house.disk.read.channels_page(None, 0, 1_000)]
    terms = [*rows, *(lost for house in world.houses for lost in house.lost.values())]
    return {funding.memo for each in terms for funding in (each.funding(0), each.funding(1))}


def _owed(world: World) -> int:
    """What the canister owes to channels: what was lent to a published one, and it was told of, is nobody's."""
    perun = world.chain.perun
    if not isinstance(perun, PublishedContract):
        return perun.owed_e8s
    memos = _memos(world)
    return perun.owed_e8s - sum(e8s for memo, e8s in perun._deposits.saved().waiting if memo not in memos)


def _lent(world: World) -> int:
    """What the pool of a published canister has beside what it owes: lent to it, less the fees of its payouts."""
    chain = world.chain
    if not isinstance(chain.perun, PublishedContract):
        return 0
    memos = _memos(world)
    blocks = chain.blocks(0, chain.ledger.chain_length)
    paid = [
        (b.memo, b.operation.amount_e8s)
        for b in blocks
        if isinstance(b.operation, Transfer | Mint) and b.operation.to == chain.account
    ]
    return sum(e8s for memo, e8s in paid if memo not in memos) - chain.perun.fees_e8s


def _nothing_left_behind(world: World) -> None:
    """Whose records are gone has its money all the same: the canister holds nothing but what no fee can pay for."""
    owed, held = _owed(world), world.chain.ledger.balance(world.chain.account)
    if owed != held - _lent(world):
        world.rules.fail(f"{held - owed} e8s were paid to the canister and credited to nobody")
    for house in world.houses:
        rows = house.disk.read.channels_page(None, 0, 1_000)
        for terms in (house.lost | {row.terms.channel: row.terms for row in rows}).values():
            left = world.chain.holdings(terms.funding(terms.our_index)) or 0
            if left > FEE_E8S:
                world.rules.fail(f"{house.name} leaves {left} e8s in a channel")
        for row in rows:
            settled = world.chain.registered(row.terms.channel)
            newest = row.memory.newest.state.version
            # Who lost data may have signed the end of it when the canister had settled already.
            lost = any(row.terms.channel in each.lost for each in world.houses)
            if settled is not None and settled.state.version < newest and not lost:
                world.rules.fail(f"{house.name} has version {newest}; {settled.state.version} was settled")
