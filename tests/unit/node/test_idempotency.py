"""The same key twice is one action; with other arguments it is an error; after a refusal it is free again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from perund.control.errors import RpcError
from perund.control.schema import ChannelDisputeParams, PayParams, SendParams
from perund.control.values import PaidColumn, PaidE8s
from perund.node.idempotency import Idempotency
from perund.store.store import Store
from protocol.errors import CallerMistake


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "perund.db", b"\x11" * 32, lambda _: None)
    yield opened
    opened.close()


def send(amount: int = 5, to: str = "aaaaa-aa") -> SendParams:
    return SendParams(to=to, amount_e8s=PaidE8s(amount), idempotency_key="key")


async def done(keys: Idempotency, store: Store, params: SendParams, result: str) -> str | None:
    """Do an action under the key of its params, unless it was done."""
    async with keys.once(params.idempotency_key, "wallet.send", params) as earlier:
        if earlier is None:
            store.commit(keys.note(params.idempotency_key, "wallet.send", params, result))
        return earlier


async def test_the_second_call_gets_what_the_first_led_to(store: Store) -> None:
    keys = Idempotency(store)
    assert await done(keys, store, send(), "one") is None
    assert await done(keys, store, send(), "two") == "one"
    assert await done(Idempotency(store), store, send(), "three") == "one"  # also after a restart


@pytest.mark.parametrize("other", [send(6), send(to="2vxsx-fae"), ChannelDisputeParams("ab" * 8, "key")])
async def test_another_call_under_the_same_key_is_a_mistake(
    store: Store, other: SendParams | ChannelDisputeParams
) -> None:
    keys = Idempotency(store)
    await done(keys, store, send(), "one")
    method = "wallet.send" if isinstance(other, SendParams) else "channel.dispute"
    with pytest.raises(CallerMistake) as caught:
        keys.begin("key", method, other)
    assert caught.value.code == "idempotency_conflict"


async def test_the_method_is_part_of_the_action(store: Store) -> None:
    keys = Idempotency(store)
    await done(keys, store, send(), "one")
    with pytest.raises(CallerMistake):
        keys.begin("key", "another.method", send())


async def test_the_same_call_while_the_first_is_taken_up_is_asked_to_come_again(store: Store) -> None:
    keys = Idempotency(store)
    results = await asyncio.gather(*(done(keys, store, send(), "one") for _ in range(20)), return_exceptions=True)
    assert results.count(None) == 1
    others = [r for r in results if r is not None]
    busy = [r for r in others if isinstance(r, RpcError)]
    assert {(r.name, r.retryable) for r in busy} == {("busy", True)}
    assert all(r == "one" for r in others if r not in busy)  # it is on the disk already
    assert await done(keys, store, send(), "two") == "one"


async def test_a_refused_action_leaves_the_key_free(store: Store) -> None:
    keys = Idempotency(store)
    with pytest.raises(CallerMistake, match="refused"):
        async with keys.once("key", "wallet.send", send()):
            raise CallerMistake("insufficient_funds", "refused")
    assert await done(keys, store, send(6), "one") is None


async def test_on_leaving_the_action_is_durable(store: Store) -> None:
    keys = Idempotency(store)
    await done(keys, store, send(), "one")
    row = store.read.request("key")
    assert row is not None
    assert (row.method, row.result) == ("wallet.send", "one")


async def test_whether_to_wait_or_to_warn_is_not_part_of_the_action_and_amounts_are(store: Store) -> None:
    keys = Idempotency(store)

    def pay(amounts: list[int], *, wait: bool) -> PayParams:
        return PayParams(channel="ab" * 8, amounts_e8s=PaidColumn(amounts), wait=wait, idempotency_key="key")

    await store.write(keys.note("send", "wallet.send", send(), "7"))
    assert keys.begin("send", "wallet.send", msgspec.structs.replace(send(), accept_loss=True)) == "7"
    await store.write(keys.note("key", "channel.pay", pay([1, 2], wait=True), "id:2"))
    assert keys.begin("key", "channel.pay", pay([1, 2], wait=False)) == "id:2"
    with pytest.raises(CallerMistake):
        keys.begin("key", "channel.pay", pay([2, 1], wait=True))


async def test_the_hash_of_a_call_is_that_of_the_versions_before(store: Store) -> None:
    """Or a key from before an update would be a conflict, and who repeats the call would pay twice."""
    (note,) = Idempotency(store).note("key", "wallet.send", send(), "7")
    before = hashlib.sha256(b'{"amount_e8s":"5","to":"aaaaa-aa"}').digest()
    assert before in note.values


async def test_without_a_key_every_call_is_an_action(store: Store) -> None:
    keys = Idempotency(store)
    params = SendParams(to="aaaaa-aa", amount_e8s=PaidE8s(1))
    for _ in range(2):
        assert keys.begin(None, "wallet.send", params) is None
        assert keys.note(None, "wallet.send", params, "x") == ()
        keys.done(None)
