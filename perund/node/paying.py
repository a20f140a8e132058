"""`channel.pay`: the hot path of the control interface."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_PAY
from perund.control.schema import PayResult
from perund.node.patience import ended_within
from perund.node.payment_ids import bounds
from perund.node.promises import Promise, Promises, WaitEnded
from perund.node.waiting import Outcome
from perund.node.waits import wait_of
from perund.store.errors import StorageFailed
from protocol.errors import CallerMistake, Undecodable
from protocol.payments import PAYMENT_ID_BYTES, Batch, Payment
from protocol.types import ChannelId

if TYPE_CHECKING:
    from perund.control import schema
    from perund.control.api import PayReply
    from perund.node.driver import ChannelDriver
    from perund.node.idempotency import Idempotency
    from perund.node.node import Node
    from perund.store.reading import Reader
    from perund.store.rows import PaymentRow
    from perund.store.writer import Statement
    from protocol.types import ParticipantIndex

__all__ = ["Paying"]

UNFINISHED = frozenset({"queued", "offered", "signed"})


class Paying:
    """Queues payments and answers when they are delivered, or as soon as they are durable."""

    def __init__(self, node: Node, find: Callable[[str], ChannelId], keys: Idempotency, promises: Promises) -> None:
        self._node = node
        self._find = find
        self._keys = keys
        self._promises = promises
        self._queuing: dict[int, tuple[Promise, PayReply]] = {}
        """Who waits for no more than a durable queue, by the unit of work that makes it so."""
        self._drivers: dict[str, ChannelDriver] = {}
        self._ids = node.services.payment_ids
        self._given_ids: set[tuple[int, bytes]] = set()
        """Ids that callers chose, by channel row: from the call until the store knows them."""
        self._taken: list[tuple[int, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def pay(self, params: schema.PayParams, reply: PayReply) -> None:
        """Take one call. Raises `CallerMistake` when nothing was queued."""
        key = params.idempotency_key
        if key is not None:
            earlier = self._keys.begin(key, CHANNEL_PAY.name, params)
            if earlier is not None:  # also after the channel was closed: what became of it is in the store
                self._answer_again(self._find(params.channel), earlier, params, reply)
                return
        try:
            driver = self._driver(params.channel)
            with self._ids_taken():
                self._take_up(driver, params, reply)
        except StorageFailed as error:
            self._keys.done(key)
            raise self._promises.broken(_promise(key, "the payment"), str(error)) from error
        except BaseException:
            self._keys.done(key)
            raise

    def _take_up(self, driver: ChannelDriver, params: schema.PayParams, reply: PayReply) -> None:
        key, (payments, made) = params.idempotency_key, self._payments(driver, params)
        single = params.amount_e8s is not None
        if key is None and params.wait:
            outcome = self._outcome(payments, None, reply, single=single)
            driver.pay(payments, outcome)
            self._limit(outcome, driver, payments, params, reply)
            return
        records = self._keys.note(key, CHANNEL_PAY.name, params, f"{made.hex()}:{len(payments)}")
        self._pay_durably(driver, payments, records, params, reply, single=single)

    @contextmanager
    def _ids_taken(self) -> Iterator[None]:
        """Hold the ids that the caller chose until their payments are durable; a refused call gives them back."""
        self._taken = []
        try:
            yield
        except BaseException:
            self._given_ids.difference_update(self._taken)
            raise
        if self._taken:
            known = partial(self._given_ids.difference_update, self._taken)
            # After the turn of the loop in which `pay` brings these payments to the channel.
            asyncio.get_running_loop().call_soon(partial(self._node.services.store.commit, (), known))

    def end_waiting(self, why: str) -> None:
        """Answer every call that waits for a payment, by what is known of its write."""
        queuing, self._queuing = self._queuing, {}
        for promise, reply in queuing.values():
            reply.error(self._promises.broken(promise, why))
        for driver in self._node.drivers.values():
            for outcome in driver.waiters.forget_all():
                outcome.code = why
                outcome.tell(outcome)

    async def answered(self) -> None:
        """Return when the calls that waited under a key of before are answered."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _driver(self, reference: str) -> ChannelDriver:
        driver = self._drivers.get(reference)
        if driver is not None and self._node.drivers.get(driver.channel.id) is driver:
            return driver
        driver = self._node.drivers.get(self._find(reference))
        if driver is None:
            self._drivers.pop(reference, None)
            raise CallerMistake("channel_closed", f"channel {reference[:32]} is closed")
        if len(reference) == 128:  # a whole id: shorter ones may become ambiguous
            self._drivers[reference] = driver
        return driver

    def _payments(self, driver: ChannelDriver, params: schema.PayParams) -> tuple[Batch, bytes]:
        """Return the payments, and the first of the ids that were made for them: one each, also where one is given."""
        if params.amounts_e8s is not None:
            ids = self._ids.make(len(params.amounts_e8s))
            return Batch(ids, tuple(params.amounts_e8s)), ids[:PAYMENT_ID_BYTES]
        if params.amount_e8s is not None and params.payment_id is None:
            memo = params.memo.encode() if params.memo else b""
            ids = self._ids.make(1)
            return Batch(ids, (int(params.amount_e8s),), {0: memo} if memo else {}), ids
        wanted: list[tuple[int, str | None, str | None]] = (
            [(int(params.amount_e8s), params.memo, params.payment_id)]
            if params.amount_e8s is not None
            else [(int(p.amount_e8s), p.memo, p.payment_id) for p in params.payments or ()]
        )
        made = self._ids.make(len(wanted))
        payments = []
        for position, (amount, text, given) in enumerate(wanted):
            if given is not None:
                payment_id = self._given(driver, bytes.fromhex(given))
            else:
                payment_id = made[position * PAYMENT_ID_BYTES : (position + 1) * PAYMENT_ID_BYTES]
            payments.append(Payment(payment_id, amount, text.encode() if text else b""))
        try:
            return Batch.of(payments), made[:PAYMENT_ID_BYTES]
        except Undecodable as error:
            raise CallerMistake("payment_id_used", str(error)) from error

    def _given(self, driver: ChannelDriver, payment_id: bytes) -> bytes:
        """Return an id that the caller chose: it is used once for ever."""
        ours = driver.channel.ours
        known = self._node.services.store.read.payment(driver.number, ours, payment_id)
        if known is not None or (driver.number, payment_id) in self._given_ids:
            raise CallerMistake("payment_id_used", f"payment id {payment_id.hex()} is used already")
        self._given_ids.add((driver.number, payment_id))
        self._taken.append((driver.number, payment_id))
        return payment_id

    def _outcome(self, payments: Batch, key: str | None, reply: PayReply, *, single: bool) -> Outcome:
        first = payments.ids[:PAYMENT_ID_BYTES]
        return Outcome(len(payments), self._teller(first, len(payments), key, reply, single=single))

    def _pay_durably(
        self,
        driver: ChannelDriver,
        payments: Batch,
        records: tuple[Statement, ...],
        params: schema.PayParams,
        reply: PayReply,
        *,
        single: bool,
    ) -> None:
        key, wait = params.idempotency_key, params.wait
        outcome = self._outcome(payments, key, reply, single=single) if wait else None
        first = payments.ids[:PAYMENT_ID_BYTES]

        def durable() -> None:
            self._keys.done(key)
            if not wait:
                if self._queuing.pop(unit, None) is None:
                    return  # it was said already that the node stops
                row = self._node.services.store.read.payment(driver.number, driver.channel.ours, first)
                reply.result(
                    _result(
                        row.status if row is not None else "queued",
                        (row.version if row is not None else None) or driver.channel.version,
                        first,
                        len(payments),
                        single=single,
                    )
                )

        driver.pay_durably(payments, outcome, records, durable)
        unit = self._node.services.store.asked
        if outcome is None:
            self._queuing[unit] = _promise(key, _named(first, len(payments)), unit), reply
        else:
            self._limit(outcome, driver, payments, params, reply)

    def _teller(
        self, first: bytes, count: int, key: str | None, reply: PayReply, *, single: bool
    ) -> Callable[[Outcome], None]:
        """Return what answers a call when its payments have ended, or the wait for them. `first`: the first's id."""

        def tell(outcome: Outcome) -> None:
            if outcome.undecided:
                promise = _promise(key, _named(first, count), outcome.unit)
                reply.error(self._promises.broken(promise, outcome.code))
            elif outcome.ended == 0:
                reply.result(_result("delivered", outcome.version, first, count, single=single))
            elif outcome.status == "unknown":
                reply.error(RpcError("outcome_unknown", f"nobody can tell what became of the payment: {outcome.code}"))
            elif single:
                name = "payment_declined" if outcome.status == "declined" else "payment_failed"
                reply.error(RpcError(name, f"payment {first.hex()} was {outcome.status}: {outcome.code}"))
            else:
                reply.error(
                    RpcError(
                        "payment_failed",
                        f"{outcome.ended} of {count} payments were not delivered: {outcome.status} ({outcome.code})",
                    )
                )

        return tell

    def _limit(
        self, outcome: Outcome, driver: ChannelDriver, payments: Batch, params: schema.PayParams, reply: PayReply
    ) -> None:
        """Answer when the caller's time is over: what it waited for goes on, and tells nobody."""
        if params.timeout_s is None:
            return
        tell, first, count = outcome.tell, payments.ids[:PAYMENT_ID_BYTES], len(payments)

        def late() -> None:
            outcome.tell = lambda _: None
            promise = _promise(params.idempotency_key, _named(first, count), outcome.unit)
            reply.error(self._promises.late(promise, self._state(driver, first, count)))

        timer = asyncio.get_running_loop().call_later(int(params.timeout_s), late)

        def in_time(ended: Outcome) -> None:
            timer.cancel()
            tell(ended)

        outcome.tell = in_time

    def _state(self, driver: ChannelDriver | None, first: bytes, count: int) -> str:
        """Return how payments stand, for a caller whose time is over. `first`: the id of the first."""
        wait = wait_of(self._node, driver) if driver is not None else None
        which = f"payment {first.hex()} is" if count == 1 else f"{count} payments are"
        return f"{which} not delivered yet: the channel waits for {wait or 'this node'}"

    def _answer_again(self, channel: ChannelId, earlier: str, params: schema.PayParams, reply: PayReply) -> None:
        """Answer a call whose key was used before: with what became of its payments, all of them."""
        read, number = self._node.services.store.read, self._node.services.store.number(channel)
        driver, opened = self._node.drivers.get(channel), read.channel(number)
        assert opened is not None
        ours, newest = opened.terms.our_index, opened.memory.newest.state.version
        places = _Places(read, number, ours, earlier, params)

        def state() -> str:
            rows = places.rows()
            return self._state(driver, rows[0].payment.id, len(rows))

        async def answer() -> None:
            key, single = params.idempotency_key, params.amount_e8s is not None
            rows = places.rows()
            first, count = rows[0].payment.id, len(rows)
            if params.wait and driver is not None:
                try:
                    async with ended_within(params.timeout_s, state):
                        await driver.until(lambda: places.unfinished() is None)
                except WaitEnded as error:
                    reply.error(self._promises.broken(_promise(key, _named(first, count), 0), str(error)))
                    return
                except RpcError as error:  # the caller's time is over
                    reply.error(error)
                    return
            waiting, rows = places.unfinished(), places.rows()
            version = max((row.version or 0 for row in rows), default=0)
            undelivered = [row for row in rows if row.status != "delivered"]
            if params.wait and waiting is None:
                tell = self._teller(first, count, key, reply, single=single)
                last = undelivered[-1] if undelivered else rows[-1]
                tell(Outcome(0, tell, version, len(undelivered), last.status, last.code))
            else:
                status = (waiting or (undelivered or rows)[-1]).status
                version = version or (driver.channel.version if driver is not None else newest)
                reply.result(_result(status, version, first, count, single=single))

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Places:
    """Where the payments of an earlier call stand in the store. `earlier`: what its key led to."""

    def __init__(
        self, read: Reader, number: int, ours: ParticipantIndex, earlier: str, params: schema.PayParams
    ) -> None:
        made, _, count = earlier.partition(":")
        self._read, self._number, self._ours = read, number, ours
        self._made, self._count = bytes.fromhex(made), int(count)
        given = [params.payment_id] if params.amount_e8s is not None else [p.payment_id for p in params.payments or ()]
        self._given = {place: bytes.fromhex(text) for place, text in enumerate(given) if text is not None}
        self._waiting = deque(row.payment.id for row in self.rows())

    def rows(self) -> list[PaymentRow]:
        """Return the payments, in the order in which they were asked for."""
        first, end = bounds(self._made, self._count)
        page = self._read.payments(self._number, (self._number, self._ours, first), self._count)
        rows = {row.payment.id: row for _, row in page if row.payment.id < end}
        for payment_id in self._given.values():
            rows.pop(payment_id, None)
        made = iter(rows.values())
        found = (self._find(self._given[p]) if p in self._given else next(made, None) for p in range(self._count))
        return [row for row in found if row is not None]

    def unfinished(self) -> PaymentRow | None:
        """Return the first payment that has not ended. What has ended is not looked at again."""
        while self._waiting:
            row = self._find(self._waiting[0])
            if row is not None and row.status in UNFINISHED:
                return row
            self._waiting.popleft()
        return None

    def _find(self, payment_id: bytes) -> PaymentRow | None:
        return self._read.payment(self._number, self._ours, payment_id)


def _named(first: bytes, count: int) -> str:
    """Return the name of a payment, or of `count` of them, for people. `first`: the id of the first."""
    return f"payment {first.hex()}" if count == 1 else f"the {count} payments from {first.hex()} on"


def _promise(key: str | None, what: str, unit: int | None = None) -> Promise:
    return Promise(CHANNEL_PAY, key, what, unit)


def _result(status: str, version: int, first: bytes, count: int, *, single: bool) -> PayResult:
    if single:
        return PayResult(status=status, version=version, payment=first.hex())  # type: ignore[arg-type]  # the same words
    return PayResult(status=status, version=version, payments=count, first_payment=first.hex())  # type: ignore[arg-type]
