"""What became of payments that were asked for, by independent looks: callers, both nodes' lists, stores and ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from perund.control.schema import Payment

__all__ = ["Asked", "Comparison", "End", "Purse", "compare"]

End = Literal["asked", "delivered", "ended", "refused"]
"""What a caller was told: nothing yet; delivered; at least one of the order was not; nothing was taken up."""

MAY_END: Final = frozenset({("failed", "channel_closed"), ("failed", "settled_without_it")})
"""How a payment may end without being delivered when both sides are honest and have money: the channel ended first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A payment as its caller remembers it."""

    channel: str
    sender: str
    amount_e8s: int
    memo: str | None
    end: End

    @property
    def name(self) -> str:
        """What tells it from others: its memo; of one without, its amount."""
        return self.memo or f"{self.amount_e8s} e8s"


@dataclass(frozen=True, slots=True)
class Purse:
    """Money of a node in one place, before and after: its share of a channel, or its wallet (`channel` is None)."""

    owner: str
    channel: str | None
    before_e8s: int
    after_e8s: int
    fees_e8s: int = 0


@dataclass
class Comparison:
    """Everything that does not agree. Lost: asked for, said to be delivered (or taken up), and not there.

    `others`: what is neither lost nor doubled nor a sum, and still must not be.
    """

    delivered: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unaccounted: list[tuple[str, int]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def unaccounted_e8s(self) -> int:
        """How far the sums are off, all together."""
        return sum(abs(e8s) for _, e8s in self.unaccounted)

    def __str__(self) -> str:
        return (
            f"payments {self.delivered}, lost {len(self.lost)}, doubled {len(self.doubled)}, "
            f"e8s unaccounted {self.unaccounted_e8s}"
        )

    @property
    def wrong(self) -> list[str]:
        """A line for everything that does not agree."""
        return [
            *(f"lost: {what}" for what in self.lost),
            *(f"doubled: {what}" for what in self.doubled),
            *(f"{e8s:+} e8s: {where}" for where, e8s in self.unaccounted),
            *self.others,
        ]


def compare(asked: Iterable[Asked], listed: Mapping[str, Sequence[Payment]], purses: Iterable[Purse]) -> Comparison:
    """Compare what was asked for with what two nodes list, and with where the money is. `listed`: by node."""
    found = Comparison()
    flows: defaultdict[tuple[str, str], list[Asked]] = defaultdict(list)
    for payment in asked:
        flows[payment.channel, payment.sender].append(payment)
    for node, payments in listed.items():
        for listing in payments:
            sender = node if listing.direction == "sent" else _other(node, listed)
            flows.setdefault((listing.channel, sender), [])
    moved: Counter[tuple[str | None, str]] = Counter()
    for (channel, sender), wanted in flows.items():
        receiver = _other(sender, listed)
        sent = [p for p in listed[sender] if (p.channel, p.direction) == (channel, "sent")]
        received = [p for p in listed[receiver] if (p.channel, p.direction) == (channel, "received")]
        e8s = _compare_flow(found, f"{sender} in {channel[:8]}", wanted, sent, received)
        for place in (channel, None):
            moved[place, sender] -= e8s
            moved[place, receiver] += e8s
    for purse in purses:
        expected = purse.before_e8s + moved[purse.channel, purse.owner] - purse.fees_e8s
        where = f"{purse.owner}'s " + (f"share of {purse.channel[:8]}" if purse.channel else "wallet")
        _note_sum(found, where, purse.after_e8s - expected)
    return found


def _compare_flow(
    found: Comparison, where: str, wanted: list[Asked], sent: list[Payment], received: list[Payment]
) -> int:
    """Compare one direction of one channel. Returns what moved by what was asked for, in e8s."""
    delivered = Counter(p.name for p in wanted if p.end == "delivered")
    ended = Counter(p.name for p in wanted if p.end == "ended")
    taken_up = delivered + ended
    arrived = Counter(_name(p) for p in received if p.status == "delivered")
    on_books = Counter(_name(p) for p in sent)

    missing = (delivered - arrived) | (taken_up - on_books)
    surplus = (arrived - taken_up) | (on_books - taken_up)
    found.lost += [f"{name} of {where}" for name in missing.elements()]
    found.doubled += [f"{name} of {where}" for name in surplus.elements() if name in taken_up]
    found.others += [f"{name} of {where}: nothing promised it" for name in surplus.elements() if name not in taken_up]
    found.others += [f"{p.name} of {where} was never answered" for p in wanted if p.end == "asked"]
    _compare_lists(found, where, sent, received)

    prices = {p.name: p.amount_e8s for p in wanted}
    by_asking = delivered + ((arrived - delivered) & ended)
    expected = sum(prices[name] * count for name, count in by_asking.items())
    _note_sum(found, f"listed by the receiver of {where}", _sum(received) - expected)
    _note_sum(found, f"listed by the sender, {where}", _sum(sent) - expected)
    found.delivered += by_asking.total()
    return expected


def _compare_lists(found: Comparison, where: str, sent: list[Payment], received: list[Payment]) -> None:
    """Compare both nodes' lists of the same payments: the same ids, each once, with the same amounts and memos."""
    for side, payments in (("sender", sent), ("receiver", received)):
        often = Counter(p.payment for p in payments)
        found.doubled += [f"id {i} in the {side}'s list, {where}" for i, count in often.items() if count > 1]
    ours, theirs = (
        {p.payment: (int(p.amount_e8s), p.memo) for p in side if p.status == "delivered"} for side in (sent, received)
    )
    for payment in ours.keys() | theirs.keys():
        if ours.get(payment) != theirs.get(payment):
            found.others.append(f"{payment} of {where}: sent {ours.get(payment)}, received {theirs.get(payment)}")
    for end in sent:
        if end.status == "delivered":
            continue
        found.ended[f"{end.status}: {end.code}"] += 1
        if (end.status, end.code) not in MAY_END:
            found.others.append(f"{end.payment} of {where} is {end.status}: {end.code}")


def _note_sum(found: Comparison, where: str, off_e8s: int) -> None:
    if off_e8s:
        found.unaccounted.append((where, off_e8s))


def _sum(payments: list[Payment]) -> int:
    return sum(p.amount_e8s for p in payments if p.status == "delivered")


def _name(payment: Payment) -> str:
    return payment.memo or f"{payment.amount_e8s} e8s"


def _other(node: str, listed: Mapping[str, Sequence[Payment]]) -> str:
    (other,) = listed.keys() - {node}
    return other
