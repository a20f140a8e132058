"""A tower refutes what is below the newest state of any client, and never opens a dispute."""

from __future__ import annotations

from pathlib import Path

from perund.tower.books import read_status
from protocol.types import ChannelId
from tests.unit.tower.scene import HOUR, client, hours, message, post
from watcher.tower.policy import TowerPolicy


async def test_an_old_state_is_refuted_with_the_newest_of_all_clients(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=2)
        await tower.keep(1, message(channel, 3))
        await tower.keep(2, message(channel, 8))
        await tower.proven(channel)
        tower.coast.register(channel, 1)

        await tower.until(lambda: tower.coast.registered(channel) == 8, "refuted")

        await tower.until(lambda: "tower.refuted" in [n.kind for n in read_status(tower.path).notes], "reported")
        assert tower.coast.refutations == [8]


async def test_what_is_at_or_above_its_version_is_left_alone(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        same, above, quiet = [await tower.coast.channel(n, challenge_s=1) for n in range(3)]
        for channel in (same, above, quiet):
            await tower.keep(1, message(channel, 4))
            await tower.proven(channel)
        tower.coast.register(same, 4)
        tower.coast.register(above, 5)
        settled = tower.tower.slots.channels
        await tower.until(
            lambda: all(settled[ChannelId(c.id)].settled_ns is not None for c in (same, above)), "both settled"
        )
        assert tower.coast.refutations == []
        assert tower.coast.registered(quiet) is None  # it never opens a dispute


async def test_a_state_that_comes_while_an_old_one_is_registered_is_used_at_once(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=3600)  # the next look by itself is far away
        await tower.keep(1, message(channel, 4))
        await tower.proven(channel)
        tower.coast.register(channel, 4)
        tower.watcher.hurry(ChannelId(channel.id))
        guarded = tower.tower.slots.channels[ChannelId(channel.id)]
        await tower.until(lambda: guarded.registered == 4, "seen")

        await tower.keep(1, message(channel, 9))

        await tower.until(lambda: tower.coast.registered(channel) == 9, "refuted with what has just come")


async def test_slots_are_taken_up_again_after_a_crash_and_refute(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=2)
        await tower.keep(1, message(channel, 6))
        await tower.proven(channel)
        await tower.written()
        await tower.close()
        tower.coast.register(channel, 0)

        tower.open()

        await tower.until(lambda: tower.coast.registered(channel) == 6, "refuted")


async def test_a_tower_that_cannot_write_guards_what_it_has_and_promises_nothing(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=2)
        await tower.keep(1, message(channel, 6))
        await tower.proven(channel)
        slot = tower.tower.slots.get(client(1), ChannelId(channel.id))
        assert slot is not None
        slot.version = 5
        tower.tower.offer(client(1), message(channel, 6, paid=7), lambda _: None)  # the disk refuses it
        await tower.until(lambda: bool(tower.failures), "a failed write")
        tower.tower.guards_only = True  # as the process does

        assert await tower.refuse(1, message(channel, 7)) == "not_ready"
        tower.tower.forget(client(1), ChannelId(channel.id))
        tower.coast.register(channel, 1)
        await tower.until(lambda: tower.coast.registered(channel) == 6, "refuted")
        tower.failures.clear()


async def test_a_final_state_concludes(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=2)
        await tower.keep(1, message(channel, 6, final=True))
        await tower.proven(channel)
        tower.coast.register(channel, 2)
        guarded = tower.tower.slots.channels[ChannelId(channel.id)]
        await tower.until(lambda: guarded.settled_ns is not None, "settled")
        assert tower.coast.registered(channel) == 6


async def test_an_equal_but_different_state_is_an_alarm(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=3600)
        await tower.keep(1, message(channel, 4, paid=700))
        await tower.proven(channel)
        tower.coast.register(channel, 4)
        for _ in range(3):
            tower.watcher.hurry(ChannelId(channel.id))
            await tower.until(lambda: tower.tower.slots.channels[ChannelId(channel.id)].registered == 4, "seen")
        await tower.written()
        kinds = [note.kind for note in read_status(tower.path).notes]
        assert kinds == ["tower.other_state_registered"]


async def test_settled_below_is_an_alarm_and_a_settled_slot_goes_after_the_grace(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy(grace_ns=hours(1))) as tower:
        channel = await tower.coast.channel(1, challenge_s=3600)
        await tower.keep(1, message(channel, 4))
        await tower.proven(channel)
        tower.coast.cut = True  # the tower is cut off for the whole period
        tower.coast.register(channel, 1)
        await tower.pass_time(2 * HOUR)
        tower.coast.cut = False
        tower.watcher.hurry(ChannelId(channel.id))
        guarded = tower.tower.slots.channels[ChannelId(channel.id)]
        await tower.until(lambda: guarded.settled_ns is not None, "settled")
        await tower.written()
        assert read_status(tower.path).notes[0].kind == "tower.settled_below_ours"

        assert await tower.refuse(1, message(channel, 5)) == "settled"
        tower.tower.sweep()
        assert tower.tower.slots.total == 1
        await tower.restart()
        await tower.pass_time(2 * HOUR)
        tower.tower.sweep()
        await tower.written()
        assert (tower.tower.slots.total, read_status(tower.path).slots) == (0, 0)


async def test_who_forgets_its_channel_is_watched_no_more(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, challenge_s=1)
        await tower.keep(1, message(channel, 4))
        await tower.proven(channel)
        tower.tower.forget(client(1), ChannelId(channel.id))
        tower.coast.register(channel, 1)
        await tower.written()
        assert tower.version(channel) is None
        assert tower.coast.refutations == []
        assert tower.coast.registered(channel) == 1
