from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from chain.agent import Agent
from chain.identity import Ed25519Identity
from tests.unit.chain.replica import FakeClock, TestReplica

VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def replica(clock: FakeClock) -> AsyncIterator[TestReplica]:
    made = TestReplica(clock)
    server = await made.start()
    yield made
    await server.close()


AgentOf = Callable[..., Agent]


@pytest.fixture
async def agent_of(clock: FakeClock) -> AsyncIterator[AgentOf]:
    """Make an agent for some replicas; all are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(*replicas: TestReplica, **options: Any) -> Agent:
            agent = Agent(
                [replica.url for replica in replicas],
                options.pop("root_key", replicas[0].root.der),
                options.pop("identity", Ed25519Identity(bytes(range(32)))),
                clock=clock,
                pause=clock.pause,
                **options,
            )
            stack.push_async_callback(agent.close)
            return agent

        yield make


@pytest.fixture
async def agent(replica: TestReplica, agent_of: AgentOf) -> Agent:
    return agent_of(replica)


@pytest.fixture
async def start(clock: FakeClock) -> AsyncIterator[Callable[..., Awaitable[TestReplica]]]:
    """Start further replicas."""
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> TestReplica:
            made = TestReplica(clock, **options)
            server = await made.start()
            stack.push_async_callback(server.close)
            return made

        yield begin
