"""The devnet is a function of its inputs: the same calls at the same times leave the same state, whatever its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import cbor2
import nacl.signing
from hypothesis import given, settings
from hypothesis import strategies as st

from devnet.candid import NAT64, encode
from devnet.ledger import account_identifier
from devnet.ledger.interface import TRANSFER_ARGS, TransferArgs
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import interface as words
from devnet.replica.cbor import Value
from devnet.replica.clock import ChainClock
from devnet.replica.principals import self_authenticating
from devnet.replica.request_id import hash_of_map

START_NS = 1_700_000_000 * 10**9
MINUTE_NS = 60 * 10**9
ICP = 100_000_000
KEYS = [nacl.signing.SigningKey(bytes([n]) * 32) for n in (1, 2)]
DERS = [bytes.fromhex("302a300506032b6570032100") + bytes(key.verify_key) for key in KEYS]
PEOPLE = [self_authenticating(der) for der in DERS]
PARAMS = words.Params(b"\x09" * 64, tuple(bytes(key.verify_key) for key in KEYS), 60 * 10**9)
CHANNEL = PARAMS.channel_id()
CANISTER_ACCOUNT = account_identifier(PERUN_CANISTER_ID)


@dataclass
class World:
    """A network whose wall clock stands still until it is moved."""

    wall_ns: int = START_NS
    nonce: int = 0
    network: LocalNetwork = field(init=False)

    def __post_init__(self) -> None:
        self.network = LocalNetwork.create(clock=ChainClock(lambda: self.wall_ns))

    async def call(self, who: int, canister: bytes, method: str, arg: bytes) -> None:
        self.nonce += 1
        content: dict[str, Value] = {
            "request_type": "call",
            "canister_id": canister,
            "method_name": method,
            "arg": arg,
            "sender": PEOPLE[who],
            "ingress_expiry": self.network.replica.clock.now_ns() + 4 * MINUTE_NS,
            "nonce": self.nonce.to_bytes(8, "big"),
        }
        signature = KEYS[who].sign(b"\x0aic-request" + hash_of_map(content)).signature
        envelope = {"content": content, "sender_pubkey": DERS[who], "sender_sig": signature}
        await self.network.replica.call_sync(canister, cbor2.dumps(envelope))


Action = Callable[[World], object]


def _signed(version: int, finalized: bool) -> words.FullySignedState:
    state = words.State(CHANNEL, version, (ICP, 2 * ICP), finalized)
    return words.FullySignedState(state, tuple(key.sign(state.signed_bytes()).signature for key in KEYS))


async def act(world: World, action: tuple[str, int, int]) -> None:
    kind, who, number = action
    funding = words.Funding(CHANNEL, PARAMS.participants[who])
    match kind:
        case "advance":
            world.wall_ns += number * 10**9
        case "mint":
            await world.network.mint(account_identifier(PEOPLE[who]), number * ICP + 1, world.wall_ns)
        case "transfer":
            args = TransferArgs(funding.memo(), (who + 1) * ICP, 10_000, None, CANISTER_ACCOUNT, world.wall_ns)
            await world.call(who, ICP_LEDGER_ID, "transfer", encode((TRANSFER_ARGS,), args))
        case "notify":
            await world.call(who, PERUN_CANISTER_ID, "transaction_notification", encode((NAT64,), number))
        case "deposit":
            await world.call(who, PERUN_CANISTER_ID, "deposit", encode((words.FUNDING,), funding))
        case "look":
            await world.call(who, PERUN_CANISTER_ID, "query_holdings", encode((words.FUNDING,), funding))
        case "dispute" | "conclude":
            arg = encode((words.PARAMS, words.FULLY_SIGNED_STATE), PARAMS, _signed(number, kind == "conclude"))
            await world.call(who, PERUN_CANISTER_ID, kind, arg)
        case "both":
            await asyncio.gather(act(world, ("transfer", 0, 0)), act(world, ("deposit", 1, 0)))


KINDS = ("advance", "mint", "transfer", "notify", "deposit", "look", "dispute", "conclude", "both")
ACTIONS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(1, 9)), max_size=12)


def digest_of(actions: list[tuple[str, int, int]]) -> bytes:
    async def run() -> bytes:
        world = World()
        for who in (0, 1):
            await world.network.mint(account_identifier(PEOPLE[who]), 100 * ICP, START_NS)
        for action in actions:
            await act(world, action)
        digest = world.network.replica.state_digest()
        await world.network.replica.close()
        return digest

    return asyncio.run(run())


@settings(max_examples=25, deadline=None)
@given(ACTIONS)
def test_the_same_calls_at_the_same_times_leave_the_same_state(actions: list[tuple[str, int, int]]) -> None:
    assert digest_of(actions) == digest_of(actions)


LIFE = [("transfer", 0, 0), ("notify", 0, 2), ("deposit", 0, 0), ("transfer", 1, 0), ("notify", 1, 3),
        ("deposit", 1, 0), ("dispute", 0, 1), ("advance", 0, 9), ("dispute", 1, 2), ("look", 0, 0)]  # fmt: skip


def test_every_input_of_a_life_matters_to_its_digest() -> None:
    digests = {digest_of(LIFE[:length]) for length in range(len(LIFE) + 1)}
    # Only time that passes leaves no trace by itself.
    assert len(digests) == len(LIFE)
    assert digest_of([("advance", 0, 1), *LIFE]) not in digests
