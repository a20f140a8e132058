"""Whatever people, time and the ledger do: every e8 is somebody's, and nobody gets more than his own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devnet.ledger.blocks import Transfer
from devnet.ledger.ledger import DEDUPLICATION_WINDOW_NS
from devnet.perun.interface import Error, Funding, RegisteredState
from devnet.perun.payouts import Payout
from tests.unit.devnet.scene import ALICE, BOB, FEE, HOUR, MALLORY, Channel, Person, Scene, Trouble

T = TypeVar("T")

PEOPLE = (ALICE, BOB, MALLORY)
CHANNELS = (Channel((ALICE, BOB)), Channel((ALICE, BOB), nonce=1), Channel((BOB, ALICE, MALLORY), nonce=2))
SHARE = 5 * FEE

channels = st.sampled_from(CHANNELS)
people = st.sampled_from(PEOPLE)
amounts = st.sampled_from((1, FEE, SHARE, SHARE, SHARE, 2 * SHARE, SHARE + 1))
troubles = st.lists(st.sampled_from(Trouble), max_size=2)
splits = st.integers(0, 3)
versions = st.integers(0, 4)


class PerunMachine(RuleBasedStateMachine):
    """The books that an outsider can keep: who paid in what, and what the ledger paid to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scene = Scene()
        self.paid_in: defaultdict[Funding, int] = defaultdict(int)
        self.not_notified: dict[int, tuple[Funding | None, int]] = {}
        self.notified: list[int] = []
        self.settled: dict[bytes, RegisteredState] = {}

    def teardown(self) -> None:
        self.loop.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    # What people do.

    @rule(channel=channels, person=people, e8s=amounts, icrc1=st.booleans())
    def pay(self, channel: Channel, person: Person, e8s: int, icrc1: bool) -> None:
        funding = channel.funding(person)
        memo = funding.memo()
        block = (
            self.scene.transfer(person, e8s, icrc1_memo=memo.to_bytes(8, "little"))
            if icrc1
            else self.scene.transfer(person, e8s, memo)
        )
        self.not_notified[block] = (funding, e8s)

    @rule(person=people, e8s=amounts)
    def pay_without_memo(self, person: Person, e8s: int) -> None:
        self.not_notified[self.scene.transfer(person, e8s)] = (None, e8s)

    @rule(troubles=troubles, then_deposit=st.booleans())
    def notify(self, troubles: list[Trouble], then_deposit: bool) -> None:
        self.scene.line.troubles = troubles
        for block, (funding, e8s) in list(self.not_notified.items()):
            answer = self.run(self.scene.notify(block))
            if funding is None:
                assert answer in {Error.TRANSACTION_TYPE, Error.LEDGER_ERROR}
            else:
                assert answer == e8s
                self.paid_in[funding] += e8s
            del self.not_notified[block]
            self.notified.append(block)
            if then_deposit and funding is not None:
                assert self.scene.canister.deposit(funding, self.scene.now_ns) is None
        self.scene.line.troubles = []

    @rule(channel=channels, person=people)
    def deposit(self, channel: Channel, person: Person) -> None:
        assert self.scene.canister.deposit(channel.funding(person), self.scene.now_ns) in {
            None,
            Error.INSUFFICIENT_FUNDING,
        }

    @rule()
    def notify_again(self) -> None:
        for block in self.notified:
            answer = self.run(self.scene.notify(block))
            assert answer in {Error.DUPLICATE_TRANSACTION, Error.TRANSACTION_TYPE, Error.LEDGER_ERROR}

    @rule(channel=channels, version=versions, split=splits, final=st.booleans())
    def dispute(self, channel: Channel, version: int, split: int, final: bool) -> None:
        self.scene.dispute(channel, channel.signed(version, *allocation(channel, split), final=final))

    @rule(channel=channels, version=versions, split=splits, final=st.booleans())
    def conclude(self, channel: Channel, version: int, split: int, final: bool) -> None:
        self.scene.conclude(channel, channel.signed(version, *allocation(channel, split), final=final))

    @rule(channel=channels, person=people, receiver=people, troubles=troubles)
    def withdraw(self, channel: Channel, person: Person, receiver: Person, troubles: list[Trouble]) -> None:
        self.scene.line.troubles = troubles
        self.run(self.scene.withdraw(channel, person, receiver.principal))
        self.scene.line.troubles = []

    @rule(channel=channels, troubles=troubles)
    def withdraw_all_at_once(self, channel: Channel, troubles: list[Trouble]) -> None:
        self.scene.line.troubles = troubles

        async def everybody() -> None:
            await asyncio.gather(*(self.scene.withdraw(channel, person) for person in PEOPLE * 2))

        self.run(everybody())
        self.scene.line.troubles = []

    @rule(nanoseconds=st.sampled_from((1, HOUR - 1, HOUR, DEDUPLICATION_WINDOW_NS + 1)))
    def time_passes(self, nanoseconds: int) -> None:
        self.scene.pass_time(nanoseconds)

    @rule()
    def upgrade(self) -> None:
        before = self.scene.canister.save()
        self.scene.upgrade()
        assert self.scene.canister.save() == before

    # What holds all the time.

    @invariant()
    def every_e8_in_the_account_is_somebodys(self) -> None:
        unknown = sum(e8s for _, e8s in self.not_notified.values())
        executed = sum(p.e8s for p in open_payouts(self.scene) if self.block_of(p) is not None)
        assert self.scene.pool() == self.scene.canister.owed_e8s + unknown - executed

    @invariant()
    def everybody_has_what_the_settled_state_and_his_own_surplus_give_him(self) -> None:
        for channel in CHANNELS:
            state = self.scene.canister.query_state(channel.id)
            if state is None or not state.settled(self.scene.now_ns):
                for person in PEOPLE:
                    assert self.paid_out(channel, person) == 0
                    assert self.has(channel, person) == self.paid_in[channel.funding(person)]
                continue
            assert self.settled.setdefault(channel.id, state) == state, "what is settled stays"
            has = {person: self.has(channel, person) for person in PEOPLE}
            paid_in = {person: self.paid_in[channel.funding(person)] for person in PEOPLE}
            assert sum(has.values()) == sum(paid_in.values())
            shares = dict(zip(channel.people, state.state.allocation, strict=True))
            for person in PEOPLE:
                share = shares.get(person, 0)
                if state.state.version == 0 or person not in shares:
                    assert has[person] == paid_in[person]
                else:
                    assert share <= has[person] <= share + paid_in[person]

    @invariant()
    def events_tell_each_fact_once(self) -> None:
        for channel in CHANNELS:
            state = self.scene.canister.query_state(channel.id)
            settled = state is not None and state.settled(self.scene.now_ns)
            assert self.scene.events(channel).count("Concluded") == settled

    @invariant()
    def the_log_has_each_registered_channel_once(self) -> None:
        log = self.scene.canister.disputes_since(0, 100)
        registered = [c.id for c in CHANNELS if self.scene.canister.query_state(c.id) is not None]
        assert sorted(entry.channel for entry in log.entries) == sorted(registered)
        indices = [entry.index for entry in log.entries]
        assert indices == sorted(indices)
        assert all(index < log.head for index in indices)

    # The outsider's books.

    def has(self, channel: Channel, person: Person) -> int:
        """Holdings, what waits to be credited, what is on its way, and what was paid out, the fees included."""
        funding = channel.funding(person)
        holdings = self.scene.canister.query_holdings(funding, self.scene.now_ns) or 0
        waiting = self.scene.canister._deposits._waiting.get(funding.memo(), 0)
        open_payout = self.scene.canister._withdrawals.get(funding)
        on_its_way = open_payout.e8s if open_payout is not None and self.block_of(open_payout) is None else 0
        return holdings + waiting + on_its_way + self.paid_out(channel, person)

    def paid_out(self, channel: Channel, person: Person) -> int:
        memo = channel.funding(person).memo()
        return sum(
            block.transaction.operation.amount + FEE
            for block in self.scene.ledger.blocks(0, 100_000)
            if isinstance(block.transaction.operation, Transfer)
            and block.transaction.operation.from_ == self.scene.canister.account
            and block.transaction.memo == memo
        )

    def block_of(self, payout: Payout) -> int | None:
        return self.run(self.scene.line.find_transfer(payout.outgoing, 0))


def allocation(channel: Channel, split: int) -> tuple[int, ...]:
    """Ways to share out what everybody owes; the first is the opening's."""
    count = len(channel.people)
    total = count * SHARE
    return {
        0: (SHARE,) * count,
        1: (total, *(0,) * (count - 1)),
        2: (*(0,) * (count - 1), total),
        3: (SHARE - 1, SHARE + 1, *(SHARE,) * (count - 2)),
    }[split]


def open_payouts(scene: Scene) -> list[Payout]:
    return [*scene.canister._withdrawals.values(), *scene.canister._refunds.values()]


TestPerunMachine = PerunMachine.TestCase
TestPerunMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
