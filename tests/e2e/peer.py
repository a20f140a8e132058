"""A peer that is made here, message by message: it keeps to the protocol until a test has it break it.

It proposes channels, so it is participant 0 and orders the updates. Its keys, deposits and signatures are real.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from coincurve import PrivateKey

from chain.agent import Agent
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger, TransferArgs
from chain.perun import PerunCanister
from chain.principal import account_identifier, principal_from_text
from perund.demo.processes import DevnetProcess, NodeProcess
from protocol.messages import (
    Ack,
    ChannelAccept,
    ChannelMessage,
    ChannelProposal,
    ChannelReady,
    ErrorMessage,
    Hello,
    Message,
    OpeningMessage,
    PeerMessage,
    Resume,
    ResumePhase,
    StateSignature,
    Update,
)
from protocol.payments import EMPTY, Batch, Payment
from protocol.signing import ChannelKey, verify
from protocol.terms import network_hash
from protocol.types import ChannelId, Funding, Nanos, Params, SignedState, State, channel_nonce
from tests.e2e.town import FEE, ICP, within
from wire.network import PeerNetwork
from wire.session import Session

__all__ = ["Line", "Peer"]

M = TypeVar("M", bound=OpeningMessage | ChannelMessage | ErrorMessage)
NS: Final = 1_000_000_000


class Peer:
    """A node key, a wallet, and whatever a node said to it."""

    def __init__(self, devnet: DevnetProcess) -> None:
        self.root_key = bytes.fromhex(devnet.root_key)
        self.perun_principal = principal_from_text(devnet.perun_canister)
        ledger = principal_from_text(devnet.icp_ledger)
        self.network_hash = network_hash(self.root_key, self.perun_principal, ledger)
        hello = Hello(1, self.network_hash, 0, "a peer of a test", 1)
        self.network = PeerNetwork(PrivateKey(), hello, self)
        self.wallet = Ed25519Identity(os.urandom(32))
        self.agent = Agent([devnet.url], self.root_key, self.wallet)
        self.perun, self.ledger = PerunCanister(self.agent, self.perun_principal), IcpLedger(self.agent, ledger)
        self.inbox: list[Message] = []
        self._arrived = asyncio.Event()
        self.session: Session

    @property
    def account(self) -> str:
        """Where to send ICP to."""
        return account_identifier(self.wallet.sender).hex()

    async def dial(self, node: NodeProcess) -> Session:
        """Connect, or connect again."""
        assert node.info.listen is not None
        host, _, port = node.info.listen.rpartition(":")
        self.session = await self.network.dial(bytes.fromhex(node.info.node_id), host, int(port))
        return self.session

    async def another_session(self) -> None:
        """End the session, if there still is one, and wait until the node has begun another."""
        ended = self.session
        ended.close("it starts again")

        async def wait() -> None:
            while self.session is ended:
                self._arrived.clear()
                await self._arrived.wait()

        await within(wait(), "another session", 15)

    async def close(self) -> None:
        """Hang up."""
        await self.network.close()
        await self.agent.close()

    def say(self, *messages: OpeningMessage | ChannelMessage) -> None:
        """Send."""
        for message in messages:
            self.session.send(message)

    async def hear(self, kind: type[M], code: str | None = None) -> M:
        """Return the next message of a kind (an error: with this code), and forget those before it."""

        async def wait() -> M:
            while True:
                for position, message in enumerate(self.inbox):
                    if isinstance(message, kind) and code in (None, getattr(message, "code", None)):
                        del self.inbox[: position + 1]
                        return message
                self._arrived.clear()
                await self._arrived.wait()

        try:
            return await within(wait(), f"hearing {kind.__name__} {code or ''}", 15)
        except AssertionError as error:
            raise AssertionError(f"{error}; heard {self.inbox}") from None

    # --- opening -----------------------------------------------------------------------------------------

    async def proposal(self, key: ChannelKey, mine: int, theirs: int = 0, challenge_s: int = 30) -> ChannelProposal:
        """Return a proposal that keeps to every rule: amounts in e8s."""
        await self.agent.ensure_time(self.perun_principal)
        return ChannelProposal(
            proposal_id=os.urandom(32),
            nonce_share=os.urandom(32),
            participant=key.public,
            allocation=(mine, theirs),
            challenge_duration_ns=Nanos(challenge_s * NS),
            funding_deadline_ns=Nanos(self.agent.chain_time() + 600 * NS),
        )

    async def agree(self, mine: int, challenge_s: int = 30) -> Line:
        """Propose a channel and exchange signatures on its state 0."""
        key = ChannelKey(os.urandom(32))
        proposal = await self.proposal(key, mine, challenge_s=challenge_s)
        self.say(proposal)
        accepted = await self.hear(ChannelAccept)
        params = Params(
            channel_nonce(proposal.nonce_share, accepted.nonce_share),
            (key.public, accepted.participant),
            proposal.challenge_duration_ns,
        )
        state = State(params.channel_id, 0, proposal.allocation, finalized=False)
        self.say(StateSignature(proposal.proposal_id, key.sign_state(state)))
        theirs = (await self.hear(StateSignature)).signature
        assert verify(accepted.participant, state.encoded, theirs)
        return Line(self, key, params, SignedState(state, (key.sign_state(state), theirs)))

    async def open(self, mine: int = 50 * ICP) -> Line:
        """Open a channel: its wallet needs `mine` and a fee."""
        line = await self.agree(mine)
        await line.deposit()
        await line.resume()
        await self.hear(ChannelReady)
        self.say(ChannelReady(line.id))
        return line

    # --- wire.handler.PeerHandler ------------------------------------------------------------------------

    def connected(self, session: Session) -> None:
        """Take the newest session: what a node said in the one before of where it stands is said anew."""
        self.session = session
        self.inbox = [message for message in self.inbox if not isinstance(message, Resume)]
        self._arrived.set()

    def received(self, session: Session, message: PeerMessage) -> None:
        """Keep what is said."""
        self._keep(message)

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """Keep a complaint."""
        self._keep(message)

    def disconnected(self, session: Session, reason: str) -> None:
        """Nothing: tests await `session.closed()`."""

    def is_known(self, peer: bytes) -> bool:
        """Everybody is."""
        return True

    def _keep(self, message: Message) -> None:
        self.inbox.append(message)
        self._arrived.set()


@dataclass
class Line:
    """A channel of a peer with a node, seen from participant 0."""

    peer: Peer
    key: ChannelKey
    params: Params
    newest: SignedState

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    @property
    def id(self) -> ChannelId:
        """The channel id."""
        return self.params.channel_id

    async def deposit(self, index: int = 0) -> None:
        """Pay its share (that of participant `index`) and have it credited."""
        peer, funding = self.peer, Funding(self.id, self.key.public)
        args = TransferArgs(
            to=account_identifier(peer.perun_principal),
            amount_e8s=self.newest.state.allocation[index],
            fee_e8s=FEE,
            memo=funding.memo,
            created_at_time_ns=peer.agent.chain_time(),
        )
        block = (await peer.ledger.transfer(args)).value
        assert isinstance(block, int), block
        await peer.perun.transaction_notification(block)
        assert (await peer.perun.deposit(funding)).value is None

    def resume_message(self) -> Resume:
        """Return what it says of itself after a reconnect, truthfully."""
        state = self.newest.state
        return Resume(self.id, ResumePhase.OPEN, state.version, state.digest, 0, b"", recovering=False)

    async def resume(self) -> None:
        """Say and hear `Resume`."""
        await self.peer.hear(Resume)
        self.peer.say(self.resume_message())

    def payment(self, amount: int) -> Payment:
        """Return a payment with an id that is new, and above all earlier ones."""
        return Payment(next(self._numbers).to_bytes(16, "big"), amount)

    def update(self, *payments: Payment, from_1: Batch = EMPTY, finalized: bool = False) -> Update:
        """Return the next update, correct and signed."""
        old, from_0 = self.newest.state, Batch.of(list(payments))
        moved = from_0.total_e8s - from_1.total_e8s
        allocation = (old.allocation[0] - moved, old.allocation[1] + moved)
        unsigned = Update(self.id, old.version + 1, allocation, finalized, from_0, from_1, bytes(64))
        return self.signed(unsigned)

    def signed(self, update: Update) -> Update:
        """Return an update with our signature on the state that it names."""
        state = State(self.id, update.version, update.allocation, update.finalized)
        return replace(update, signature=self.key.sign_state(state))

    async def pay(self, *payments: Payment) -> None:
        """Pay, and check the acknowledgement."""
        await self.exchange(self.update(*payments))

    async def exchange(self, update: Update) -> None:
        """Send an update, and check the acknowledgement."""
        self.peer.say(update)
        ack = await self.peer.hear(Ack)
        state = State(self.id, update.version, update.allocation, update.finalized)
        assert ack.version == update.version
        assert verify(self.params.participants[1], state.encoded, ack.signature)
        self.newest = SignedState(state, (update.signature, ack.signature))
