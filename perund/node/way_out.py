"""How the money comes out of a channel without the peer, in words for its operator. See `protocol.standing`."""

from __future__ import annotations

from typing import assert_never

from perund.durations import format_duration
from protocol.channel import Channel
from protocol.effects import Phase
from protocol.standing import WayOut, way_out

__all__ = ["way_out_text"]

SHORT = 16


def way_out_text(channel: Channel, force_after_ns: int, forced_at: str) -> str | None:
    """Return what brings the money out, with the command to give if one is needed; None when it is out.

    `force_after_ns`: how long the peer has to close together; `forced_at`: when that ends, if the channel closes now.
    """
    name = channel.id.hex()[:SHORT]
    found = way_out(channel)
    match found:
        case None:
            return None
        case WayOut.DEADLINE:
            return "by itself: without both deposits at the funding deadline the node takes its own back"
        case WayOut.AT_WILL:
            patience = format_duration(force_after_ns // 1_000_000_000)
            return f"`perun close {name}`: the node settles alone when the peer does not take part within {patience}"
        case WayOut.FORCED:
            when = forced_at if channel.phase is Phase.CLOSING else "soon"
            return f"by itself: the node settles alone {when}; `perun dispute {name}` does it now"
        case WayOut.SETTLES if channel.outlived and channel.recovering:
            return "a newer life of this node takes it out; if this is the one to keep: `perun run --take-over`"
        case WayOut.SETTLES:
            return "by itself: the node settles it on the canister and withdraws"
        case WayOut.TOWERS:
            return (
                f"watchtowers are asked for two minutes at most, then `perun recover {name}`; "
                f"`perun dispute {name} --accept-risk` settles alone with version {channel.version}"
            )
        case WayOut.PROVEN:
            return (
                "the node ends the loss with the peer; without the peer "
                f"`perun dispute {name} --accept-risk` settles with version {channel.version}"
            )
        case WayOut.UNPROVEN:
            return (
                f"`perun recover {name}` shows what is known; with `--accept` it closes with the peer, and "
                f"`perun dispute {name} --accept-risk` settles alone with version {channel.version}"
            )
        case WayOut.RISK:
            return f"`perun dispute {name} --accept-risk` settles alone with version {channel.version}"
        case _:
            assert_never(found)
