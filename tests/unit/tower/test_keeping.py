"""What a tower keeps: the newest state of each client for each channel, and never an older one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from perund.tower.books import read_status
from protocol.errors import PeerViolation
from protocol.messages import TowerReceipt
from protocol.types import MAX_E8S, MAX_VERSION, ChannelId
from tests.unit.devnet.scene import ALICE, BOB, Channel
from tests.unit.tower.scene import HOUR, SECOND, client, hours, message, post
from watcher.tower.policy import TowerPolicy


async def test_a_newer_state_replaces_an_older_one_and_never_the_other_way(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        for version in (0, 3, 7):
            receipt = await tower.keep(1, message(channel, version))
            assert (receipt.version, receipt.channel) == (version, channel.id)
        replayed = await tower.keep(1, message(channel, 3))

        assert (replayed.version, replayed.state_hash) == (7, receipt.state_hash)
        assert tower.version(channel) == 7
        assert tower.tower.slots.total == 1


async def test_in_any_order_the_newest_stays_and_each_receipt_covers_what_was_brought(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        versions = list(range(40))
        random.Random(5).shuffle(versions)
        answers: list[TowerReceipt] = []
        for version in versions:  # all of them before anything is on the disk
            tower.tower.offer(client(1), message(channel, version), answers.append)  # type: ignore[arg-type]
        await tower.written()

        assert [a.version for a in answers] == [max(versions[: i + 1]) for i in range(40)]
        assert tower.version(channel) == 39


async def test_a_receipt_leaves_only_after_its_state_is_on_the_disk(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        found: list[int | None] = []
        done = asyncio.Event()

        def answered(_: object) -> None:
            found.append(tower.version(channel))
            done.set()

        tower.tower.offer(client(1), message(channel, 5), answered)
        assert found == []
        await done.wait()
        assert found == [5]


async def test_the_disk_itself_refuses_an_older_state(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        await tower.keep(1, message(channel, 7))
        slot = tower.tower.slots.get(client(1), ChannelId(channel.id))
        assert slot is not None
        slot.version = 3  # a defect in memory
        tower.books.keep(slot, message(channel, 3), lambda: None)
        await tower.until(lambda: bool(tower.failures), "the write refused")
        assert "older state" in str(tower.failures.pop())
        assert tower.version(channel) == 7


async def test_another_state_of_the_same_version_is_refused_and_both_are_kept(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        receipt = await tower.keep(1, message(channel, 5))
        await tower.proven(channel)

        assert await tower.refuse(1, message(channel, 5, paid=400)) == "state_conflict"
        assert (await tower.keep(1, message(channel, 5))).state_hash == receipt.state_hash
        await tower.written()
        status = read_status(tower.path)
        assert status.conflicts == 1
        assert status.notes[0].kind == "tower.conflict"
        assert status.notes[0].facts["alarm"] is True
        assert tower.version(channel) == 5


async def test_two_clients_have_a_slot_each_and_the_newest_of_both_guards(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        await tower.keep(1, message(channel, 4))
        await tower.keep(2, message(channel, 9))
        assert tower.version(channel) == 9
        tower.tower.forget(client(1), ChannelId(channel.id))  # each gives up its own
        tower.tower.forget(client(3), ChannelId(channel.id))
        await tower.written()
        assert tower.version(channel) == 9
        assert (await tower.keep(1, message(channel, 4))).version == 4  # a slot of its own again
        tower.tower.forget(client(2), ChannelId(channel.id))
        await tower.written()
        assert tower.version(channel) == 4
        assert tower.tower.slots.total == 1


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channels = [await tower.coast.channel(n) for n in range(3)]
        for n, channel in enumerate(channels):
            await tower.keep(1, message(channel, n))
        await tower.proven(channels[2])
        receipt = await tower.keep(1, message(channels[2], 2))
        await tower.written()
        before = {(s.client, s.channel, s.version, s.digest, s.expires_ns, s.proven) for s in tower.tower.slots}

        await tower.restart()

        after = {(s.client, s.channel, s.version, s.digest, s.expires_ns, s.proven) for s in tower.tower.slots}
        assert after == before
        assert [tower.version(channel) for channel in channels] == [0, 1, 2]
        again = await tower.keep(1, message(channels[2], 1))  # what was promised holds
        assert (again.version, again.state_hash) == (2, receipt.state_hash)
        assert again.expires_ns >= receipt.expires_ns


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_comes_in_whatever_order_the_disk_has_the_newest_of_each_slot(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    expected: dict[tuple[int, int], int] = {}
    async with post(tmp_path) as tower:
        channels = [await tower.coast.channel(n) for n in range(3)]
        for _ in range(120):
            who, which, version = rng.randrange(1, 4), rng.randrange(3), rng.randrange(12)
            match rng.choices(["bring", "conflict", "forget", "restart"], [80, 8, 8, 4])[0]:
                case "bring":
                    receipt = await tower.keep(who, message(channels[which], version))
                    held = max(version, expected.get((who, which), 0))
                    expected[who, which] = held
                    assert receipt.version == held
                case "conflict" if held := expected.get((who, which), 0):
                    assert await tower.refuse(who, message(channels[which], held, paid=500)) == "state_conflict"
                case "forget":
                    tower.tower.forget(client(who), ChannelId(channels[which].id))
                    expected.pop((who, which), None)
                case "restart":
                    await tower.restart()
                case _:
                    continue
        await tower.restart()
        slots = {(s.client, s.channel): s.version for s in tower.tower.slots}
        assert slots == {(client(w), channels[c].id): version for (w, c), version in expected.items()}
        for number, channel in enumerate(channels):
            versions = [version for (_, which), version in expected.items() if which == number]
            assert tower.version(channel) == (max(versions) if versions else None)


async def test_the_largest_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = Channel((ALICE, BOB), nonce=1)
        for version, amounts in ((2**63 - 2, (MAX_E8S, 0)), (MAX_VERSION, (1, MAX_E8S - 1))):
            signed = channel.signed(version, *amounts)
            base = message(channel, 0)
            state = type(base)(
                base.nonce, base.participant_0, base.participant_1, base.challenge_duration_ns, version, amounts,
                False, *signed.sigs,
            )  # fmt: skip
            assert (await tower.keep(1, state)).version == version
            found = tower.books.newest(ChannelId(channel.id))
            assert found is not None
            assert (found[1].state.version, found[1].state.allocation) == (version, amounts)


async def test_what_the_canister_would_refuse_is_refused(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1)
        good = message(channel, 5)

        def but(**changes: object) -> object:
            fields = {name: getattr(good, name) for name in good.__slots__}
            return type(good)(**(fields | changes))

        bad = bytearray(good.signature_1)
        bad[7] ^= 1
        offers: list[tuple[object, str]] = [
            (but(signature_1=bytes(bad)), "bad_signature"),
            (but(signature_0=good.signature_1, signature_1=good.signature_0), "bad_signature"),
            (but(version=6), "bad_signature"),
            (but(finalized=True), "bad_signature"),
            (but(nonce=bytes(63) + b"\x07"), "bad_signature"),
            (but(participant_1=bytes(31) + b"\x80"), "bad_key"),
            (but(participant_1=b"\x01" + bytes(31)), "bad_key"),
            (but(version=MAX_VERSION + 1), "bad_version"),
        ]
        for offer, code in offers:
            assert await tower.refuse(1, offer) == code  # type: ignore[arg-type]
        for impossible in (but(participant_1=good.participant_0), but(challenge_duration_ns=0)):
            with pytest.raises(PeerViolation) as violation:
                await tower.bring(1, impossible)  # type: ignore[arg-type]
            assert violation.value.code == "bad_params"
        assert tower.tower.slots.total == 0


async def test_the_policy_says_who_and_how_large_and_how_long(tmp_path: Path) -> None:
    policy = TowerPolicy(
        clients=frozenset({client(1)}), min_challenge_ns=hours(1), max_challenge_ns=hours(2), min_total_e8s=500,
        max_total_e8s=1000, max_channels_per_client=2,
    )  # fmt: skip
    async with post(tmp_path, policy) as tower:
        assert await tower.refuse(2, message(Channel((ALICE, BOB), nonce=1), 0)) == "not_allowed"
        short = message(Channel((ALICE, BOB), nonce=2, duration_ns=HOUR - SECOND), 0)
        long = message(Channel((ALICE, BOB), nonce=3, duration_ns=2 * HOUR + 1), 0)
        for state in (short, long):
            assert await tower.refuse(1, state) == "bad_challenge_duration"
        small = Channel((ALICE, BOB), nonce=4)
        signed = small.signed(0, 499, 0)
        base = message(small, 0)
        state = type(base)(
            base.nonce, base.participant_0, base.participant_1, base.challenge_duration_ns, 0, (499, 0), False,
            *signed.sigs,
        )  # fmt: skip
        assert await tower.refuse(1, state) == "bad_amount"
        for nonce in (5, 6):
            await tower.keep(1, message(Channel((ALICE, BOB), nonce=nonce), 0))
        assert await tower.refuse(1, message(Channel((ALICE, BOB), nonce=7), 0)) == "too_many_channels"
        await tower.keep(1, message(Channel((ALICE, BOB), nonce=6), 1))  # a slot that exists goes on


async def test_nothing_is_promised_before_the_chain_time_is_known(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        tower.coast.certified = False
        assert await tower.refuse(1, message(await tower.coast.channel(1), 0)) == "not_ready"
        tower.coast.certified = True
        await tower.keep(1, message(await tower.coast.channel(2), 0))
