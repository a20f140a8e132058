"""What is known of a channel whose data may be lost, for its operator to decide on (rule 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perund.control import schema
from perund.control.values import E8s

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.node import Node

__all__ = ["recovery_view"]


def recovery_view(node: Node, driver: ChannelDriver, shown: schema.Channel) -> schema.Recovery:
    """Return what this node, its towers, its peer and the canister say. `shown`: the channel as it is shown always."""
    channel = driver.channel
    newest, ours, theirs = channel.newest.state, channel.ours, channel.terms.peer_index
    proposed = channel.proposed_end
    proposal = None
    if proposed is not None:
        proposal = schema.ProposedEnd(
            version=proposed.version,
            mine_e8s=E8s(proposed.allocation[ours]),
            theirs_e8s=E8s(proposed.allocation[theirs]),
            as_ours=proposed.allocation == newest.allocation,
        )
    answers = node.towers.answers(channel.id)
    return schema.Recovery(
        channel=channel.id.hex(),
        recovering=channel.recovering,
        why=channel.frozen or None,
        version=newest.version,
        mine_e8s=E8s(newest.allocation[ours]),
        theirs_e8s=E8s(newest.allocation[theirs]),
        proven=channel.loss_is_proven,
        towers_asked=not channel.awaits_towers,
        towers=[
            schema.TowerAnswer(tower=tower.hex(), answered=tower in answers, version=answers.get(tower))
            for tower in node.towers.links
        ],
        peer_connected=driver.online,
        peer_version=channel.peer_version,
        proposal=proposal,
        registered=shown.registered,
        at_risk_e8s=E8s(newest.allocation[theirs]),
        way_out=shown.way_out,
    )
