"""A receipt is signed over everything that it means, by the tower's node key."""

from __future__ import annotations

from dataclasses import replace

from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import TowerReceipt
from protocol.types import MAX_NAT64, ChannelId, Nanos
from tests.unit.tower.scene import NETWORK, TOWER_ID, TOWER_KEY, client
from watcher.tower.receipts import Notary, receipt_bytes, verify_receipt

NOTARY = Notary(TOWER_KEY, NETWORK)
CHANNEL = ChannelId(bytes(range(64)))
GOOD = NOTARY.sign(client(1), CHANNEL, 7, b"\x05" * 32, Nanos(10), Nanos(20))
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def test_the_bytes_that_are_signed() -> None:
    assert receipt_bytes(NETWORK, client(1), GOOD) == (
        b"perund-tower-receipt/1" + NETWORK + client(1) + CHANNEL
        + bytes(7) + b"\x07" + b"\x05" * 32 + bytes(7) + b"\x0a" + bytes(7) + b"\x14"
    )  # fmt: skip
    assert len(receipt_bytes(NETWORK, client(1), GOOD)) == 207


def test_it_verifies_for_its_client_on_its_network_and_for_nobody_else() -> None:
    assert verify_receipt(TOWER_ID, NETWORK, client(1), GOOD)
    assert not verify_receipt(TOWER_ID, NETWORK, client(2), GOOD)
    assert not verify_receipt(TOWER_ID, bytes(32), client(1), GOOD)
    assert not verify_receipt(PrivateKey(b"\x01" * 32).public_key.format(), NETWORK, client(1), GOOD)
    assert not verify_receipt(b"\x09" * 33, NETWORK, client(1), GOOD)


def test_every_field_counts() -> None:
    for changed in (
        replace(GOOD, channel=ChannelId(bytes(64))),
        replace(GOOD, version=8),
        replace(GOOD, state_hash=bytes(32)),
        replace(GOOD, chain_time_ns=Nanos(11)),
        replace(GOOD, expires_ns=Nanos(21)),
    ):
        assert not verify_receipt(TOWER_ID, NETWORK, client(1), changed)


def test_the_same_facts_give_the_same_receipt() -> None:
    assert NOTARY.sign(client(1), CHANNEL, 7, b"\x05" * 32, Nanos(10), Nanos(20)) == GOOD


def test_of_two_signatures_for_the_same_bytes_only_one_counts() -> None:
    s = int.from_bytes(GOOD.signature[32:], "big")
    other = replace(GOOD, signature=GOOD.signature[:32] + (ORDER - s).to_bytes(32, "big"))
    assert not verify_receipt(TOWER_ID, NETWORK, client(1), other)


@given(st.binary(min_size=64, max_size=64), st.integers(0, MAX_NAT64), st.integers(0, MAX_NAT64))
def test_garbage_is_no_receipt_and_no_error(signature: bytes, version: int, time_ns: int) -> None:
    receipt = TowerReceipt(CHANNEL, version, bytes(32), Nanos(time_ns), Nanos(MAX_NAT64), signature)
    assert not verify_receipt(TOWER_ID, NETWORK, client(1), receipt)
    for extreme in (bytes(64), b"\xff" * 64, ORDER.to_bytes(32, "big") * 2):
        assert not verify_receipt(TOWER_ID, NETWORK, client(1), replace(receipt, signature=extreme))
