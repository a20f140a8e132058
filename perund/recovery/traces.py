"""Whether the node of a phrase had channels: the words bring back its identity and its wallet, and no channel.

What the words alone lead to is the wallet: the ledger shows what went from it into the Perun canister and what came
back. A channel in which the peer alone put money in leaves no such trace; its peer knows it, and says so in a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version as package_version
from typing import Final

from chain.agent import Agent
from chain.errors import ChainError
from chain.identity import Anonymous, Ed25519Identity
from chain.ledger import Block, IcpLedger, Transfer
from chain.principal import account_identifier, principal_from_text
from perund.config import Config
from perund.keys import Keys
from perund.node.ledger_scan import find_block
from perund.setup_errors import SetupError
from protocol.messages import ChannelMessage, ErrorMessage, Hello, PeerMessage
from wire.address import NodeAddress
from wire.errors import DialFailed
from wire.network import PeerNetwork
from wire.session import Session

__all__ = ["ChannelsAreLeft", "require_no_traces"]

MOST_BLOCKS: Final = 5_000
"""A longer ledger is not read: a devnet's is shorter, and the Internet Computer's would take hours."""
PATIENCE_S: Final = 60.0
PEER_S: Final = 5.0
"""How long a peer has to say that it has channels with us: it does so first in each session."""
PROTOCOL_VERSION: Final = 1
WHAT_TO_DO: Final = (
    "`perund restore --backup backup.perund --phrase-file FILE` makes the node with its channels; with the words alone "
    "nobody would watch them, and whoever has an old state could take their money. If no channel is open any more, or "
    "there never was one, say so with --without-channels"
)


class ChannelsAreLeft(SetupError):
    """A node with these words has channels, or nobody can tell that it has none."""

    def __init__(self, what: str) -> None:
        super().__init__(what, WHAT_TO_DO)


async def require_no_traces(config: Config, keys: Keys, peers: Sequence[NodeAddress]) -> None:
    """Return when ledger and peers were asked, and show no channel of the node with these keys.

    `peers`: nodes that it may have channels with. Raises `ChannelsAreLeft`.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            await _ask_ledger(config, keys)
    except TimeoutError as error:
        raise ChannelsAreLeft(f"the ledger did not show within {PATIENCE_S:g} s whether this node had any") from error
    except ChainError as error:
        raise ChannelsAreLeft(f"the ledger cannot be asked whether this node had any channels: {error}") from error
    for peer in peers:
        await _ask_peer(config, keys, peer)


async def _ask_ledger(config: Config, keys: Keys) -> None:
    canister = account_identifier(principal_from_text(config.ic.perun_canister))
    wallet = account_identifier(Ed25519Identity(keys.wallet_seed).sender)

    def is_trace(block: Block) -> bool:
        operation = block.operation
        return isinstance(operation, Transfer) and {operation.from_, operation.to} == {wallet, canister}

    async with Agent(config.ic.urls, config.root_key, Anonymous()) as agent:
        ledger = IcpLedger(agent, principal_from_text(config.ic.icp_ledger))
        length = (await ledger.chain_length()).value
        if length > MOST_BLOCKS:
            raise ChannelsAreLeft(
                f"the ledger has {length} blocks, too many to look through for channels of this node (an explorer of "
                f"the ledger shows whether account {wallet.hex()} ever had to do with account {canister.hex()})"
            )
        found, tip_ns = await find_block(ledger, 0, is_trace)
    if found is not None:
        raise ChannelsAreLeft(
            f"the wallet of these words has had channels: block {found.index} of the ledger is a transfer between it "
            "and the Perun canister"
        )
    if not tip_ns:
        raise ChannelsAreLeft("the ledger did not show all its blocks: whether this node had any channels is unknown")


class _Listener:
    """Hears what a peer says at the beginning of a session. Implements `wire.handler.PeerHandler`."""

    def __init__(self) -> None:
        self.spoke: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connected(self, session: Session) -> None: ...

    def disconnected(self, session: Session, reason: str) -> None: ...

    def received(self, session: Session, message: PeerMessage) -> None:
        """Take note of a channel; nothing is answered."""
        del session
        if isinstance(message, ChannelMessage) and not self.spoke.done():
            self.spoke.set_result(None)

    def peer_error(self, session: Session, message: ErrorMessage) -> None: ...

    def is_known(self, peer: bytes) -> bool:
        """Return that the one which is asked has room."""
        del peer
        return True


async def _ask_peer(config: Config, keys: Keys, peer: NodeAddress) -> None:
    shown = f"{peer.node_id.hex()[:16]}… at {peer.place}"
    hello = Hello(PROTOCOL_VERSION, config.network_hash, 0, f"perund/{package_version('perund')}", 1)
    listener = _Listener()
    peers = PeerNetwork(keys.node_key, hello, listener)
    try:
        await peers.dial(peer.node_id, peer.host, peer.port)
        async with asyncio.timeout(PEER_S):
            await listener.spoke
    except DialFailed as error:
        raise ChannelsAreLeft(f"the peer {shown} cannot be asked whether it has channels with it: {error}") from error
    except TimeoutError:
        return
    finally:
        await peers.close()
    raise ChannelsAreLeft(f"the peer {shown} has a channel with the node of these words")
