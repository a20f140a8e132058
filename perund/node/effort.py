"""What a peer's message costs this node, in messages: what has no effect, or leads to nothing, counts for many.

The rate of a peer is in messages, and most are cheap and useful. Who sends others is read more slowly; nobody who
keeps to the protocol notices.
"""

from __future__ import annotations

from typing import Final

from protocol.effects import EventRecord, PaymentsEndedRecord, Send, Step
from protocol.messages import ChannelMessage, Decline, Offer, SignedStateMessage
from protocol.payments import PAYMENT_ID_BYTES

__all__ = ["NO_CHANNEL", "OPENING", "RESUME_AGAIN", "effort_of"]

NO_EFFECT: Final = 20.0
DECLINED: Final = 50.0
"""An offer that is declined is a row on our disk."""
KNOWN_BEFORE: Final = 10.0
"""An offer that is in the books already was looked for in vain."""
OFFERS_PER_MESSAGE: Final = 4
"""Offers that wait cost memory and a look each."""
SHOWN_STATE: Final = 100.0
"""Two signatures to verify, mostly for nothing."""
RESUME_AGAIN: Final = 500.0
"""The third `Resume` of a channel in one session, and what it makes us say again."""
NO_CHANNEL: Final = 100.0
OPENING: Final = 50.0


def effort_of(message: ChannelMessage, step: Step) -> float:
    """Return what a message about a channel counts for besides itself, by what it led to."""
    if not step.durable:
        effort = NO_EFFECT + (len(message.payments) // OFFERS_PER_MESSAGE if isinstance(message, Offer) else 0)
    elif isinstance(message, Offer):
        effort = 0.0
        for record in step.durable:
            if isinstance(record, PaymentsEndedRecord):
                effort += DECLINED * len(record.ids) / PAYMENT_ID_BYTES
            elif isinstance(record, EventRecord):
                effort += KNOWN_BEFORE * len(message.payments)
    else:
        return SHOWN_STATE if isinstance(message, SignedStateMessage) else 0.0
    if isinstance(message, SignedStateMessage):
        effort += SHOWN_STATE
    for effect in step.outgoing:
        if isinstance(effect, Send) and isinstance(effect.message, Decline):
            effort += KNOWN_BEFORE * len(effect.message.ids) / PAYMENT_ID_BYTES
    return effort
