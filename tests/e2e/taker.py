"""A peer of a test that accepts channels: participant 1, which acknowledges what it likes, when it likes."""

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
    CloseRequest,
    Confirm,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
    StateSignature,
    Update,
)
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Params, SignedState, State, channel_nonce
from tests.e2e.peer import Peer
from tests.e2e.town import free_port

__all__ = ["Taken", "Taker"]


class Taker(Peer):
    """Listens, so that a node can propose to it."""

    async def listen(self) -> str:
        """Return NODEID@host:port."""
        host, port = await self.network.listen("127.0.0.1", free_port())
        return f"{self.network.node_id.hex()}@{host}:{port}"

    async def take(self, node: NodeProcess, mine_e8s: int, challenge_s: int = 12) -> Taken:
        """Have a node open a channel, and accept it: everything is the node's."""
        params = schema.ChannelOpenParams(
            peer=await self.listen(),
            mine_e8s=E8s(mine_e8s),
            theirs_e8s=E8s(0),
            challenge_s=Seconds(challenge_s),
            wait=False,
        )
        _, taken = await asyncio.gather(node.control.call(CHANNEL_OPEN, params), self._answer())
        return taken

    async def _answer(self) -> Taken:
        key, proposal = ChannelKey(os.urandom(32)), await self.hear(ChannelProposal)
        accepted = ChannelAccept(proposal.proposal_id, os.urandom(32), key.public)
        self.say(accepted)
        nonce = channel_nonce(proposal.nonce_share, accepted.nonce_share)
        params = Params(nonce, (proposal.participant, key.public), proposal.challenge_duration_ns)
        state = State(params.channel_id, 0, proposal.allocation, finalized=False)
        theirs = (await self.hear(StateSignature)).signature
        ours = key.sign_state(state)
        self.say(StateSignature(proposal.proposal_id, ours))
        taken = Taken(self, key, params, SignedState(state, (theirs, ours)))
        await self.hear(Resume)
        taken.resume()
        await self.hear(ChannelReady)
        self.say(ChannelReady(taken.id))
        return taken


@dataclass
class Taken:
    """A channel, seen from participant 1."""

    peer: Taker
    key: ChannelKey
    params: Params
    newest: SignedState

    @property
    def id(self) -> ChannelId:
        """The channel id."""
        return self.params.channel_id

    def resume(self, signed: SignedState | None = None, *, recovering: bool = False) -> None:
        """Say `Resume` with a state as the newest: the true one, or another."""
        state = (signed or self.newest).state
        phase = ResumePhase.CLOSING if recovering else ResumePhase.OPEN
        self.peer.say(Resume(self.id, phase, state.version, state.digest, 0, b"", recovering))

    async def again(self, signed: SignedState | None = None, *, recovering: bool = False) -> Resume:
        """Let the node connect anew and resume, with a state as the newest. Returns what the node says."""
        await self.peer.another_session()
        heard = await self.peer.hear(Resume)
        self.resume(signed, recovering=recovering)
        return heard

    def completed(self, update: Update) -> SignedState:
        """Sign what the node proposed, and keep it."""
        state = State(self.id, update.version, update.allocation, update.finalized)
        return SignedState(state, (update.signature, self.key.sign_state(state)))

    def acknowledge(self, signed: SignedState) -> None:
        """Say `Ack`."""
        self.newest = signed
        self.peer.say(Ack(self.id, signed.state.version, signed.signatures[1]))

    def show(self, signed: SignedState) -> None:
        """Say `SignedStateMessage`."""
        state = signed.state
        self.peer.say(SignedStateMessage(self.id, state.version, state.allocation, state.finalized, *signed.signatures))

    def ask_to_close(self) -> None:
        """Say `CloseRequest`."""
        self.peer.say(CloseRequest(self.id))

    async def pay(self, payment: Payment) -> Update:
        """Offer a payment, and acknowledge the update that includes it."""
        self.peer.say(Offer(self.id, Batch.of([payment])))
        update = await self.peer.hear(Update)
        assert payment in list(update.from_1)
        self.acknowledge(self.completed(update))
        await self.peer.hear(Confirm)
        return update
