"""A client that nobody here wrote works against the replica unchanged."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import pytest

from tests.unit.replica.client import self_authenticating
from tests.unit.replica.conftest import Devnet
from tests.unit.replica.counter import CANDID, COUNTER_TEXT

# ic-py has no types.
Agent: Any = import_module("ic.agent").Agent
Canister: Any = import_module("ic.canister").Canister
Client: Any = import_module("ic.client").Client
Identity: Any = import_module("ic.identity").Identity
Principal: Any = import_module("ic.principal").Principal
candid: Any = import_module("ic.candid")
system_state: Any = import_module("ic.system_state")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("key_type", ["ed25519", "secp256k1"])
async def test_updates_and_queries(devnet: Devnet, key_type: str) -> None:
    agent = Agent(Identity(type=key_type), Client(url=devnet.url))

    def session() -> None:
        counter = Canister(agent=agent, canister_id=COUNTER_TEXT, candid=CANDID)
        assert counter.get() == [0]
        assert counter.add(41) == [41]
        assert counter.get() == [41]
        assert counter.whoami()[0].to_str() == agent.get_principal().to_str()
        with pytest.raises(Exception, match=r"Rejected: .*you asked for it"):
            counter.trap()

    await asyncio.to_thread(session)  # its calls block


async def test_an_anonymous_user_finds_the_interface(devnet: Devnet) -> None:
    agent = Agent(Identity(anonymous=True), Client(url=devnet.url))

    def session() -> None:
        counter = Canister(agent=agent, canister_id=COUNTER_TEXT)
        assert counter.candid == CANDID
        assert counter.get() == [0]
        message = agent.query_raw(COUNTER_TEXT, "subtract", candid.encode([]), candid.Types.Nat64)
        assert "Canister has no query method 'subtract'" in message

    await asyncio.to_thread(session)


async def test_certified_state(devnet: Devnet) -> None:
    agent = Agent(Identity(), Client(url=devnet.url))
    root_key = await devnet.anonymous().root_key()

    def session() -> None:
        assert system_state.canister_module_hash(agent, COUNTER_TEXT) == devnet.counter.module_hash.hex()
        assert system_state.canister_controllers(agent, COUNTER_TEXT) == []
        subnet = Principal(self_authenticating(root_key)).to_str()
        assert system_state.subnet_public_key(agent, COUNTER_TEXT, subnet) == root_key.hex()
        assert system_state.time(agent, COUNTER_TEXT) > 10**18

    await asyncio.to_thread(session)
