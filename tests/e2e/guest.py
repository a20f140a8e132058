"""A peer that is made here and takes part as participant 1: a node proposed the channel, and orders its updates."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from perund.control import schema
from perund.control.methods import CHANNEL_OPEN
from perund.control.values import E8s, Seconds
from perund.demo.processes import NodeProcess
from protocol.messages import (
    Ack,
    ChannelAccept,
    ChannelProposal,
    ChannelReady,
    Offer,
    Resume,
    ResumePhase,
    StateSignature,
    Update,
)
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Params, SignedState, State, channel_nonce
from tests.e2e.peer import Line, Peer
from tests.e2e.town import ICP, within

__all__ = ["GuestLine", "invited"]


@dataclass
class GuestLine:
    """A channel of a peer with a node, seen from participant 1."""

    peer: Peer
    key: ChannelKey
    params: Params
    newest: SignedState

    @property
    def id(self) -> ChannelId:
        """The channel id."""
        return self.params.channel_id

    def resume_message(self) -> Resume:
        """Return what it says of itself after a reconnect, truthfully."""
        state = self.newest.state
        return Resume(self.id, ResumePhase.OPEN, state.version, state.digest, 0, b"", recovering=False)

    async def offered(self, e8s: int) -> Update:
        """Offer a payment to the node; return the update in which it proposes to take it."""
        self.peer.say(Offer(self.id, Batch.of([Payment(os.urandom(16), e8s)])))
        return await self.peer.hear(Update)

    def ack(self, update: Update) -> Ack:
        """Return the acknowledgement of an update."""
        return Ack(self.id, update.version, self.key.sign_state(self.state_of(update)))

    def state_of(self, update: Update) -> State:
        """Return what an update proposes."""
        return State(self.id, update.version, update.allocation, update.finalized)

    async def pay(self, e8s: int) -> None:
        """Pay the node, and keep to the protocol."""
        update = await self.offered(e8s)
        ack = self.ack(update)
        self.newest = SignedState(self.state_of(update), (update.signature, ack.signature))
        self.peer.say(ack)


async def invited(
    peer: Peer, node: NodeProcess, theirs: int = 10 * ICP, mine: int = 10 * ICP, challenge_s: int = 12
) -> GuestLine:
    """Have a node open a channel with this peer: the node puts in `theirs`, the peer `mine`, in e8s."""
    await peer.agent.ensure_time(peer.perun_principal)
    params = schema.ChannelOpenParams(
        peer=peer.network.node_id.hex(),
        mine_e8s=E8s(theirs),
        theirs_e8s=E8s(mine),
        challenge_s=Seconds(challenge_s),
        wait=False,
    )

    async def accept() -> GuestLine:
        proposal = await peer.hear(ChannelProposal)
        key, share = ChannelKey(os.urandom(32)), os.urandom(32)
        peer.say(ChannelAccept(proposal.proposal_id, share, key.public))
        theirs = await peer.hear(StateSignature)
        channel = Params(
            channel_nonce(proposal.nonce_share, share),
            (proposal.participant, key.public),
            proposal.challenge_duration_ns,
        )
        state = State(channel.channel_id, 0, proposal.allocation, finalized=False)
        signed = SignedState(state, (theirs.signature, key.sign_state(state)))
        peer.say(StateSignature(proposal.proposal_id, signed.signatures[1]))
        return GuestLine(peer, key, channel, signed)

    async def both() -> GuestLine:
        line, _ = await asyncio.gather(accept(), node.control.call(CHANNEL_OPEN, params))
        return line

    line = await within(both(), "the opening")
    if mine:
        paid = Line(peer, line.key, line.params, line.newest)
        await paid.deposit(index=1)
    await peer.hear(Resume)
    peer.say(line.resume_message())
    await peer.hear(ChannelReady)
    peer.say(ChannelReady(line.id))
    return line
