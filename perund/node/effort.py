"""What a peer's message costs this node, in seconds of its rate: what has no effect, or leads to nothing, costs most.

Most messages are cheap and useful. Who sends others is read more slowly; nobody who keeps to the protocol notices.
"""

from __future__ import annotations

from typing import Final

from protocol.effects import EventRecord, PaymentsEndedRecord, Send, Step
from protocol.messages import ChannelMessage, Decline, Offer, SignedStateMessage, Update
from protocol.payments import PAYMENT_ID_BYTES

__all__ = ["NO_CHANNEL_S", "OPENING_S", "RESUME_AGAIN_S", "SHOWN_STATE_S", "effort_of"]

NO_EFFECT_S: Final = 0.000_4
DECLINED_S: Final = 0.001
"""An offer that is declined is a row on our disk."""
KNOWN_BEFORE_S: Final = 0.000_2
"""An offer that is in the books already was looked for in vain."""
OFFER_S: Final = 0.000_005
"""A payment in a message that changes nothing was read all the same; an offer that waits also costs memory."""
SHOWN_STATE_S: Final = 0.002
"""Two signatures to verify, mostly for nothing."""
RESUME_AGAIN_S: Final = 0.01
"""The fourth `Resume` of a channel in one session, and what it makes us say again."""
NO_CHANNEL_S: Final = 0.002
OPENING_S: Final = 0.001


def effort_of(message: ChannelMessage, step: Step) -> float:
    """Return what a message about a channel counts for besides itself, in seconds, by what it led to."""
    if not step.durable:
        effort = NO_EFFECT_S + _payments_in(message) * OFFER_S
    elif isinstance(message, Offer):
        effort = 0.0
        for record in step.durable:
            if isinstance(record, PaymentsEndedRecord):
                effort += DECLINED_S * len(record.ids) / PAYMENT_ID_BYTES
            elif isinstance(record, EventRecord):
                effort += KNOWN_BEFORE_S * len(message.payments)
    else:
        return SHOWN_STATE_S if isinstance(message, SignedStateMessage) else 0.0
    if isinstance(message, SignedStateMessage):
        effort += SHOWN_STATE_S
    for effect in step.outgoing:
        if isinstance(effect, Send) and isinstance(effect.message, Decline):
            effort += KNOWN_BEFORE_S * len(effect.message.ids) / PAYMENT_ID_BYTES
    return effort


def _payments_in(message: ChannelMessage) -> int:
    match message:
        case Offer():
            return len(message.payments)
        case Update():
            return len(message.from_0) + len(message.from_1)
        case Decline():
            return len(message.ids) // PAYMENT_ID_BYTES
        case _:
            return 0
