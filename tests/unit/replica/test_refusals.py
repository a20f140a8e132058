"""What the replica refuses, with the status and the words that agents look for."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import cbor2
import pytest

from tests.unit.replica.certificate_check import hash_of_map
from tests.unit.replica.client import MINUTE_NS, TAG, Client, Ed25519Key, delegate, self_authenticating
from tests.unit.replica.conftest import Devnet
from tests.unit.replica.counter import COUNTER, COUNTER_TEXT, nat64

CALL = f"/api/v4/canister/{COUNTER_TEXT}/call"
LEDGER = "ryjl3-tyaaa-aaaaa-aaaba-cai"


def add(client: Client, **fields: Any) -> dict[str, Any]:
    return client.content("call", method_name="add", arg=nat64(1), **fields)


async def refused(devnet: Devnet, path: str, envelope: dict[str, Any] | bytes) -> tuple[int, str]:
    """Post, and check that nothing ran."""
    answer = await devnet.anonymous().post(path, envelope)
    assert devnet.counter.runs == 0
    assert answer.content_type == "text/plain"
    return answer.status, answer.text


async def test_a_wrong_signature(devnet: Devnet) -> None:
    alice = devnet.client()
    content = add(alice)
    envelope = alice.envelope(content)
    envelope["sender_sig"] = bytes(64)
    status, text = await refused(devnet, CALL, envelope)
    assert status == 400
    assert text.startswith(f"Failed to authenticate request 0x{hash_of_map(content).hex()} due to: ")
    assert "Invalid signature" in text


async def test_content_changed_after_signing(devnet: Devnet) -> None:
    alice = devnet.client()
    envelope = alice.envelope(add(alice))
    envelope["content"]["arg"] = nat64(1000)
    status, text = await refused(devnet, CALL, envelope)
    assert (status, "Invalid signature" in text) == (400, True)


async def test_a_sender_that_is_not_the_key(devnet: Devnet) -> None:
    alice, mallory = devnet.client(), devnet.client()
    status, text = await refused(devnet, CALL, mallory.envelope(add(alice)))
    assert status == 400
    assert "does not match the public key" in text


async def test_a_missing_signature(devnet: Devnet) -> None:
    alice = devnet.client()
    status, text = await refused(devnet, CALL, {"content": add(alice)})
    assert (status, "Missing signature from user" in text) == (400, True)


async def test_an_anonymous_sender_with_a_signature(devnet: Devnet) -> None:
    alice, nobody = devnet.client(), devnet.anonymous()
    status, text = await refused(devnet, CALL, alice.envelope(add(nobody)))
    assert (status, "Signature is not allowed when caller is anonymous" in text) == (400, True)


async def test_a_key_in_another_encoding(devnet: Devnet) -> None:
    alice = devnet.client()
    assert alice.key is not None
    for der in (alice.key.der[12:], alice.key.der + b"\x00", b""):
        alice.sender = self_authenticating(der)
        envelope = alice.envelope(add(alice)) | {"sender_pubkey": der}
        status, text = await refused(devnet, CALL, envelope)
        assert (status, "is not Ed25519, secp256k1 or P-256" in text) == (400, True)


@pytest.mark.parametrize("minutes", [-1, 6, 60 * 24 * 365 * 500])
@pytest.mark.parametrize("request_type", ["call", "query", "read_state"])
async def test_an_expiry_outside_the_window(devnet: Devnet, request_type: str, minutes: int) -> None:
    alice = devnet.client()
    fields: dict[str, Any] = {"paths": [[b"time"]]} if request_type == "read_state" else {"method_name": "get"}
    expiry = min(alice.clock_ns() + minutes * MINUTE_NS, 2**64 - 1)
    content = alice.content(request_type, ingress_expiry=expiry, **fields)
    path = f"/api/v2/canister/{COUNTER_TEXT}/{request_type}"
    status, text = await refused(devnet, path, alice.envelope(content))
    assert status == 400
    assert text.startswith("Invalid request expiry: Specified ingress_expiry not within expected range: ")
    assert "Minimum allowed expiry: " in text
    assert "Provided expiry: " in text


async def test_the_grace_of_thirty_seconds_is_given(devnet: Devnet) -> None:
    alice = devnet.client()
    content = add(alice, ingress_expiry=alice.clock_ns() + 5 * MINUTE_NS + 29 * 10**9)
    assert (await alice.send(content)).cbor["status"] == "replied"


async def test_an_anonymous_read_may_carry_any_expiry(devnet: Devnet) -> None:
    nobody = devnet.anonymous()
    for expiry in (0, 2**64 - 1):
        query = nobody.content("query", method_name="get", ingress_expiry=expiry)
        assert (await nobody.send(query, "v3")).cbor["status"] == "replied"
        read = nobody.content("read_state", paths=[], ingress_expiry=expiry)
        assert (await nobody.certificate_of(await nobody.send(read, "v3"))).time_ns > 0
    # A call is not a read: it could be replayed for ever.
    answer = await nobody.send(add(nobody, ingress_expiry=0))
    assert (answer.status, answer.text.startswith("Invalid request expiry: ")) == (400, True)


async def test_a_request_above_two_mebibytes(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="add", arg=bytes(2 * 1024 * 1024))
    status, text = await refused(devnet, CALL, alice.envelope(content))
    assert status == 413
    assert text.startswith(f"Request 0x{hash_of_map(content).hex()} is too large. Message byte size ")
    assert text.endswith(" is larger than the max allowed 2097152.")
    status, text = await refused(devnet, CALL, bytes(5 * 1024 * 1024))
    assert (status, "is too large" in text) == (413, True)


async def test_another_canister_than_the_url_names(devnet: Devnet) -> None:
    alice = devnet.client()
    for kind in ("call", "query"):
        content = alice.content(kind, method_name="get")
        status, text = await refused(devnet, f"/api/v3/canister/{LEDGER}/{kind}", alice.envelope(content))
        assert status == 400
        assert text == (f"Specified CanisterId {COUNTER_TEXT} does not match effective canister id in URL {LEDGER}")


async def test_a_canister_that_is_not_there(devnet: Devnet) -> None:
    alice = devnet.client()
    elsewhere = bytes.fromhex("00000000000000020101")
    call = alice.content("call", method_name="transfer", canister_id=elsewhere)
    answer = (await alice.send(call, "v4", LEDGER)).cbor
    rejection = {"reject_code": 3, "reject_message": f"Canister {LEDGER} not found", "error_code": "IC0301"}
    assert answer == {"status": "non_replicated_rejection", **rejection}
    answer = (await alice.send(call, "v2", LEDGER)).cbor
    assert answer == rejection
    query = alice.content("query", method_name="transfer", canister_id=elsewhere)
    answer = (await alice.send(query, "v3", LEDGER)).cbor
    assert (answer["status"], answer["error_code"]) == ("rejected", "IC0301")


async def test_a_method_that_is_not_there(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="subtract")
    answer = (await alice.send(content)).cbor
    assert (answer["status"], answer["reject_code"]) == ("non_replicated_rejection", 5)
    assert answer["error_code"] == "IC0536"
    assert "Canister has no update method 'subtract'." in answer["reject_message"]
    # Refused before consensus: it has no status, and a poll finds that out.
    path = [b"request_status", hash_of_map(content)]
    assert (await alice.read_state(path)).lookup(*path) == "absent"


async def test_the_management_canister_does_nothing_here(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", canister_id=b"", method_name="install_code")
    answer = (await alice.send(content)).cbor
    assert (answer["status"], answer["error_code"]) == ("non_replicated_rejection", "IC0536")


async def test_somebody_elses_request_id(devnet: Devnet) -> None:
    alice, mallory = devnet.client(), devnet.client()
    content = add(alice)
    await alice.send(content)
    for reader in (mallory, devnet.anonymous()):
        read = reader.content("read_state", paths=[[b"request_status", hash_of_map(content)]])
        answer = await reader.send(read, "v2")
        assert answer.status == 403
        assert answer.text == "The user tries to access Request ID not signed by the caller."


BAD_PATHS: dict[str, tuple[list[list[bytes]], int, str]] = {
    "unknown": ([[b"nonsense"]], 404, "Invalid path requested."),
    "all": ([[]], 404, "Invalid path requested."),
    "all requests": ([[b"request_status"]], 404, "Invalid path requested."),
    "a canister whole": ([[b"canister", COUNTER]], 404, "Invalid path requested."),
    "certified data": ([[b"canister", COUNTER, b"certified_data"]], 404, "Invalid path requested."),
    "two requests": (
        [[b"request_status", bytes(32)], [b"request_status", b"\x01" * 32]],
        400,
        "More than one non-unique request ID exists in request_status paths",
    ),
    "a short request id": ([[b"request_status", bytes(31)]], 400, "Invalid request id in paths."),
    "another canister": ([[b"canister", b"\x01", b"module_hash"]], 400, "Effective principal id in URL"),
}


@pytest.mark.parametrize("name", BAD_PATHS)
async def test_paths_that_are_not_served(devnet: Devnet, name: str) -> None:
    paths, status, text = BAD_PATHS[name]
    alice = devnet.client()
    answer = await alice.send(alice.content("read_state", paths=paths), "v3")
    assert (answer.status, answer.content_type) == (status, "text/plain")
    assert answer.text.startswith(text)


BAD_BODIES = {
    "empty": b"",
    "text": b"hello",
    "only a tag": TAG,
    "cut off": TAG + cbor2.dumps({"content": {"request_type": "call"}})[:-3],
    "something after it": TAG + cbor2.dumps({}) + b"\x00",
    "not a map": cbor2.dumps([1, 2]),
    "no content": cbor2.dumps({}),
    "a key twice": b"\xa2\x61a\x01\x61a\x02",
    "a float": cbor2.dumps({"content": 1.5}),
    "a negative number": cbor2.dumps({"content": -1}),
    "another tag": cbor2.dumps(cbor2.CBORTag(1234, 1)),
    "brackets without end": b"\x81" * 100_000,
    "a length that lies": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bodies_that_are_no_request(devnet: Devnet, name: str) -> None:
    for endpoint in ("call", "query", "read_state"):
        path = f"/api/v2/canister/{COUNTER_TEXT}/{endpoint}"
        status, text = await refused(devnet, path, BAD_BODIES[name])
        assert status == 400
        assert text.startswith(f"Malformed request: could not parse body as {endpoint} message: ")


BAD_FIELDS: dict[str, dict[str, Any]] = {
    "a query at the call endpoint": {"request_type": "query"},
    "a nonce of 33 bytes": {"nonce": bytes(33)},
    "a method that is bytes": {"method_name": b"add"},
    "an argument that is text": {"arg": "1"},
    "no sender": {"sender": None},
    "a sender that is too long": {"sender": bytes(30)},
    "an expiry beyond a nat64": {"ingress_expiry": 2**64},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
async def test_content_of_the_wrong_shape(devnet: Devnet, name: str) -> None:
    alice = devnet.client()
    status, text = await refused(devnet, CALL, {"content": add(alice) | BAD_FIELDS[name]})
    assert (status, text.startswith("Malformed request: ")) == (400, True)


async def test_a_field_that_is_not_known_is_signed_all_the_same(devnet: Devnet) -> None:
    alice = devnet.client()
    content = add(alice, sender_info={"info": b"\x01", "signer": b"\x02", "sig": b"\x03"})
    certificate = await alice.certificate_of(await alice.send(content))
    assert certificate.value(b"request_status", hash_of_map(content), b"status") == b"replied"


async def test_urls_and_content_types_that_are_wrong(devnet: Devnet) -> None:
    alice = devnet.client()
    envelope = alice.envelope(add(alice))
    status, text = await refused(devnet, "/api/v4/canister/not-an-id/call", envelope)
    assert (status, text.startswith("Malformed request: Invalid principal id in URL")) == (400, True)
    assert (await alice.post(f"/api/v5/canister/{COUNTER_TEXT}/call", envelope)).status == 404
    async with devnet.session.post(devnet.url + CALL, data=TAG + cbor2.dumps(envelope)) as response:
        assert response.status == 400
        assert await response.text() == "Unexpected content-type, expected application/cbor."
    assert devnet.counter.runs == 0


class TestDelegations:
    async def send(self, devnet: Devnet, links: list[Any], signer: Ed25519Key, alice: Client) -> tuple[int, str]:
        content = add(alice)
        envelope = alice.envelope(content)
        envelope["sender_sig"] = signer.sign(b"\x0aic-request" + hash_of_map(content))
        envelope["sender_delegation"] = links
        return await refused(devnet, CALL, envelope)

    async def test_one_that_somebody_else_signed(self, devnet: Devnet) -> None:
        alice, mallory = devnet.client(), Ed25519Key()
        link = delegate(mallory, mallory, alice.clock_ns() + MINUTE_NS)
        status, text = await self.send(devnet, [link], mallory, alice)
        assert (status, "Invalid delegation" in text) == (400, True)

    async def test_one_that_has_expired(self, devnet: Devnet) -> None:
        alice, session = devnet.client(), Ed25519Key()
        assert alice.key is not None
        link = delegate(alice.key, session, alice.clock_ns() - MINUTE_NS)
        status, text = await self.send(devnet, [link], session, alice)
        assert (status, "delegation has expired" in text) == (400, True)

    async def test_one_for_other_canisters(self, devnet: Devnet) -> None:
        alice, session = devnet.client(), Ed25519Key()
        assert alice.key is not None
        link = delegate(alice.key, session, alice.clock_ns() + MINUTE_NS, [b"\x00\x01"])
        status, text = await self.send(devnet, [link], session, alice)
        assert (status, "is not one of the delegation targets" in text) == (400, True)

    async def test_targets_of_two_links_must_both_allow(self, devnet: Devnet) -> None:
        alice, first, second = devnet.client(), Ed25519Key(), Ed25519Key()
        assert alice.key is not None
        later = alice.clock_ns() + MINUTE_NS
        links = [delegate(alice.key, first, later, [b"\x01"]), delegate(first, second, later, [COUNTER])]
        status, text = await self.send(devnet, links, second, alice)
        assert (status, "is not one of the delegation targets" in text) == (400, True)

    async def test_a_key_that_comes_twice(self, devnet: Devnet) -> None:
        alice, session = devnet.client(), Ed25519Key()
        assert alice.key is not None
        later = alice.clock_ns() + MINUTE_NS
        links = [delegate(alice.key, session, later), delegate(session, session, later)]
        status, text = await self.send(devnet, links, session, alice)
        assert (status, "at least one cycle" in text) == (400, True)

    async def test_a_chain_of_twenty_one(self, devnet: Devnet) -> None:
        alice = devnet.client()
        assert isinstance(alice.key, Ed25519Key)
        keys = [alice.key, *(Ed25519Key(os.urandom(32)) for _ in range(21))]
        later = alice.clock_ns() + MINUTE_NS
        links = [delegate(by, to, later) for by, to in pairwise(keys)]
        status, text = await self.send(devnet, links, keys[-1], alice)
        assert (status, "Chain of delegations is too long" in text) == (400, True)

    async def test_reading_a_status_outside_the_targets(self, devnet: Devnet) -> None:
        alice, session = devnet.client(), Ed25519Key()
        assert alice.key is not None
        call = add(alice)
        await alice.send(call)
        read = alice.content("read_state", paths=[[b"request_status", hash_of_map(call)]])
        envelope = {
            "content": read,
            "sender_pubkey": alice.key.der,
            "sender_sig": session.sign(b"\x0aic-request" + hash_of_map(read)),
            "sender_delegation": [delegate(alice.key, session, read["ingress_expiry"], [b"\x01"])],
        }
        answer = await alice.post(f"/api/v3/canister/{COUNTER_TEXT}/read_state", envelope)
        assert (answer.status, "delegation targets" in answer.text) == (403, True)
