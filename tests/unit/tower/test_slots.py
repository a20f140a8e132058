"""The counts by which room is given are those of the slots, whatever happened to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.types import ChannelId, Nanos
from tests.unit.tower.scene import client
from watcher.tower.slots import Slot, Slots

CHANNELS = [ChannelId(bytes([n]) * 64) for n in range(4)]
Action = tuple[str, int, int]


@given(st.lists(st.tuples(st.sampled_from(["add", "prove", "remove"]), st.integers(0, 3), st.integers(0, 3))))
def test_counts_are_those_of_the_slots(actions: list[Action]) -> None:
    slots = Slots()
    for action, who, which in actions:
        slot = slots.get(client(who), CHANNELS[which])
        match action:
            case "add" if slot is None:
                new = Slot(client(who), CHANNELS[which], which, b"", Nanos(0), Nanos(0), Nanos(0), proven=which == 3)
                slots.add(new, Nanos(1), f"address {who % 2}")
            case "prove" if slot is not None:
                slots.prove(slot)
            case "remove" if slot is not None:
                slots.remove(slot)
            case _:
                continue
        present = list(slots)
        known = {s.client for s in present if s.proven}
        assert slots.total == len(present)
        assert slots.clients == len({s.client for s in present})
        assert slots.of_strangers == sum(s.client not in known for s in present)
        assert slots.known_clients == len(known)
        for parity in range(2):
            here = {client(who) for who in range(4) if who % 2 == parity} - known
            assert slots.of_strangers_at(f"address {parity}") == sum(s.client in here for s in present)
        for number in range(4):
            mine = [s for s in present if s.client == client(number)]
            assert slots.count(client(number)) == len(mine)
            assert slots.unproven(client(number)) == sum(not s.proven for s in mine)
            assert slots.is_known(client(number)) == (client(number) in known)
        for channel, guarded in slots.channels.items():
            assert guarded.slots
            assert all(s.channel == channel for s in guarded.slots.values())
            assert guarded.proven == any(s.proven for s in guarded.slots.values())
