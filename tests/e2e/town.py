"""A town for end-to-end tests: a devnet, nodes as processes of their own, and an eye on them that trusts no node."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec

from chain.agent import Agent
from chain.identity import Anonymous
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_from_text, account_identifier, principal_from_text
from perund.config import Config
from perund.config_file import write_config
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.methods import CHANNEL_CLOSE, CHANNEL_GET, CHANNEL_OPEN, CHANNEL_PAY, PAYMENT_LIST
from perund.control.values import E8s, PaidE8s, Seconds
from perund.demo.processes import PASSPHRASE, DevnetProcess, NodeProcess
from perund.keystore import FILE_NAME as KEYSTORE_NAME
from perund.keystore import KeyStore, ScryptCost
from perund.mnemonic import new_entropy
from perund.node.daemon import STORE_NAME
from perund.private_file import make_private_dir
from perund.store.reading import Reader, open_reader
from perund.store.rows import ChannelRow
from protocol.types import ChannelId, SignedState

__all__ = ["FEE", "ICP", "LOOK_AGAIN_S", "PATIENCE_S", "Town", "free_port", "within"]

ICP: Final = 100_000_000
FEE: Final = 10_000
"""What the ledger takes for a transfer, in e8s."""
PATIENCE_S: Final = 40.0
"""How long anything may take. Nothing takes that long unless it is broken."""
LOOK_AGAIN_S: Final = 0.03

T = TypeVar("T")
_PORTS: Final = itertools.count(20_000 + os.getpid() % 400 * 25)


def free_port() -> int:
    """Return a port for a node that keeps it across restarts: below those that the system hands out by itself."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port is taken")


async def within(work: Awaitable[T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return what `work` comes to, or fail by saying what did not happen."""
    try:
        return await asyncio.wait_for(work, patience_s)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {patience_s:g} s") from None


class Town:
    """One Internet Computer and whoever lives on it. `perun` and `ledger` trust no node: they look for themselves."""

    devnet: DevnetProcess
    perun: PerunCanister
    ledger: IcpLedger

    def __init__(self, directory: Path, cabinet: Path) -> None:
        """`cabinet`: where keys are kept from one town to the next."""
        self.directory = directory
        self.cabinet = cabinet
        self.nodes: dict[str, NodeProcess] = {}
        self.minted_e8s = 0
        self.minted_to: dict[str, int] = {}
        self._readers: dict[str, Reader] = {}

    async def found(self) -> Town:
        """Start the devnet."""
        self.devnet = await DevnetProcess(self.directory).start()
        self._agent = Agent([self.devnet.url], bytes.fromhex(self.devnet.root_key), Anonymous())
        self.perun = PerunCanister(self._agent, principal_from_text(self.devnet.perun_canister))
        self.ledger = IcpLedger(self._agent, principal_from_text(self.devnet.icp_ledger))
        return self

    async def leave(self) -> None:
        """Stop everything. A node must end well, whatever the test did to it."""
        try:
            for node in self.nodes.values():
                if node.returncode is None:
                    assert await node.stop() == 0, node.log.read_text()[-2000:]
        finally:
            for node in self.nodes.values():
                await node.kill()
            await self._agent.close()
            await self.devnet.stop()

    # --- nodes -------------------------------------------------------------------------------------------

    async def node(
        self,
        name: str,
        *,
        icp: int = 300,
        contributes: int = 0,
        root_key: str | None = None,
        wrapper: tuple[str, ...] = (),
    ) -> NodeProcess:
        """Make a node, start it and fill its wallet. `contributes`: what its policy allows, in ICP."""
        node = NodeProcess(self.directory, name)
        node.wrapper = wrapper
        self.nodes[name] = node
        self._make(node.dir, contributes * ICP, root_key or self.devnet.root_key)
        await node.start()
        self.minted_to[name] = icp * ICP
        if icp:
            await self.mint(node.info.account, icp * ICP)
        return node

    def _make(self, directory: Path, contributes_e8s: int, root_key: str) -> None:
        """Do what `perund init` does, but with keys that were made once: making them is slow on purpose.

        `test_by_hand` and the demo run the command itself.
        """
        table = {
            "network": "local",
            "ic": {
                "urls": [self.devnet.url],
                "perun_canister": self.devnet.perun_canister,
                "icp_ledger": self.devnet.icp_ledger,
                "root_key": root_key,
            },
            "wire": {"listen": f"127.0.0.1:{free_port()}"},
            "policy": {"contribute_max_e8s": contributes_e8s},
        }
        config = msgspec.convert(table, Config)
        make_private_dir(directory)
        write_config(directory, config)
        keys = self.cabinet / f"{directory.name}.json"
        if not keys.exists():
            KeyStore(directory).create(new_entropy(), PASSPHRASE, ScryptCost(n=2**15))
            shutil.copy(directory / KEYSTORE_NAME, keys)
        else:
            shutil.copy(keys, directory / KEYSTORE_NAME)

    async def pair(self, *, contributes: int = 0) -> tuple[NodeProcess, NodeProcess]:
        """Make alice and bob. `contributes`: what bob's policy allows bob to put in, in ICP."""
        alice, bob = await asyncio.gather(self.node("alice"), self.node("bob", contributes=contributes))
        return alice, bob

    async def mint(self, account: str, e8s: int) -> None:
        """Give an account new ICP."""
        await self.devnet.mint(account, e8s)
        self.minted_e8s += e8s

    async def restart(self, node: NodeProcess) -> None:
        """Kill a node in the middle of whatever it does, and start it again."""
        await node.kill()
        await node.start()

    async def order_fault(self, fault: str, endpoint: str, count: int, seconds: float = 0, method: str = "") -> None:
        """Have the next requests to the Internet Computer fail. `method`: only those of this method."""
        body = {"fault": fault, "endpoint": endpoint, "count": count, "seconds": seconds}
        if method:
            body["method"] = method
        async with aiohttp.ClientSession() as http, http.post(f"{self.devnet.url}/_devnet/faults", json=body) as answer:
            assert answer.status == 200, await answer.text()

    # --- channels ----------------------------------------------------------------------------------------

    async def propose(
        self,
        proposer: NodeProcess,
        acceptor: NodeProcess,
        mine: int,
        theirs: int = 0,
        challenge_s: int = 12,
        funding_timeout_s: int | None = None,
        *,
        wait: bool = False,
    ) -> str:
        """Agree on a channel of so many ICP; return its id when state 0 is signed (`wait`: when it is open)."""
        params = schema.ChannelOpenParams(
            peer=acceptor.address,
            mine_e8s=E8s(mine * ICP),
            theirs_e8s=E8s(theirs * ICP),
            challenge_s=Seconds(challenge_s),
            funding_timeout_s=None if funding_timeout_s is None else Seconds(funding_timeout_s),
            wait=wait,
        )
        return (await within(proposer.control.call(CHANNEL_OPEN, params), "opening")).channel

    async def open(
        self, proposer: NodeProcess, acceptor: NodeProcess, mine: int, theirs: int = 0, challenge_s: int = 12
    ) -> str:
        """Open a channel; return its id when it is open for both."""
        channel = await self.propose(proposer, acceptor, mine, theirs, challenge_s, wait=True)
        await self.until(acceptor, channel, lambda c: c.phase == "open", "open for the acceptor")
        return channel

    async def pay(self, node: NodeProcess, channel: str, e8s: int) -> schema.PayResult:
        """Pay, and return when it is delivered."""
        params = schema.PayParams(channel=channel, amount_e8s=PaidE8s(e8s))
        return await within(node.control.call(CHANNEL_PAY, params), f"a payment of {node.name}")

    async def close(self, node: NodeProcess, channel: str, force_after_s: int | None = None) -> schema.Channel:
        """Close, and return when the money is out."""
        force = None if force_after_s is None else Seconds(force_after_s)
        params = schema.ChannelCloseParams(channel, force_after_s=force)
        return await within(node.control.call(CHANNEL_CLOSE, params), "closing")

    async def view(self, node: NodeProcess, channel: str) -> schema.Channel:
        """Return what a node says about a channel."""
        return await node.control.call(CHANNEL_GET, schema.ChannelGetParams(channel))

    async def until(
        self, node: NodeProcess, channel: str, condition: Callable[[schema.Channel], bool], what: str
    ) -> schema.Channel:
        """Return the channel when a node says so."""

        async def look() -> schema.Channel:
            while not condition(view := await self.view(node, channel)):  # noqa: ASYNC110  (asked over a socket)
                await asyncio.sleep(LOOK_AGAIN_S)
            return view

        try:
            return await within(look(), f"{node.name}: {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {await self.view(node, channel)}") from None

    async def closed(self, node: NodeProcess, channel: str) -> schema.Channel:
        """Return the channel when its money is out."""
        return await self.until(node, channel, lambda c: c.phase == "closed", "the money out")

    async def event(self, node: NodeProcess, kind: str, channel: str | None = None) -> schema.Event:
        """Return the first event of a kind, which may have happened before."""

        async def wait() -> schema.Event:
            async with await ControlClient.connect(node.dir) as control:
                async for event in control.events(after=0, kinds=[kind]):
                    if channel is None or event.data.get("channel") == channel:
                        return event
            raise AssertionError("the feed ended")

        return await within(wait(), f"{node.name}: {kind}")

    async def events(self, node: NodeProcess, channel: str) -> list[str]:
        """Return the kinds of a channel's events so far, in order."""
        return [row.kind for row in self.reader(node).events(0, 100_000) if row.channel == bytes.fromhex(channel)]

    async def payments(self, node: NodeProcess, channel: str) -> list[schema.Payment]:
        """Return every payment of a channel, as a node lists them."""
        found: list[schema.Payment] = []
        after = None
        while True:
            page = await node.control.call(PAYMENT_LIST, schema.PaymentListParams(channel, after, 1_000))
            found += page.payments
            after = page.next
            if after is None:
                return found

    # --- what nobody says, but is so ---------------------------------------------------------------------

    def reader(self, node: NodeProcess) -> Reader:
        """Read a node's store, as `perund watch` will."""
        if node.name not in self._readers:
            self._readers[node.name] = open_reader(node.dir / STORE_NAME)
        return self._readers[node.name]

    def row(self, node: NodeProcess, channel: str) -> ChannelRow:
        """Return a channel as it is on a node's disk."""
        number = self.reader(node).channel_number(bytes.fromhex(channel))
        assert number is not None
        row = self.reader(node).channel(number)
        assert row is not None
        return row

    def newest(self, node: NodeProcess, channel: str) -> SignedState:
        """Return the newest fully signed state on a node's disk: what a cheat would keep a copy of."""
        return self.row(node, channel).memory.newest

    async def register(self, node: NodeProcess, channel: str, signed: SignedState) -> None:
        """Register a state behind everybody's back."""
        answer = (await self.perun.dispute(self.row(node, channel).terms.params, signed)).value
        assert answer is None, answer

    async def registered_version(self, channel: str) -> int | None:
        """Return what the canister has registered."""
        found = (await self.perun.query_state(ChannelId(bytes.fromhex(channel)))).value
        return found.state.version if found is not None else None

    async def holdings(self, node: NodeProcess, channel: str) -> tuple[int, int]:
        """Return what the canister holds for both participants, in e8s."""
        terms = self.row(node, channel).terms
        first = (await self.perun.query_holdings(terms.funding(0))).value or 0
        return first, (await self.perun.query_holdings(terms.funding(1))).value or 0

    async def balance(self, node: NodeProcess) -> int:
        """Return what the ledger says of a node's wallet, in e8s."""
        return (await self.ledger.balance(account_from_text(node.info.account))).value

    async def canister_balance(self) -> int:
        """Return what the canister has on the ledger, in e8s."""
        return (await self.ledger.balance(account_identifier(principal_from_text(self.devnet.perun_canister)))).value

    # --- books -------------------------------------------------------------------------------------------

    async def settles(self, channel: str, *nodes: NodeProcess) -> None:
        """Check that a channel is over for these nodes, and that their books and the ledger agree to the e8.

        Each put in its deposit, if it was made, and got its share of the settled state; what else is missing are
        the costs that it names.
        """
        views = [await self.closed(node, channel) for node in nodes]
        found = (await self.perun.query_state(ChannelId(bytes.fromhex(channel)))).value
        for node, view in zip(nodes, views, strict=True):
            assert found is not None or view.payout_e8s is None, "a payout needs a settled state"
            deposits = [d for d in self.reader(node).deposits(self.row(node, channel).number) if d.block is not None]
            assert len(deposits) <= 1, f"{node.name} paid its deposit {len(deposits)} times"
            costs = {cost.what: int(cost.e8s) for cost in view.costs}
            assert set(costs) <= {"deposit fee", "withdrawal fee", "dust"}, costs
            gained = int(view.payout_e8s or 0) + costs.get("withdrawal fee", 0)
            expected = self.minted_to[node.name] + gained - sum(d.amount_e8s for d in deposits) - sum(costs.values())
            assert await self.balance(node) == expected, f"{node.name}'s wallet is not what its books say: {view}"
        assert await self.holdings(nodes[0], channel) == (0, 0) or len(nodes) < 2
