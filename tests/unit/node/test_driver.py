"""The driver: nothing leaves before its records are on the disk, in order, and only into the session it was made in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from perund.node.driver import ChannelDriver
from perund.node.noise import Noise
from perund.node.waiting import Outcome
from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel
from perund.store.reading import Reader, open_reader
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import Look, Moment
from protocol.errors import CallerMistake
from protocol.following import Follower
from protocol.messages import Ack, ChannelMessage, ErrorMessage, Message, Offer, Resume, Update
from protocol.ordering import Orderer
from protocol.payments import Batch
from protocol.signer import StateSigner
from protocol.types import Nanos, ParticipantIndex
from tests.unit.store.books import KEYS, NETWORK, batch, opened, payment, terms_of

NOW = Moment(10**9, Nanos(10**18))


class Line:
    """One direction of a session. What is said is kept until `carry` brings it to the other side."""

    def __init__(self, check: Callable[[Message], None]) -> None:
        self.said: list[Message] = []
        self._check = check

    def send(self, message: Message) -> None:
        self._check(message)
        self.said.append(message)


class Side:
    """A driver on a store of its own. Whenever it speaks, its disk is asked whether it may."""

    def __init__(self, directory: Path, ours: ParticipantIndex) -> None:
        directory.mkdir()
        self.directory, self.ours = directory, ours
        self.failures: list[StorageFailed] = []
        self.looks = 0
        self.changes = 0
        self.start()

    def start(self) -> None:
        self.store = Store(self.directory / "perund.db", NETWORK, self.failures.append)
        self.disk: Reader = open_reader(self.directory / "perund.db")

    async def add(self) -> None:
        terms = terms_of(ours=self.ours)
        self.store.name(terms.channel, 1)
        await self.store.write(insert_channel(opened(terms), 1, NETWORK, Nanos(7), 600 * 10**9))
        await self.store.write([Statement("UPDATE channel_state SET phase = 'open'")])
        self.take_up()

    def take_up(self) -> None:
        row = self.store.read.channel(1)
        assert row is not None
        self.store.name(row.terms.channel, 1)
        role = Orderer if self.ours == 0 else Follower
        signer = StateSigner(KEYS[self.ours], row.memory.last_signature)
        channel = role(row.terms, signer, self.store, row.memory)
        self.driver = ChannelDriver(channel, 1, self.store, lambda: NOW, self._look, self._changed, Noise())
        self.driver.looked(Look(NOW.elapsed_ns, NOW.chain_ns, None, b"", settled=False), None)

    def _look(self) -> None:
        self.looks += 1

    def _changed(self, driver: ChannelDriver) -> None:
        self.changes += 1

    def line(self) -> Line:
        return Line(self._may_say)

    def _may_say(self, message: Message) -> None:
        """Rule 2: what a message commits us to is durable before its first byte leaves."""
        row = self.disk.channel(1)
        assert row is not None
        match message:
            case Update():
                assert row.memory.pending == message
                assert row.memory.last_signature is not None
                assert row.memory.last_signature.version == message.version
            case Ack():
                assert row.memory.newest.state.version == message.version
                assert row.memory.newest.signatures[1] == message.signature
            case Offer():
                assert set(message.payments.each_id()) <= set(row.memory.offered.each_id())
            case _:
                pass

    def statuses(self) -> list[str]:
        return [row.status for _, row in self.store.read.payments(1, (0, -1, b""), 999)]


class Pair:
    """Two sides and the session between them."""

    def __init__(self, directory: Path) -> None:
        self.alice, self.bob = Side(directory / "alice", 0), Side(directory / "bob", 1)
        self.lines: tuple[Line, Line] | None = None

    def connect(self) -> tuple[Line, Line]:
        lines = self.lines = (self.alice.line(), self.bob.line())
        for side, line in zip((self.alice, self.bob), lines, strict=True):
            side.driver.session_began(line, 1)
        return lines

    async def run(self) -> None:
        """Carry messages until both are silent and everything is written."""
        assert self.lines is not None
        quiet = 0
        while quiet < 2:
            for side in (self.alice, self.bob):
                await side.driver.settle_writes()
            carried = 0
            for line, receiver, own in ((self.lines[0], self.bob, self.lines[1]), (self.lines[1], self.alice, self.lines[0])):  # noqa: E501  # fmt: skip
                said, line.said = line.said, []
                for message in said:
                    assert not isinstance(message, ErrorMessage), message
                    assert isinstance(message, ChannelMessage)
                    receiver.driver.receive(own, message)
                carried += len(said)
            quiet = 0 if carried else quiet + 1


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    await made.alice.add()
    await made.bob.add()
    made.connect()
    await made.run()
    yield made
    made.alice.store.close()
    made.bob.store.close()


class Told:
    """What a caller was told, and how often."""

    def __init__(self, count: int = 1) -> None:
        self.ends: list[tuple[int, int, str, str]] = []
        self.outcome = Outcome(count, lambda o: self.ends.append((o.version, o.ended, o.status, o.code)))


async def test_a_payment_each_way(pair: Pair) -> None:
    to_bob, to_alice = Told(), Told()
    pair.alice.driver.pay(batch(1), to_bob.outcome)
    pair.bob.driver.pay(batch(2), to_alice.outcome)
    await asyncio.sleep(0)
    await pair.run()
    assert [end[1:] for end in (*to_bob.ends, *to_alice.ends)] == [(0, "delivered", "")] * 2
    assert pair.alice.statuses() == pair.bob.statuses() == ["delivered", "delivered"]
    assert pair.alice.driver.channel.newest == pair.bob.driver.channel.newest
    assert pair.alice.driver.durable_newest == pair.alice.driver.channel.newest


async def test_nothing_is_said_before_it_is_durable_and_then_in_order(pair: Pair) -> None:
    """`Side` asks the disk at every message. Here the order: the update of what was asked for first comes first."""
    told = Told(3)
    before = len(pair.alice.store.read.events(0, 999))
    pair.alice.driver.pay(batch(1, 2, 3), told.outcome)
    assert pair.lines is not None
    assert pair.lines[0].said == []
    await asyncio.sleep(0)
    assert pair.lines[0].said == []  # the machine has signed; the disk has not
    assert pair.alice.driver.channel.pending is not None
    await pair.alice.driver.settle_writes()
    assert [type(m) for m in pair.lines[0].said] == [Update]
    await pair.run()
    assert told.ends == [(1, 0, "delivered", "")]
    assert len(pair.alice.store.read.events(0, 999)) == before + 1


async def test_payments_of_one_turn_share_an_update(pair: Pair) -> None:
    told = [Told() for _ in range(100)]
    before = pair.alice.store.transactions
    for number, one in enumerate(told, start=1):
        pair.alice.driver.pay(Batch.of([payment(number, 1)]), one.outcome)
    await asyncio.sleep(0)
    await pair.run()
    assert all(one.ends == [(1, 0, "delivered", "")] for one in told)
    assert pair.alice.driver.channel.version == 1
    assert pair.alice.store.transactions - before < 20


async def test_payments_of_one_turn_are_checked_together(pair: Pair) -> None:
    pair.alice.driver.pay(Batch.of([payment(1, 600)]), None)
    with pytest.raises(CallerMistake) as caught:
        pair.alice.driver.pay(Batch.of([payment(2, 600)]), None)
    assert caught.value.code == "insufficient_balance"
    await asyncio.sleep(0)
    await pair.run()
    assert pair.alice.driver.channel.balance_e8s == 400


async def test_a_caller_with_many_payments_is_told_once(pair: Pair) -> None:
    """Alice can decline: of three offers, the one that she cannot take ends the call with one count of it."""
    told = Told(3)
    pair.alice.driver.channel.minimum_e8s = 10
    pair.bob.driver.pay(Batch.of([payment(1, 50), payment(2, 5), payment(3, 60)]), told.outcome)
    await asyncio.sleep(0)
    await pair.run()
    assert [end[1:] for end in told.ends] == [(1, "declined", "amount_too_small")]
    assert sorted(pair.bob.statuses()) == ["declined", "delivered", "delivered"]


async def test_a_session_that_ended_gets_nothing_any_more(pair: Pair) -> None:
    assert pair.lines is not None
    old = pair.lines[0]
    pair.alice.driver.pay(batch(1), None)
    await asyncio.sleep(0)
    pair.alice.driver.session_ended(old)  # the step is made; its record is on the way to the disk
    assert not pair.alice.driver.online
    await pair.alice.driver.settle_writes()
    assert old.said == []

    new = pair.connect()
    await pair.run()  # `resume` says it again
    assert old.said == []
    assert pair.alice.statuses() == pair.bob.statuses() == ["delivered"]
    assert new[0].said == []


async def test_a_step_made_in_the_old_session_is_not_said_in_the_new_one(pair: Pair) -> None:
    """In a new session `Resume` speaks first: an update in front of it would break the protocol."""
    pair.alice.driver.pay(batch(1), None)
    await asyncio.sleep(0)
    fresh = pair.alice.line()
    pair.alice.driver.session_began(fresh, 1)  # replaces the old one before the update is durable
    await pair.alice.driver.settle_writes()
    assert isinstance(fresh.said[0], Resume)
    assert not any(isinstance(m, Update) for m in fresh.said)


async def test_messages_of_a_session_that_was_replaced_are_not_heard(pair: Pair) -> None:
    assert pair.lines is not None
    old = pair.lines[1]
    pair.bob.driver.session_began(pair.bob.line(), 1)
    before = pair.bob.driver.channel.newest
    update = Update(pair.bob.driver.channel.id, 1, (1, 1), False, batch(1), Batch(), b"\x01" * 64)
    pair.bob.driver.receive(old, update)
    assert pair.bob.driver.channel.newest == before
    assert not pair.bob.driver.channel.frozen


async def test_the_end_of_an_older_session_does_not_end_the_newer_one(pair: Pair) -> None:
    assert pair.lines is not None
    old = pair.lines[0]
    pair.connect()
    pair.alice.driver.session_ended(old)
    assert pair.alice.driver.online


async def test_flush_brings_the_payments_of_this_turn_before_what_comes_next(pair: Pair) -> None:
    told = Told()
    pair.alice.driver.pay(batch(1), told.outcome)
    pair.alice.driver.flush()
    pair.alice.driver.perform(pair.alice.driver.channel.close(NOW, "asked for"))
    pair.alice.driver.flush()  # nothing is left
    await pair.run()
    assert told.ends == [(1, 0, "delivered", "")]
    assert pair.alice.driver.channel.newest.state.finalized
    assert pair.bob.driver.channel.version == 2


async def test_payments_of_a_turn_in_which_the_channel_closed_fail_and_say_so(pair: Pair) -> None:
    told = Told()
    pair.alice.driver.pay(batch(1), told.outcome)
    pair.alice.driver.perform(pair.alice.driver.channel.leave(NOW, "in this very turn"))
    await asyncio.sleep(0)
    await pair.alice.driver.settle_writes()
    assert told.ends == [(0, 1, "failed", "channel_not_open")]
    assert pair.alice.statuses() == []


async def test_payments_with_records_of_the_caller_are_one_transaction(pair: Pair) -> None:
    durable: list[str] = []
    note = Statement("INSERT INTO cost(number, what, amount) VALUES (1, 'note', 7)")
    pair.bob.driver.pay_durably(batch(1), None, (note,), lambda: durable.append(pair.bob.statuses()[0]))
    await pair.bob.driver.settle_writes()
    assert durable == ["offered"]
    assert pair.bob.store.read.costs(1)[0].amount_e8s == 7
    with pytest.raises(CallerMistake):
        pair.bob.driver.pay_durably(Batch.of([payment(2, 10**6)]), None, (note,), lambda: durable.append("never"))
    await pair.bob.driver.settle_writes()
    assert durable == ["offered"]
    assert len(pair.bob.store.read.costs(1)) == 1


async def test_until_is_asked_after_every_durable_step(pair: Pair) -> None:
    waiting = asyncio.ensure_future(
        pair.alice.driver.until(lambda: pair.alice.driver.durable_newest.state.version == 2)
    )
    for number in (1, 2):
        assert not waiting.done()
        pair.alice.driver.pay(batch(number), None)
        await asyncio.sleep(0)
        await pair.run()
    await asyncio.wait_for(waiting, 5)


async def test_a_stale_look_asks_for_another_and_the_payment_waits_for_it(pair: Pair) -> None:
    old = Look(NOW.elapsed_ns - 10**12, NOW.chain_ns, None, b"", settled=False)
    pair.alice.driver.channel.look = old
    told = Told()
    pair.alice.driver.pay(batch(1), told.outcome)
    await asyncio.sleep(0)
    await pair.run()
    assert pair.alice.looks == 1
    assert pair.alice.statuses() == ["queued"]
    pair.alice.driver.looked(Look(NOW.elapsed_ns, NOW.chain_ns, None, b"", settled=False), None)
    await pair.run()
    assert told.ends == [(1, 0, "delivered", "")]


async def test_after_a_failed_write_nothing_is_said(pair: Pair) -> None:
    """Rule 8: the signature is made in memory and never leaves, now or later."""
    assert pair.lines is not None
    pair.alice.store.commit([Statement("INSERT INTO no_such_table VALUES (1)")])
    pair.alice.driver.pay(batch(1), None)
    loop_errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context.get("exception")))
    with pytest.raises(StorageFailed):
        await asyncio.wait_for(pair.alice.driver.settle_writes(), 5)
    await asyncio.sleep(0)
    assert pair.lines[0].said == []
    assert len(pair.alice.failures) == 1
    pair.alice.store.close()

    pair.alice.start()  # after a restart it believes what the store says
    pair.alice.take_up()
    assert pair.alice.driver.channel.version == 0
    assert pair.alice.driver.channel.pending is None


async def test_a_restart_goes_on_where_the_disk_is(pair: Pair) -> None:
    """Bob's acknowledgement is lost with the power of Alice; the update is sent again byte for byte."""
    assert pair.lines is not None
    pair.alice.driver.pay(batch(1), None)
    await asyncio.sleep(0)
    await pair.alice.driver.settle_writes()
    sent = pair.lines[0].said[0]
    pair.alice.store.close()
    pair.alice.start()
    pair.alice.take_up()
    lines = pair.connect()
    await pair.bob.driver.settle_writes()
    pair.alice.driver.receive(lines[0], next(m for m in lines[1].said if isinstance(m, Resume)))
    await pair.alice.driver.settle_writes()
    assert sent in lines[0].said
    await pair.run()
    assert pair.alice.statuses() == pair.bob.statuses() == ["delivered"]


async def test_that_it_settled_is_told_once_and_not_with_every_look(pair: Pair) -> None:
    """Regression: a job that looks at each of its steps woke itself, and asked the canister as fast as it could."""
    side = pair.alice
    digest = side.driver.channel.newest.state.digest

    def look(*, settled: bool) -> None:
        side.driver.looked(Look(NOW.elapsed_ns, NOW.chain_ns, 0, digest, settled=settled), None)

    look(settled=False)
    await side.driver.settle_writes()
    before = side.changes
    look(settled=False)
    assert side.changes == before
    for _ in range(3):
        look(settled=True)
    assert side.changes == before + 1


@pytest.mark.parametrize("name", ["alice", "bob"])
async def test_what_a_life_had_signed_and_not_sent_does_not_leave_when_it_is_over(pair: Pair, name: str) -> None:
    """The signature is on its way to the disk when the other copy of the node is heard of (ADR 0012)."""
    pair.connect()
    await pair.run()
    side = pair.alice if name == "alice" else pair.bob
    assert pair.lines is not None
    pair.alice.driver.pay(batch(1), None)
    pair.alice.driver.flush()
    if name == "bob":
        await pair.alice.driver.settle_writes()
        [update] = [m for m in pair.lines[0].said if isinstance(m, Update)]
        side.driver.receive(pair.lines[1], update)
    said = pair.lines[0 if name == "alice" else 1].said
    assert side.driver.writing
    side.driver.channel.outlived = True
    await side.driver.settle_writes()
    assert not [m for m in said if isinstance(m, Update | Ack)]
    row = side.disk.channel(1)
    assert row is not None
    assert row.memory.last_signature is not None
    assert row.memory.last_signature.version == 1, "that it was signed is remembered"
