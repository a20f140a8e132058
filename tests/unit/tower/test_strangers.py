"""Strangers: whoever makes up keys and channels takes room from other strangers, and from nobody else."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from perund.tower.books import read_status
from protocol.messages import TowerReceipt, TowerRefusal
from protocol.types import ChannelId
from tests.unit.devnet.scene import ALICE, BOB, Channel
from tests.unit.tower.scene import HOUR, SECOND, Post, client, hours, message, post
from watcher.tower.policy import SLOTS_PROVEN_PER_CHANNEL, TowerPolicy


def made_up(nonce: int) -> Channel:
    """A channel that exists nowhere but here."""
    return Channel((ALICE, BOB), nonce=nonce)


def disk(tower: Post) -> int:
    return sum(file.stat().st_size for file in tower.path.parent.iterdir())


async def test_ten_thousand_proposals_of_strangers_leave_disk_and_memory_flat(tmp_path: Path) -> None:
    """Every proposal has a key of its own and a channel of its own, signed by both sides: by the stranger twice."""
    policy = TowerPolicy(max_unfunded=300, funding_ns=hours(12))
    waves, each = 4, 2500
    sizes: list[int] = []
    memory: list[int] = []
    async with post(tmp_path, policy) as tower:
        real = await tower.coast.channel(10**6)
        await tower.keep(0, message(real, 3))
        await tower.proven(real)
        accepted, refused = 0, 0
        template = message(made_up(0), 0)
        answers: list[TowerReceipt | TowerRefusal] = []
        tracemalloc.start()
        try:
            for wave in range(waves):
                for n in range(each):
                    tower.coast.ahead_ns += SECOND // 100  # as fast as verification of strangers goes
                    number = 1 + wave * each + n
                    # Only those for whom there is room get as far as their signatures.
                    has_room = tower.tower.slots.of_strangers < policy.max_unfunded
                    if has_room:
                        await tower.keep(number, message(made_up(number), 0))
                        accepted += 1
                    else:
                        tower.tower.offer(client(number), template, answers.append)
                        answer = answers.pop()
                        refused += isinstance(answer, TowerRefusal) and answer.code == "full"
                    assert tower.tower.slots.of_strangers <= policy.max_unfunded
                await tower.pass_time(13 * HOUR)
                await tower.until(lambda: tower.tower.slots.of_strangers == 0, "every made-up channel gone")
                await tower.written()
                tower.coast.asked.clear()
                gc.collect()
                memory.append(tracemalloc.get_traced_memory()[0])
                sizes.append(disk(tower))
        finally:
            tracemalloc.stop()

        assert (accepted, refused) == (waves * policy.max_unfunded, waves * (each - policy.max_unfunded))
        assert [s.client for s in tower.tower.slots] == [client(0)]
        assert tower.tower.slots.of_strangers == 0
        assert tower.tower.slots.clients == 1
        assert max(sizes[1:]) <= sizes[0] * 1.1 < 4_000_000, sizes
        # What proposals left behind would be there at the end of every wave; what others in this process hold is not.
        assert min(memory[2:]) - memory[1] < 50_000, memory
        assert tower.version(real) == 3


async def test_known_clients_have_room_that_strangers_cannot_take(tmp_path: Path) -> None:
    policy = TowerPolicy(max_unfunded=5, max_unfunded_per_client=3)
    async with post(tmp_path, policy) as tower:
        real = await tower.coast.channel(1)
        await tower.keep(1, message(real, 1))
        await tower.proven(real)
        for stranger in range(10, 15):
            await tower.keep(stranger, message(made_up(stranger), 0))
        assert await tower.refuse(99, message(made_up(99), 0)) == "full"

        for nonce in (20, 21, 22):
            await tower.keep(1, message(made_up(nonce), 0))
        assert await tower.refuse(1, message(made_up(23), 0)) == "too_many_unfunded"
        await tower.keep(1, message(real, 2))


async def test_one_channel_with_money_makes_no_crowd_known(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy(max_unfunded=3)) as tower:
        real = await tower.coast.channel(1)
        await tower.keep(1, message(real, 1))
        await tower.proven(real)
        for who in range(2, 2 + SLOTS_PROVEN_PER_CHANNEL - 1 + 3):
            await tower.keep(who, message(real, 1))
        assert await tower.refuse(50, message(real, 1)) == "full"
        known = [who for who in range(60) if tower.tower.slots.is_known(client(who))]
        assert known == list(range(1, 1 + SLOTS_PROVEN_PER_CHANNEL))

        # One who came late is guarded all the same, and stays as long as it asks.
        late = 1 + SLOTS_PROVEN_PER_CHANNEL
        await tower.pass_time(11 * HOUR)
        receipt = await tower.keep(late, message(real, 2))
        await tower.pass_time(2 * HOUR)
        tower.tower.sweep()
        assert receipt.expires_ns > tower.coast.chain_ns()
        assert [who for who in range(60) if tower.tower.slots.get(client(who), ChannelId(real.id))] == [
            *range(1, 1 + SLOTS_PROVEN_PER_CHANNEL), late,
        ]  # fmt: skip
        assert tower.version(real) == 2


async def test_the_last_one_whom_money_speaks_for_hands_that_on(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        real = await tower.coast.channel(1)
        await tower.keep(1, message(real, 1))
        await tower.proven(real)
        for who in range(2, 8):
            await tower.keep(who, message(real, 1))
        for who in range(1, 7):
            tower.tower.forget(client(who), ChannelId(real.id))
        assert tower.tower.slots.is_known(client(7))


async def test_a_slot_without_money_goes_after_the_funding_time_and_no_sooner(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        empty, late = made_up(1), await tower.coast.channel(2, money=0)
        receipt = await tower.keep(1, message(empty, 0))
        await tower.keep(1, message(late, 0))
        assert receipt.expires_ns <= receipt.chain_time_ns + 12 * HOUR
        await tower.pass_time(HOUR)
        await tower.until(lambda: ChannelId(empty.id) in tower.coast.asked, "looked at")
        assert tower.tower.slots.total == 2
        await tower.coast.scene.fund(late, ALICE, 10)
        await tower.pass_time(HOUR)
        await tower.proven(late)

        tower.coast.cut = True
        await tower.pass_time(11 * HOUR)
        asked = len(tower.coast.asked)
        await tower.until(lambda: len(tower.coast.asked) > asked, "asked in vain")
        assert tower.tower.slots.total == 2, "no answer is not 'no money'"
        assert await tower.refuse(1, message(empty, 1)) == "unfunded"
        tower.coast.cut = False
        await tower.pass_time(HOUR)
        await tower.until(lambda: tower.tower.slots.total == 1, "lapsed")
        await tower.written()
        assert read_status(tower.path).slots == 1
        assert tower.version(late) == 0


async def test_a_registered_state_proves_a_channel_whose_money_is_gone(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=2)
        tower.coast.register(channel, 0)
        await tower.keep(1, message(channel, 3))
        await tower.until(lambda: tower.coast.registered(channel) == 3, "refuted")


async def test_strangers_wait_for_each_other_and_not_for_the_processor(tmp_path: Path) -> None:
    async with post(tmp_path, running=False) as tower:
        tower.coast.elapsed_ns = lambda: 10**18 + tower.coast.ahead_ns  # type: ignore[method-assign]
        tower.tower._counted_ns = tower.coast.elapsed_ns()
        codes = [
            answer.code if isinstance(answer := await tower.bring(n, message(made_up(n), 0)), TowerRefusal) else "kept"
            for n in range(150)
        ]
        assert codes == ["kept"] * 100 + ["busy"] * 50
        tower.coast.ahead_ns += SECOND // 2
        again = [await tower.bring(n, message(made_up(n), 0)) for n in range(200, 260)]
        assert sum(isinstance(answer, TowerReceipt) for answer in again) == 50


async def test_a_full_tower_gives_the_room_of_expired_promises_away(tmp_path: Path) -> None:
    policy = TowerPolicy(max_channels=10, receipt_ns=hours(1))
    async with post(tmp_path, policy) as tower:
        channels = [await tower.coast.channel(n) for n in range(10)]
        for channel in channels:
            await tower.keep(1, message(channel, 1))
            await tower.proven(channel)
            await tower.keep(1, message(channel, 2))
        assert await tower.refuse(1, message(await tower.coast.channel(11), 1)) == "full"
        tower.tower.sweep()
        assert tower.tower.slots.total == 10
        await tower.pass_time(13 * HOUR)
        await tower.keep(1, message(channels[0], 3))  # this client is still there for this one
        tower.tower.sweep()
        assert tower.tower.slots.total == 9
        assert tower.version(channels[0]) == 3
        await tower.keep(1, message(await tower.coast.channel(11), 1))


# --- room that strangers have filled ----------------------------------------------------------------------


async def admitted(tower: Post, who: int, channel: Channel, origin: str = "") -> bool:
    """Bring a state again and again, as a client does; whether it is taken before long."""
    for _ in range(50):
        answer = await tower.bring(who, message(channel, 1), origin)
        if isinstance(answer, TowerReceipt):
            return True
        assert answer.code in ("full", "busy")
        await asyncio.sleep(0.01)
    return False


async def test_who_has_money_gets_into_a_tower_that_strangers_have_filled(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy(max_unfunded=5, max_clients=3)) as tower:
        for stranger in range(10, 15):
            await tower.keep(stranger, message(made_up(stranger), 0))
        for stranger in range(20, 40):  # they go on asking, and are asked about
            assert await tower.refuse(stranger, message(made_up(stranger), 0)) == "full"
        real = await tower.coast.channel(1)
        assert await admitted(tower, 1, real, "elsewhere")
        assert not await admitted(tower, 50, made_up(50), "elsewhere")
        # Its money speaks for few: not for any number of keys that bring its state.
        crowd = [who for who in range(60, 80) if await admitted(tower, who, real, "elsewhere")]
        assert len(crowd) <= SLOTS_PROVEN_PER_CHANNEL - 1


async def test_strangers_from_one_address_leave_room_for_others(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy(max_unfunded=10, max_unfunded_per_address=4)) as tower:
        taken = [who for who in range(10, 20) if await admitted(tower, who, made_up(who), "here")]
        assert len(taken) == 4
        assert await admitted(tower, 30, made_up(30), "there")
        for who in taken:  # whoever shows money is none of them any more
            tower.tower.forget(client(who), ChannelId(made_up(who).id))
        assert await admitted(tower, 40, made_up(40), "here")


async def test_slots_of_strangers_take_no_room_of_known_clients(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy(max_channels=6, max_clients=2, max_unfunded=6)) as tower:
        for stranger in range(10, 16):
            await tower.keep(stranger, message(made_up(stranger), 0))
        real = await tower.coast.channel(1)
        assert await admitted(tower, 1, real)
        await tower.proven(real)
        assert tower.tower.slots.known_clients == 1
