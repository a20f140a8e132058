"""What arrived under our memo from somebody else: it counts as ours, and the books say so."""

from __future__ import annotations

from typing import Final

from perund.store.jobs import book_credit
from perund.store.reading import Reader
from perund.store.writer import Statement
from protocol.channel import Channel
from protocol.effects import EventRecord
from protocol.funding import IntentStatus

__all__ = ["PAID_BY_OTHERS", "records_of_gifts"]

PAID_BY_OTHERS: Final = "paid by others"


def records_of_gifts(
    read: Reader, channel: Channel, number: int, gross_e8s: int, share_e8s: int
) -> tuple[Statement | EventRecord, ...]:
    """Return what is to be written down when more is there than this node paid for; nothing otherwise.

    `gross_e8s`: what the canister holds for us, or paid out to us before fees; `share_e8s`: our share in the state
    that this follows from. What the channel won or lost us is no gift: it is taken out. Booked once, however often
    it is asked. Nothing of a channel that may lack records: without the one of our own deposit, or with that of a
    deposit found later, our own money would be booked as somebody else's.
    """
    if channel.may_lack_records:
        return ()
    terms = channel.terms
    paid = sum(d.amount_e8s for d in read.deposits(number) if d.status is IntentStatus.CREDITED)
    gifts = gross_e8s - (share_e8s - terms.allocation[terms.our_index]) - paid
    news = gifts - sum(c.amount_e8s for c in read.credits(number) if c.what == PAID_BY_OTHERS)
    if news <= 0:
        return ()
    return (
        book_credit(number, PAID_BY_OTHERS, news),
        EventRecord("channel.paid_by_others", terms.channel, {"amount_e8s": str(news)}),
    )
