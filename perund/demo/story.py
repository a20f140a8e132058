"""The demonstration: act one opens, pays and closes a channel; in act two one side cheats."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from chain.agent import Agent
from chain.identity import Anonymous
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_from_text, principal_from_text
from perund.amounts import format_icp
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.methods import (
    CHANNEL_CLOSE,
    CHANNEL_GET,
    CHANNEL_OPEN,
    CHANNEL_PAY,
    CHANNEL_WITHDRAW,
)
from perund.control.values import E8s, PaidE8s, Seconds
from perund.demo.processes import DevnetProcess, NodeProcess
from perund.node.daemon import STORE_NAME
from perund.store.reading import open_reader
from protocol.errors import PerundError
from protocol.types import ChannelId, Funding, Params, SignedState

__all__ = ["run_demo"]

ICP: Final = 100_000_000
ALICE_PUTS: Final = 242 * ICP
BOB_PUTS: Final = 194 * ICP
START: Final = 300 * ICP
CHALLENGE_S: Final = 60
PAYMENTS: Final = 50
PATIENCE_S: Final = 120.0

T = TypeVar("T")


class DemoFailed(PerundError):
    """Something did not happen as it should. The message says what."""


@dataclass
class _Stage:
    """Who is on stage."""

    devnet: DevnetProcess
    alice: NodeProcess
    bob: NodeProcess
    perun: PerunCanister
    ledger: IcpLedger
    say: Callable[[str], None]

    @property
    def nodes(self) -> tuple[NodeProcess, NodeProcess]:
        return self.alice, self.bob

    async def balance(self, node: NodeProcess) -> int:
        """The wallet of a node on the ledger, read by somebody who trusts neither node."""
        return (await self.ledger.balance(account_from_text(node.info.account))).value


async def run_demo(say: Callable[[str], None] = print) -> int:
    """Play both acts. Returns 0, or 1 after saying what went wrong."""
    with tempfile.TemporaryDirectory(prefix="perund-demo-") as name:
        directory = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            try:
                stage = await _set(stack, directory, say)
                await _act_one(stage)
                await _act_two(stage)
            except PerundError as error:
                say(f"\nThe demo failed: {error}")
                return 1
        say("\nBoth acts ended as they should.")
        return 0


async def _set(stack: contextlib.AsyncExitStack, directory: Path, say: Callable[[str], None]) -> _Stage:
    devnet = DevnetProcess(directory)
    stack.push_async_callback(devnet.stop)
    await devnet.start()
    say(f"A local Internet Computer runs at {devnet.url} (process {devnet.pid})")
    say(f"Perun canister {devnet.perun_canister}, ICP ledger {devnet.icp_ledger}")
    alice, bob = NodeProcess(directory, "alice"), NodeProcess(directory, "bob")
    for node, options in ((alice, ()), (bob, ("--contribute-max", "200 ICP"))):
        stack.push_async_callback(node.stop)
        await node.init(devnet, *options)
        await node.start()
        await devnet.mint(node.info.account, START)
        say(f"{node.name}: node {node.info.node_id[:16]}… (process {node.pid}), wallet {format_icp(START)}")
    agent = Agent([devnet.url], bytes.fromhex(devnet.root_key), Anonymous())
    stack.push_async_callback(agent.close)
    return _Stage(
        devnet,
        alice,
        bob,
        PerunCanister(agent, principal_from_text(devnet.perun_canister)),
        IcpLedger(agent, principal_from_text(devnet.icp_ledger)),
        say,
    )


async def _patiently(work: Awaitable[T], what: str) -> T:
    try:
        return await asyncio.wait_for(work, PATIENCE_S)
    except TimeoutError:
        raise DemoFailed(f"{what} did not happen within {PATIENCE_S:.0f} s") from None


def _params(node: NodeProcess, channel: str) -> tuple[Params, SignedState]:
    """The channel's params and newest fully signed state, as the node's store has them."""
    read = open_reader(node.dir / STORE_NAME)
    number = read.channel_number(bytes.fromhex(channel))
    row = read.channel(number) if number is not None else None
    if row is None:
        raise DemoFailed(f"{node.name} does not know channel {channel[:16]}")
    return row.terms.params, row.memory.newest


async def _holdings(stage: _Stage, params: Params) -> tuple[int, int]:
    """Ask the canister, certified, and print what the published example prints."""
    held = []
    for index, key in enumerate(params.participants):
        value = (await stage.perun.query_holdings(Funding(params.channel_id, key))).value or 0
        short = params.channel_id.hex()[:8]
        stage.say(f"Querying deposit channel: 0x{short}… for peer IDx: {index}, now: {format_icp(value)}")
        held.append(value)
    return held[0], held[1]


async def _open(stage: _Stage, mine: int, theirs: int) -> tuple[str, Params]:
    control = stage.alice.control
    opened = await _patiently(
        control.call(
            CHANNEL_OPEN,
            schema.ChannelOpenParams(
                peer=stage.bob.address,
                mine_e8s=E8s(mine),
                theirs_e8s=E8s(theirs),
                challenge_s=Seconds(CHALLENGE_S),
                wait=False,
            ),
        ),
        "signing state 0",
    )
    return opened.channel, _params(stage.alice, opened.channel)[0]


async def _follow(stage: _Stage, channel: str, until: str, lines: dict[str, str]) -> None:
    """Print a line for each named event of the channel at either node, until both had `until`."""

    async def one(index: int, node: NodeProcess) -> None:
        async with await ControlClient.connect(node.dir) as control:
            async for event in control.events(after=0, kinds=[*lines, until]):
                if event.data.get("channel") != channel:
                    continue
                if event.event in lines:
                    stage.say(
                        lines[event.event].format(
                            short=f"0x{channel[:8]}…",
                            index=index,
                            amount=format_icp(int(str(event.data.get("amount_e8s", 0)))),
                        )
                    )
                if event.event == until:
                    return

    await _patiently(asyncio.gather(*(one(i, node) for i, node in enumerate(stage.nodes))), until)


async def _pay(node: NodeProcess, channel: str, amount: int) -> None:
    await _patiently(
        node.control.call(CHANNEL_PAY, schema.PayParams(channel=channel, amount_e8s=PaidE8s(amount))), "a payment"
    )


async def _act_one(stage: _Stage) -> None:
    say = stage.say
    say("\n# Act one: open, pay, close")
    channel, params = await _open(stage, ALICE_PUTS, BOB_PUTS)
    if await _holdings(stage, params) != (0, 0):
        raise DemoFailed("the channel did not start empty")
    await _follow(
        stage,
        channel,
        "channel.open",
        {"channel.depositing": "Depositing       channel: {short} for peer IDx: {index}, add: {amount}"},
    )
    if await _holdings(stage, params) != (ALICE_PUTS, BOB_PUTS):
        raise DemoFailed("the canister does not hold both deposits")
    say(f"Paying {PAYMENTS} times in each direction…")
    await asyncio.gather(
        *(_pay(stage.alice, channel, 3 * ICP // 2 + n) for n in range(PAYMENTS)),
        *(_pay(stage.bob, channel, ICP + n) for n in range(PAYMENTS)),
    )
    state = await stage.alice.control.call(CHANNEL_GET, schema.ChannelGetParams(channel))
    say(
        f"{2 * PAYMENTS} payments in {state.version} updates: alice has {format_icp(state.mine_e8s)}, "
        f"bob {format_icp(state.theirs_e8s)}"
    )
    if state.mine_e8s + state.theirs_e8s != ALICE_PUTS + BOB_PUTS:
        raise DemoFailed("the balances do not add up to the deposits")
    say(f"Concluding       channel: 0x{channel[:8]}…")
    closing = asyncio.gather(
        *(
            node.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel))
            if node is stage.alice
            else _event(node, channel, "channel.closed")
            for node in stage.nodes
        )
    )
    following = _follow(
        stage,
        channel,
        "channel.closed",
        {"channel.withdrawing": "Withdrawing      channel: {short} for peer IDx: {index}"},
    )
    await _patiently(asyncio.gather(closing, following), "closing")
    if await _holdings(stage, params) != (0, 0):
        raise DemoFailed("the canister still holds something")
    await _settle_accounts(stage, channel, state, START)


async def _settle_accounts(stage: _Stage, channel: str, state: schema.Channel, before: int) -> None:
    """Explain what each wallet got, to the e8, and compare with the ledger."""
    shares = {"alice": int(state.mine_e8s), "bob": int(state.theirs_e8s)}
    puts = {"alice": ALICE_PUTS, "bob": BOB_PUTS}
    for node in stage.nodes:
        view = await node.control.call(CHANNEL_GET, schema.ChannelGetParams(channel))
        costs = sum(cost.e8s for cost in view.costs)
        stage.say(
            f"{node.name}: wallet {format_icp(before)} - deposit {format_icp(puts[node.name])} "
            f"+ share {format_icp(shares[node.name])}"
        )
        for cost in view.costs:
            stage.say(f"    - {cost.what} {format_icp(cost.e8s)}")
        expected = before - puts[node.name] + shares[node.name] - costs
        actual = await stage.balance(node)
        stage.say(f"    = {format_icp(expected)}; the ledger says {format_icp(actual)}")
        if actual != expected:
            raise DemoFailed(f"{node.name}'s wallet is off by {actual - expected} e8s")


async def _act_two(stage: _Stage) -> None:
    say, alice, bob = stage.say, stage.alice, stage.bob
    say("\n# Act two: alice registers an old state, and bob's watcher refutes it")
    before = {node.name: await stage.balance(node) for node in stage.nodes}
    channel, params = await _open(stage, 20 * ICP, 0)
    await _follow(stage, channel, "channel.open", {})
    await _pay(alice, channel, ICP)
    old = _params(alice, channel)[1]
    await _pay(alice, channel, 9 * ICP)
    newest = await bob.control.call(CHANNEL_GET, schema.ChannelGetParams(channel))
    say(
        f"Alice paid 10 ICP: version {newest.version} gives bob {format_icp(newest.mine_e8s)}, "
        f"version {old.state.version} gave him {format_icp(old.state.allocation[1])}"
    )
    await alice.stop()  # her own watcher would be as quick as bob's to put that right
    answer = (await stage.perun.dispute(params, old)).value
    if answer is not None:
        raise DemoFailed(f"the canister did not register the old state: {answer}")
    say(f"Disputing        channel: 0x{channel[:8]}… with the old version {old.state.version}, behind bob's back")
    await _patiently(_event(bob, channel, "channel.refuted"), "the refutation")
    registered = (await stage.perun.query_state(ChannelId(bytes.fromhex(channel)))).value
    if registered is None or registered.state.version != newest.version:
        raise DemoFailed("the newest state is not the one that is registered")
    say(f"Refuted          channel: 0x{channel[:8]}… now registered: version {registered.state.version}")
    await alice.start()
    await stage.devnet.advance(CHALLENGE_S + 1)
    say(f"The challenge period of {CHALLENGE_S} s passes…")
    views = await _patiently(
        asyncio.gather(
            *(node.control.call(CHANNEL_WITHDRAW, schema.ChannelWithdrawParams(channel)) for node in stage.nodes)
        ),
        "withdrawing",
    )
    for node, view in zip(stage.nodes, views, strict=True):
        gained = await stage.balance(node) - before[node.name]
        costs = sum(cost.e8s for cost in view.costs)
        put = 20 * ICP if node is alice else 0
        share = registered.state.allocation[view.index]
        say(
            f"{node.name}: put in {format_icp(put)}, got {format_icp(view.payout_e8s or 0)}, "
            f"fees {format_icp(costs)}: the wallet changed by {format_icp(gained)}"
        )
        if gained != share - put - costs:
            raise DemoFailed(f"{node.name}'s wallet is off by {gained - (share - put - costs)} e8s")


async def _event(node: NodeProcess, channel: str, kind: str) -> None:
    """Return when an event of the channel happened at a node."""
    async with await ControlClient.connect(node.dir) as control:
        async for event in control.events(after=0, kinds=[kind]):
            if event.data.get("channel") == channel:
                return
