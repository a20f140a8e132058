"""Faults that tests order, as a client meets them."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.unit.replica.certificate_check import hash_of_map
from tests.unit.replica.conftest import Devnet
from tests.unit.replica.counter import nat64


async def test_503_is_said_before_anything_is_done(devnet: Devnet) -> None:
    alice = devnet.client()
    assert await alice.admin("faults", fault="http_503", count=2) == (200, {"count": 2})
    content = alice.content("call", method_name="add", arg=nat64(1))
    for expected in (503, 503, 200):
        answer = await alice.send(content)
        assert answer.status == expected
    assert devnet.counter.total == 1


async def test_a_dropped_call_has_run_and_can_be_asked_for(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.admin("faults", fault="drop", endpoint="call", count=1)
    content = alice.content("call", method_name="add", arg=nat64(1))
    with pytest.raises(aiohttp.ClientError):
        await alice.send(content)
    status = [b"request_status", hash_of_map(content)]
    assert (await alice.read_state(status)).value(*status, b"reply") == nat64(1)
    assert (await alice.send(content)).status == 200  # the same bytes again are safe
    assert devnet.counter.total == 1


@pytest.mark.parametrize("version", ["v2", "v4"])
async def test_a_rejected_call_has_no_status(devnet: Devnet, version: str) -> None:
    alice = devnet.client()
    await alice.admin("faults", fault="reject")
    content = alice.content("call", method_name="add", arg=nat64(1))
    answer = (await alice.send(content, version)).cbor
    assert answer.get("status") == (None if version == "v2" else "non_replicated_rejection")
    assert answer["reject_code"] == 2
    path = [b"request_status", hash_of_map(content)]
    assert (await alice.read_state(path)).lookup(*path) == "absent"


async def test_slow_answers_come_all_the_same_and_other_endpoints_are_spared(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.admin("faults", fault="slow", endpoint="query", seconds=0.05)
    await alice.admin("faults", fault="http_503", endpoint="read_state")
    assert await alice.count() == 0
    assert (await alice.send(alice.content("read_state", paths=[]), "v3")).status == 503


async def test_faults_can_be_cleared(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.admin("faults", fault="http_503", endpoint="query", count=1000)
    assert await alice.admin("faults", count=0) == (200, {"count": 0})
    assert await alice.count() == 0


WRONG: list[dict[str, Any]] = [
    {},
    {"fault": "earthquake"},
    {"fault": ["drop"]},
    {"fault": "drop", "endpoint": "status"},
    {"fault": "reject", "endpoint": "query"},
    {"fault": "drop", "count": -1},
    {"fault": "drop", "count": 1.5},
    {"fault": "slow", "seconds": -1},
]


@pytest.mark.parametrize("fields", WRONG)
async def test_wrong_orders_are_told(devnet: Devnet, fields: dict[str, Any]) -> None:
    status, answer = await devnet.anonymous().admin("faults", **fields)
    assert (status, list(answer)) == (400, ["error"])
