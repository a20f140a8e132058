"""One node in this process, with every part but the control socket, and its peer as a few lines of test.

`crash` drops the node without any of its clean-ups and returns what was on the disk at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from chain.agent import Agent
from chain.clock import SystemClock
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_identifier, principal_from_text, principal_to_text
from perund.config import Config, Ic, Policy
from perund.keys import Keys
from perund.node.canister import WatchedCanister
from perund.node.chain_time import ChainTime
from perund.node.daemon import STORE_NAME
from perund.node.driver import ChannelDriver
from perund.node.node import Node
from perund.node.node_to_come import NodeToCome
from perund.node.payment_ids import PaymentIds
from perund.node.services import Services
from perund.node.transfers import Transfers
from perund.node.trust import CanisterTrust
from perund.recovery.backup import BackupFile
from perund.store.store import Store
from protocol.effects import Phase
from protocol.messages import Ack, ChannelReady, Hello, Message, Resume, Update
from protocol.opening import Opened
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.terms import Terms, network_hash
from protocol.types import Nanos, Params, SignedState, State
from tests.adversarial.house import ICP, House, eventually
from watcher.watch import Watcher
from wire.limits import Limits, Timing
from wire.network import PeerNetwork

__all__ = ["OURS", "THEIRS", "Inhabitant", "Peer"]

OURS: Final = 5 * ICP
THEIRS: Final = 2 * ICP
CHALLENGE_S: Final = 60
HINT_EVERY_S: Final = 0.05
TEMPO: Final = 40
"""How much faster the node waits between two attempts than it would in the real world."""
PEER_PRINCIPAL: Final = b"peer".ljust(28, b".") + b"\x02"


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds / TEMPO)


@dataclass
class Peer:
    """The other participant: agrees to everything. `signed`: every state that both signed, by version."""

    key: ChannelKey
    driver: ChannelDriver
    closes: bool = True
    signed: dict[int, SignedState] = field(default_factory=dict)

    def send(self, message: Message) -> None:
        """Take a message of the node, and answer in a later turn."""
        asyncio.get_running_loop().call_soon(self._react, message)

    def _react(self, message: Message) -> None:
        channel, newest = self.driver.channel.id, self.signed[max(self.signed)]
        match message:
            case Resume():
                phase = message.phase
                digest = newest.state.digest
                resume = Resume(channel, phase, newest.state.version, digest, 0, b"", recovering=False)
                self.driver.receive(self, resume)
            case ChannelReady():
                self.driver.receive(self, ChannelReady(channel))
            case Update() if self.closes or not message.finalized:
                state = State(channel, message.version, message.allocation, message.finalized)
                ours = self.driver.channel.terms.peer_index
                signatures = (message.signature, self.key.sign_state(state))
                assert ours == 1
                self.signed[state.version] = SignedState(state, signatures)
                self.driver.receive(self, Ack(channel, message.version, signatures[1]))
            case _:
                pass


class Inhabitant:
    """A running node. `directory`: with its store; `failures`: what ended it (rule 8)."""

    def __init__(
        self,
        house: House,
        directory: Path,
        name: str = "alice",
        *,
        module_hashes: tuple[str, ...] = (),
        trusted_installs: tuple[int, ...] = (),
    ) -> None:
        self.house = house
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.keys = Keys(name.encode().ljust(32, b"."))
        self.failures: list[Exception] = []
        self.config = Config(
            network="local",
            ic=Ic(
                urls=(house.url,),
                perun_canister=house.info["perun_canister"],
                icp_ledger=house.info["icp_ledger"],
                root_key=house.info["root_key"],
                module_hashes=module_hashes,
                trusted_installs=trusted_installs,
            ),
            policy=Policy(min_challenge_s=1),
        )
        self.services = self._services()
        self.node = Node(self.services, self.failures.append)
        self._later.node = self.node

    def _services(self) -> Services:
        config, keys = self.config, self.keys
        perun_id, ledger_id = principal_from_text(config.ic.perun_canister), principal_from_text(config.ic.icp_ledger)
        network = network_hash(config.root_key, perun_id, ledger_id)
        identity, clock, self._later = Ed25519Identity(keys.wallet_seed), SystemClock(), NodeToCome()
        store = Store(self.directory / STORE_NAME, network, self.failures.append)
        self.agent = Agent(config.ic.urls, config.root_key, identity, clock=clock, pause=_pause)
        perun, ledger = PerunCanister(self.agent, perun_id), IcpLedger(self.agent, ledger_id)
        later, canister = self._later, WatchedCanister(perun)
        time = ChainTime(self.agent, clock, ledger_id)
        self.trust = CanisterTrust(perun, config, store)
        account = account_identifier(identity.sender)
        return Services(
            data_dir=self.directory,
            config=config,
            keys=keys,
            store=store,
            agent=self.agent,
            perun=perun,
            ledger=ledger,
            time=time,
            transfers=Transfers(store, ledger, account, time, config.fees.max_fee_e8s),
            payment_ids=PaymentIds(),
            root_key=config.root_key,
            network_hash=network,
            perun_principal=perun_id,
            ledger_principal=ledger_id,
            wallet_principal=identity.sender,
            wallet_principal_text=principal_to_text(identity.sender),
            wallet_account=account,
            canister_account=account_identifier(perun_id),
            reason_not_to_open=self.trust.reason_not_to_open,
            watcher=Watcher(
                later,
                canister,
                later,
                clock,
                disputes=canister,
                hints=canister,
                hint_every_s=HINT_EVERY_S,
                notices=later,
            ),
            backup=BackupFile(self.directory, keys, network, config, store.read),
            network=PeerNetwork(keys.node_key, Hello(1, network, 0, "test", 1), self._later, Limits(), Timing()),
        )

    def start(self, *, watching: bool = True) -> Inhabitant:
        """Take up what the store has, and run. Without `watching` only the jobs look, in an order that never varies."""
        self.node.load()
        for driver in self.node.drivers.values():
            driver.peer_resumed = True  # as it says at once, wherever it is up
        if watching:
            self.node.spawn(self.services.watcher.run(), "watcher")
        self.node.background()
        return self

    async def stop(self) -> None:
        """End as the daemon does."""
        await self.node.close()
        await self.services.network.close()
        self.services.store.close()
        self.services.store.read._database.close()
        await self.agent.close()
        assert not self.failures, self.failures

    async def crash(self) -> Inhabitant:
        """Die at this moment; return a node, not started, on what the disk had then."""
        copied = self.directory.with_name(self.directory.name + "'")
        copied.mkdir()
        source, target = apsw.Connection(str(self.directory / STORE_NAME)), apsw.Connection(str(copied / STORE_NAME))
        with target.backup("main", source, "main") as backup:
            backup.step()
        source.close()
        target.close()
        await self.stop()  # only to let go of threads and sockets: the copy is made
        return Inhabitant(self.house, copied, self.name)

    # --- a channel ---------------------------------------------------------------------------------------

    @property
    def wallet(self) -> bytes:
        return self.services.wallet_account

    @property
    def canister(self) -> bytes:
        return self.services.canister_account

    @property
    def driver(self) -> ChannelDriver:
        """The one channel that is not closed."""
        (driver,) = self.node.drivers.values()
        return driver

    def agree(self, ours: int = OURS, theirs: int = THEIRS, deadline_s: int = 3600, nonce: bytes = b"n") -> Peer:
        """Have a channel whose state 0 both signed; the node begins to fund it. Returns the peer, not connected."""
        our_share, peer_share = b"1" * 32, b"2" * 32
        key, peer_key = ChannelKey(self.keys.participant_seed(our_share)), ChannelKey(b"peer".ljust(32, b"."))
        params = Params(nonce * 64, (key.public, peer_key.public), Nanos(CHALLENGE_S * 10**9))
        deadline = Nanos(self.house.now_ns + deadline_s * 10**9)
        peer = b"\x02" * 33
        terms = Terms(nonce * 32, peer, 0, params, (ours, theirs), deadline, our_share, peer_share)
        state = terms.state_0()
        signed = SignedState(state, (key.sign_state(state), peer_key.sign_state(state)))
        self.node.open_channel(Opened(terms, signed, None), (), None)
        self.driver.peer_resumed = True
        return Peer(peer_key, self.driver, signed={0: signed})

    def reunite(self, peer: Peer) -> None:
        """Give the peer this node's channel, after a crash."""
        peer.driver = self.driver

    async def peer_pays(self, e8s: int = THEIRS) -> None:
        await self.house.deposit(PEER_PRINCIPAL, self.driver.channel.terms.funding(1), e8s)

    def connect(self, peer: Peer) -> None:
        """Begin a session with the peer."""
        self.driver.session_began(peer, 1)

    async def opened(self, peer: Peer) -> None:
        """Return when the channel is funded and open."""
        await self.until(lambda: self.driver.channel.we_are_ready, "our look at both deposits")
        self.connect(peer)
        await self.until(lambda: self.driver.channel.phase is Phase.OPEN, "an open channel")

    async def open(self) -> Peer:
        """Agree, fund both sides, open."""
        self.house.mint(self.wallet, 20 * ICP)
        peer = self.agree()
        await self.peer_pays()
        await self.opened(peer)
        return peer

    async def pay(self, e8s: int) -> None:
        """Pay the peer once."""
        version = self.driver.channel.version
        payment = Payment(self.services.payment_ids.make(1), e8s, b"")
        self.driver.pay(Batch.of([payment]), None)
        await self.until(lambda: self.driver.durable_newest.state.version > version, "a payment")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Return when something is so. The jobs do not sleep long meanwhile."""
        try:
            await eventually(condition, what)
        except AssertionError as error:
            jobs = [job for jobs in self.node.jobs.values() for job in jobs.of()]
            raise AssertionError(f"{error}; {[(j.name, j.waiting_for, j.problem) for j in jobs]}") from None

    async def closed(self) -> None:
        """Return when the money is out."""
        await self.until(lambda: not self.node.drivers, "the money out")

    def events(self) -> list[str]:
        return [row.kind for row in self.services.store.read.events(0, 10_000)]
