"""Calls, queries and certified reads, as a client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from devnet.network import LocalNetwork
from devnet.replica import Replica
from devnet.replica.clock import ChainClock
from devnet.replica.principals import to_text
from devnet.server import serve
from tests.unit.replica.certificate_check import ABSENT, hash_of_map, uleb, untag
from tests.unit.replica.client import Client, EcdsaKey, Ed25519Key, Signer, delegate, self_authenticating
from tests.unit.replica.conftest import Devnet
from tests.unit.replica.counter import CANDID, COUNTER, COUNTER_TEXT, Counter, from_nat64, nat64

SUBNET_RANGES = [[bytes.fromhex("00000000000000000101"), bytes.fromhex("ffffffffffffffff0101")]]


@pytest.mark.parametrize("version", ["v3", "v4"])
async def test_a_synchronous_call_answers_with_a_certificate(devnet: Devnet, version: str) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="add", arg=nat64(5))
    answer = await alice.send(content, version)
    assert answer.cbor["status"] == "replied"
    certificate = await alice.certificate_of(answer)
    request = (b"request_status", hash_of_map(content))
    assert certificate.value(*request, b"status") == b"replied"
    assert certificate.value(*request, b"reply") == nat64(5)
    assert certificate.time_ns > content["ingress_expiry"] - 4 * 60 * 10**9


async def test_an_asynchronous_call_is_polled(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="add_slowly", arg=nat64(7))
    request = [b"request_status", hash_of_map(content)]
    answer = await alice.send(content, "v2")
    assert (answer.status, answer.body) == (202, b"")
    await devnet.counter.waiting.wait()
    assert (await alice.read_state(request)).value(*request, b"status") == b"processing"
    devnet.counter.release.set()
    assert from_nat64(await alice.call("add", nat64(0))) == 7
    assert (await alice.read_state(request)).value(*request, b"reply") == nat64(7)


async def test_a_query_is_signed_by_a_node_of_the_subnet(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.call("add", nat64(3))
    content = alice.content("query", method_name="get")
    answer = (await alice.send(content, "v3")).cbor
    assert answer["reply"] == {"arg": nat64(3)}
    (signature,) = answer["signatures"]
    subnet = self_authenticating(await alice.root_key())
    certificate = await alice.read_state([b"subnet"])
    der = certificate.value(b"subnet", subnet, b"node", signature["identity"], b"public_key")
    assert self_authenticating(der) == signature["identity"]
    signed = {
        "status": "replied",
        "reply": {"arg": nat64(3)},
        "timestamp": signature["timestamp"],
        "request_id": hash_of_map(content),
    }
    Ed25519PublicKey.from_public_bytes(der[12:]).verify(
        signature["signature"], b"\x0bic-response" + hash_of_map(signed)
    )
    assert abs(signature["timestamp"] - certificate.time_ns) < 10**9


async def test_a_query_changes_nothing_and_is_not_a_call(devnet: Devnet) -> None:
    alice = devnet.client()
    answer = (await alice.send(alice.content("query", method_name="add", arg=nat64(1)), "v2")).cbor
    assert (answer["status"], answer["reject_code"], answer["error_code"]) == ("rejected", 5, "IC0536")
    assert answer["reject_message"] == (f"Error from Canister {COUNTER_TEXT}: Canister has no query method 'add'.")
    assert len(answer["signatures"]) == 1
    assert devnet.counter.total == 0


async def test_a_query_method_can_be_called_for_a_certified_answer(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.call("add", nat64(9))
    assert from_nat64(await alice.call("get")) == 9


KEYS: dict[str, Callable[[], Signer]] = {
    "ed25519": Ed25519Key,
    "secp256k1": lambda: EcdsaKey(ec.SECP256K1()),
    "secp256k1 high s": lambda: EcdsaKey(ec.SECP256K1(), high_s=True),
    "p256": lambda: EcdsaKey(ec.SECP256R1()),
    "p256 high s": lambda: EcdsaKey(ec.SECP256R1(), high_s=True),
}


@pytest.mark.parametrize("kind", KEYS)
async def test_the_canister_sees_who_signed(devnet: Devnet, kind: str) -> None:
    key: Signer = KEYS[kind]()
    reply = await devnet.client(key).call("whoami")
    assert reply == b"DIDL\x00\x01\x68\x01\x1d" + self_authenticating(key.der)


async def test_anybody_may_call_anonymously_and_nulls_count_as_absent(devnet: Devnet) -> None:
    nobody = devnet.anonymous()
    assert await nobody.call("whoami") == b"DIDL\x00\x01\x68\x01\x01\x04"
    content = nobody.content("query", method_name="get", nonce=None)
    envelope = {"content": content, "sender_pubkey": None, "sender_sig": None, "sender_delegation": None}
    answer = await nobody.post(f"/api/v2/canister/{COUNTER_TEXT}/query", envelope)
    assert answer.cbor["status"] == "replied"


async def test_a_session_key_calls_for_its_delegator(devnet: Devnet) -> None:
    alice, session, inner = devnet.client(), Ed25519Key(), EcdsaKey(ec.SECP256R1())
    assert alice.key is not None
    content = alice.content("call", method_name="whoami")
    later = content["ingress_expiry"]
    envelope = {
        "content": content,
        "sender_pubkey": alice.key.der,
        "sender_sig": inner.sign(b"\x0aic-request" + hash_of_map(content)),
        "sender_delegation": [
            delegate(alice.key, session, later),
            delegate(session, inner, later, [COUNTER]),
        ],
    }
    answer = await alice.post(f"/api/v4/canister/{COUNTER_TEXT}/call", envelope)
    certificate = await alice.certificate_of(answer)
    reply = certificate.value(b"request_status", hash_of_map(content), b"reply")
    assert reply.endswith(alice.sender)


async def test_the_same_request_runs_once(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="add", arg=nat64(1))
    request = (b"request_status", hash_of_map(content))
    answers = await asyncio.gather(*(alice.send(content, version) for version in ("v4", "v3", "v4", "v2")))
    answers.append(await alice.send(content))
    assert [answer.status for answer in answers] == [200, 200, 200, 202, 200]
    for answer in answers:
        if answer.status == 200:
            assert (await alice.certificate_of(answer)).value(*request, b"reply") == nat64(1)
    assert (devnet.counter.total, devnet.counter.runs) == (1, 1)


async def test_a_trap_is_a_certified_rejection(devnet: Devnet) -> None:
    alice = devnet.client()
    for method, said in (("trap", "you asked for it"), ("break_down", "KeyError")):
        content = alice.content("call", method_name=method)
        certificate = await alice.certificate_of(await alice.send(content))
        request = (b"request_status", hash_of_map(content))
        assert certificate.value(*request, b"status") == b"rejected"
        assert uleb(certificate.value(*request, b"reject_code")) == 5
        assert certificate.value(*request, b"error_code") == b"IC0503"
        assert said in certificate.value(*request, b"reject_message").decode()
        assert certificate.lookup(*request, b"reply") == ABSENT


async def test_calls_of_one_canister_interleave_only_where_they_await(devnet: Devnet) -> None:
    alice = devnet.client()
    slow = asyncio.create_task(alice.call("add_slowly", nat64(10)))
    await devnet.counter.waiting.wait()
    assert from_nat64(await alice.call("add", nat64(1))) == 1
    devnet.counter.release.set()
    assert from_nat64(await slow) == 11


async def test_certified_facts_of_subnet_and_canister(devnet: Devnet) -> None:
    alice = devnet.client()
    root_key = await alice.root_key()
    subnet = self_authenticating(root_key)
    here = (b"canister", COUNTER)
    certificate = await alice.read_state(
        [b"subnet"],
        [*here, b"module_hash"],
        [*here, b"controllers"],
        [*here, b"metadata", b"candid:service"],
        [*here, b"metadata", b"other"],
    )
    assert certificate.value(b"subnet", subnet, b"public_key") == root_key
    assert certificate.value(b"subnet", subnet, b"type") == b"application"
    assert untag(certificate.value(b"subnet", subnet, b"canister_ranges")) == SUBNET_RANGES
    assert certificate.value(*here, b"module_hash") == devnet.counter.module_hash
    assert untag(certificate.value(*here, b"controllers")) == []
    assert certificate.value(*here, b"metadata", b"candid:service") == CANDID.encode()
    assert certificate.lookup(*here, b"metadata", b"other") == ABSENT


async def test_the_subnet_endpoint_shows_its_one_shard_of_ranges(devnet: Devnet) -> None:
    nobody = devnet.anonymous()
    info = await (await devnet.session.get(devnet.url + "/_devnet/info")).json()
    subnet = self_authenticating(bytes.fromhex(info["root_key"]))
    content = nobody.content("read_state", paths=[[b"canister_ranges", subnet]])
    path = f"/api/v3/subnet/{to_text(subnet)}/read_state"
    certificate = await nobody.certificate_of(await nobody.post(path, nobody.envelope(content)))
    shard = certificate.value(b"canister_ranges", subnet, SUBNET_RANGES[0][0])
    assert untag(shard) == SUBNET_RANGES


async def test_what_is_absent_is_proved_absent(devnet: Devnet) -> None:
    alice = devnet.client()
    nowhere = [b"request_status", bytes(32)]
    assert (await alice.read_state(nowhere)).lookup(*nowhere) == ABSENT  # no request at all yet
    for _ in range(20):
        await alice.call("add", nat64(1))
    for unknown in (bytes(32), b"\x80" + bytes(31), b"\xff" * 32):
        path = [b"request_status", unknown]
        certificate = await alice.read_state(path)
        assert certificate.lookup(*path) == ABSENT
        assert certificate.lookup(*path, b"status") == ABSENT
    absent = bytes.fromhex("00000000000000420101")
    path = [b"canister", absent, b"module_hash"]
    certificate = await alice.read_state(path, canister=to_text(absent))
    assert certificate.lookup(*path) == ABSENT


async def test_certificates_show_no_more_than_was_asked(devnet: Devnet) -> None:
    alice, bob = devnet.client(), devnet.client()
    content = alice.content("call", method_name="add", arg=nat64(424242))
    await alice.send(content)
    answer = await bob.send(bob.content("read_state", paths=[[b"time"]]), "v2")
    assert nat64(424242) not in answer.body
    assert hash_of_map(content) not in answer.body


async def test_time_rises_and_is_the_same_everywhere(devnet: Devnet) -> None:
    alice = devnet.client()
    times = []
    for _ in range(3):
        times += [from_nat64(await alice.call("time")), (await alice.read_state([b"time"])).time_ns]
        times.append((await alice.query("get"))["signatures"][0]["timestamp"])
    assert times == sorted(set(times))


async def test_web_pages_may_use_it(devnet: Devnet) -> None:
    async with devnet.session.options(devnet.url + f"/api/v4/canister/{COUNTER_TEXT}/call") as response:
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == "*"
        assert "Content-Type" in response.headers["access-control-allow-headers"]
    async with devnet.session.get(devnet.url + "/api/v2/status") as response:
        assert response.headers["access-control-allow-origin"] == "*"
        assert untag(await response.read())["replica_health_status"] == "healthy"


async def test_a_call_that_takes_long_is_accepted_and_polled(session: aiohttp.ClientSession) -> None:
    counter = Counter()
    replica = Replica({COUNTER: counter}, ChainClock(), sync_wait_s=0.01)
    async with serve(LocalNetwork(replica, counter.mint, {}), "127.0.0.1", 0) as info:
        alice = Client(session, info["url"], Ed25519Key())
        content = alice.content("call", method_name="add_slowly", arg=nat64(2))
        answer = await alice.send(content)
        assert (answer.status, answer.content_type) == (202, "text/plain")
        status = [b"request_status", hash_of_map(content)]
        assert (await alice.read_state(status)).value(*status, b"status") == b"processing"
        assert (await alice.send(content)).status == 202  # the same again waits for the same run
        counter.release.set()
        certificate = await alice.certificate_of(await alice.send(content))
        assert certificate.value(*status, b"reply") == nat64(2)
        assert counter.runs == 1
    await replica.close()
