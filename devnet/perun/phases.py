"""The life of a channel in the canister: money comes in, a state is registered, it settles.

A channel is `Unregistered`, `Registered`, `Settled`, in this order. Money is never lost on the way: what a phase
holds is the sum of what was credited, less what was paid out.

Whose money it is when more was paid in than a state gives out ("surplus stays with its depositor"):

* State 0 says what each participant owes. What somebody paid beyond his own share of it is his surplus.
* A later state only says what all owe together. What is beyond the sum is surplus of those who paid last.
* Once a state is registered, a credit counts only as far as a registered state 0 still lacks it from the one who
  pays; the rest is surplus. So funding that completes after a registration of state 0 makes later states
  enforceable, and no credit can be lost by being late.
* Credits of somebody who is no participant are his surplus.

An under-funded state 0 gives everybody back what he put in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from devnet.perun.interface import RegisteredState

__all__ = ["Credit", "Phase", "Registered", "Settled", "Unregistered"]


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """Money that a participant paid in, in e8s. Their order is the order of crediting."""

    participant: bytes
    e8s: int


class Unregistered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Only money is known of the channel: its participants show with the first registered state."""

    credits: tuple[Credit, ...] = ()

    def holdings(self, participant: bytes) -> int:
        """Return what a participant paid in, in e8s."""
        return _paid_by(self.credits, participant)

    @property
    def total_e8s(self) -> int:
        """All money of the channel."""
        return _sum(self.credits)

    def credited(self, credit: Credit) -> Unregistered:
        """Return the channel with one more credit."""
        return Unregistered(_appended(self.credits, credit))

    def registered(self, participants: tuple[bytes, ...], new: RegisteredState) -> Registered | None:
        """Return the channel with its first state, None if its funding does not suffice for it."""
        if not self.credits:
            return None  # strangers could register channels without end
        stake = tuple(credit for credit in self.credits if credit.participant in participants)
        strangers = tuple(credit for credit in self.credits if credit.participant not in participants)
        return _covered(Registered(new, participants, stake, _by_participant(strangers)))


class Registered(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A state is registered and can be replaced by a newer one until its timeout.

    `stake`: the credits that count for the state; `surplus`: what else is there, e8s by who paid it.
    """

    state: RegisteredState
    participants: tuple[bytes, ...]
    stake: tuple[Credit, ...]
    surplus: Mapping[bytes, int]

    def holdings(self, participant: bytes) -> int:
        """Return what a participant paid in, in e8s: nothing is given out before the state stands."""
        return _paid_by(self.stake, participant) + self.surplus.get(participant, 0)

    @property
    def total_e8s(self) -> int:
        """All money of the channel."""
        return _sum(self.stake) + sum(self.surplus.values())

    def credited(self, credit: Credit) -> Registered:
        """Return the channel with one more credit."""
        counted = min(credit.e8s, self._lacks(credit.participant))
        stake = _appended(self.stake, Credit(credit.participant, counted)) if counted else self.stake
        rest = Credit(credit.participant, credit.e8s - counted)
        return msgspec.structs.replace(self, stake=stake, surplus=_with(self.surplus, (rest,)))

    def registered(self, participants: tuple[bytes, ...], new: RegisteredState) -> Registered | None:
        """Return the channel with a newer state, None if its funding does not suffice for it."""
        return _covered(Registered(new, participants, self.stake, self.surplus))

    def settled(self) -> Settled:
        """Return the channel with its money given out as the state says."""
        state = self.state.state
        given = _by_participant(self.stake) if state.version == 0 else self.shares()
        shares = [Credit(who, e8s) for who, e8s in given.items()]
        return Settled(self.state, _with(self.surplus, shares))

    def shares(self) -> dict[bytes, int]:
        """Return what the state gives to each participant. Who stands in it twice has the sum, and owes it."""
        together: defaultdict[bytes, int] = defaultdict(int)
        for who, e8s in zip(self.participants, self.state.state.allocation, strict=True):
            together[who] += e8s
        return dict(together)

    def _lacks(self, participant: bytes) -> int:
        if self.state.state.version > 0:
            return 0
        return max(0, self.shares().get(participant, 0) - _paid_by(self.stake, participant))


class Settled(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The state stands. `left`: e8s that each participant may still withdraw; nothing at zero.

    When `left` is empty this is all that stays of a channel: its id can never be registered again.
    """

    state: RegisteredState
    left: Mapping[bytes, int]

    def holdings(self, participant: bytes) -> int:
        """Return what a participant may still withdraw, in e8s."""
        return self.left.get(participant, 0)

    @property
    def total_e8s(self) -> int:
        """All money of the channel."""
        return sum(self.left.values())

    def credited(self, credit: Credit) -> Settled:
        """Return the channel with one more credit, which its depositor may withdraw."""
        return Settled(self.state, _with(self.left, (credit,)))

    def without(self, participant: bytes) -> Settled:
        """Return the channel without what a participant holds."""
        return Settled(self.state, {who: e8s for who, e8s in self.left.items() if who != participant})


Phase = Unregistered | Registered | Settled


def _covered(channel: Registered) -> Registered | None:
    """Return the channel with its surplus set apart, None if its stake does not suffice for its state."""
    state = channel.state.state
    stake, surplus = (_beyond_shares if state.version == 0 else _beyond_sum)(channel)
    missing = sum(state.allocation) - _sum(stake)
    # Only the state that everybody signed before paying may lack money: it is how funding is taken back. Who is alone
    # in a channel, twice, needs none: he can sign what is there.
    alone_twice = len(channel.participants) > 1 == len(set(channel.participants))
    if missing > 0 and (state.version > 0 or state.finalized or alone_twice):
        return None
    return msgspec.structs.replace(channel, stake=stake, surplus=_with(channel.surplus, surplus))


def _beyond_shares(channel: Registered) -> tuple[tuple[Credit, ...], tuple[Credit, ...]]:
    """Return stake and surplus when each participant owes his share."""
    stake = channel.stake
    surplus: list[Credit] = []
    for who, share in channel.shares().items():
        excess = _paid_by(stake, who) - share
        stake, taken = _take_latest(stake, excess, {who})
        surplus += taken
    return stake, tuple(surplus)


def _beyond_sum(channel: Registered) -> tuple[tuple[Credit, ...], tuple[Credit, ...]]:
    """Return stake and surplus when all owe the sum together."""
    excess = _sum(channel.stake) - sum(channel.state.state.allocation)
    stake, surplus = _take_latest(channel.stake, excess, set(channel.participants))
    return stake, tuple(surplus)


def _take_latest(
    credits_: tuple[Credit, ...], e8s: int, whose: set[bytes]
) -> tuple[tuple[Credit, ...], tuple[Credit, ...]]:
    """Return what stays and what is taken when `e8s` are taken off the latest credits of `whose`."""
    stays: list[Credit] = []
    taken: list[Credit] = []
    for credit in reversed(credits_):
        part = min(credit.e8s, max(0, e8s)) if credit.participant in whose else 0
        e8s -= part
        if part:
            taken.append(Credit(credit.participant, part))
        if part < credit.e8s:
            stays.append(Credit(credit.participant, credit.e8s - part))
    return tuple(reversed(stays)), tuple(taken)


def _appended(credits_: tuple[Credit, ...], credit: Credit) -> tuple[Credit, ...]:
    # Credits of one participant in a row are one: only the order between participants matters.
    if credits_ and credits_[-1].participant == credit.participant:
        return (*credits_[:-1], Credit(credit.participant, credits_[-1].e8s + credit.e8s))
    return (*credits_, credit)


def _with(money: Mapping[bytes, int], more: Iterable[Credit]) -> dict[bytes, int]:
    together: defaultdict[bytes, int] = defaultdict(int, money)
    for credit in more:
        together[credit.participant] += credit.e8s
    return {who: e8s for who, e8s in sorted(together.items()) if e8s}


def _by_participant(credits_: Iterable[Credit]) -> dict[bytes, int]:
    return _with({}, credits_)


def _paid_by(credits_: Iterable[Credit], participant: bytes) -> int:
    return sum(credit.e8s for credit in credits_ if credit.participant == participant)


def _sum(credits_: Iterable[Credit]) -> int:
    return sum(credit.e8s for credit in credits_)
