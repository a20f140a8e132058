from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from devnet.network import LocalNetwork
from devnet.server import serve
from tests.unit.replica.client import Client, Ed25519Key, Signer
from tests.unit.replica.counter import COUNTER, COUNTER_TEXT, Counter

NAMES = {"perun_canister": COUNTER_TEXT, "icp_ledger": "ryjl3-tyaaa-aaaaa-aaaba-cai"}


@dataclass
class Devnet:
    """A running replica with one counter."""

    url: str
    counter: Counter
    session: aiohttp.ClientSession

    def client(self, key: Signer | None = None) -> Client:
        return Client(self.session, self.url, key or Ed25519Key())

    def anonymous(self) -> Client:
        return Client(self.session, self.url)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def devnet(session: aiohttp.ClientSession) -> AsyncIterator[Devnet]:
    counter = Counter()
    network = LocalNetwork.of({COUNTER: counter}, counter.mint, NAMES)
    async with serve(network, "127.0.0.1", 0) as info:
        yield Devnet(info["url"], counter, session)
    counter.release.set()
    await network.replica.close()
