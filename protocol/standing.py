"""Where a channel stands, and how the money comes out of it without the peer: no standing is a dead end.

Either the node goes on by itself, or its operator has a command that works in that standing: docs/operating.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from protocol.channel import Channel
from protocol.effects import Phase

__all__ = ["AUTOMATIC", "WayOut", "way_out"]


class WayOut(StrEnum):
    """The next thing that brings the money out when the peer says nothing more."""

    DEADLINE = "deadline"
    """The channel opens, or its funding deadline passes and the node takes its deposit back."""
    AT_WILL = "at_will"
    """It works. Whoever wants the money closes it: together, or alone when the peer does not take part in time."""
    FORCED = "forced"
    """It closes. When the peer does not take part in time, the node settles alone."""
    SETTLES = "settles"
    """The node settles it: a state is, or is to be, registered; after the challenge period the money is withdrawn."""
    TOWERS = "towers"
    """The node may have lost data, and asks its watchtowers first; then it is `PROVEN` or `UNPROVEN`."""
    PROVEN = "proven"
    """The node lost data, and ends that with the peer on the shares of the newest state. Without the peer its operator
    disputes with that state.
    """
    UNPROVEN = "unproven"
    """The node may have lost data, and nothing shows the newest state: its operator declares his that, or disputes."""
    RISK = "risk"
    """The node may have lost data of a channel that is not open, or is settled alone: its operator takes the risk."""


AUTOMATIC: Final = frozenset({WayOut.DEADLINE, WayOut.FORCED, WayOut.SETTLES, WayOut.TOWERS})
"""Those in which the node needs nobody."""


def way_out(channel: Channel) -> WayOut | None:
    """Return how the money comes out of a channel when the peer says nothing more; None when it is out."""
    if channel.phase is Phase.CLOSED:
        return None
    registered = channel.look is not None and channel.look.version is not None
    if registered or channel.final is not None:
        return WayOut.SETTLES
    if channel.recovering:
        if channel.outlived or channel.phase not in (Phase.OPEN, Phase.CLOSING):
            return WayOut.RISK
        if channel.awaits_towers:
            return WayOut.TOWERS
        return WayOut.PROVEN if channel.loss_is_proven else WayOut.UNPROVEN
    match channel.phase:
        case Phase.FUNDING:
            return WayOut.DEADLINE
        case Phase.LEAVING:
            return WayOut.SETTLES
        case Phase.CLOSING:
            return WayOut.FORCED
        case Phase.OPEN:
            return WayOut.FORCED if channel.frozen else WayOut.AT_WILL
