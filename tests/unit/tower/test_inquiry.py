"""A loss is not ended before every tower has answered, and not held up for ever by one that is gone (rule 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from perund.tower import inquiry
from perund.tower.inquiry import Inquiries
from protocol.types import ChannelId

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver

ONE, TWO = b"\x02" * 33, b"\x03" * 33


@dataclass
class Waiting:
    """Stands for a driver: told when the towers have answered."""

    number: int
    told: asyncio.Event = field(default_factory=asyncio.Event)
    times: int = 0

    @property
    def channel(self) -> SimpleNamespace:
        return SimpleNamespace(id=ChannelId(bytes([self.number]) * 64))

    @property
    def short(self) -> str:
        return str(self.number)

    def towers_answered(self) -> None:
        self.times += 1
        self.told.set()


def begin(inquiries: Inquiries, number: int, *towers: bytes) -> Waiting:
    made = Waiting(number)
    inquiries.begin(cast("ChannelDriver", made), set(towers))
    return made


async def test_every_tower_has_to_answer_for_the_very_channel() -> None:
    inquiries = Inquiries()
    first, second = begin(inquiries, 1, ONE, TWO), begin(inquiries, 2, ONE)
    inquiries.answered(ONE, first.channel.id)
    inquiries.answered(ONE, first.channel.id)
    assert (first.times, second.times) == (0, 0)
    assert first.channel.id in inquiries
    inquiries.answered(TWO, first.channel.id)
    inquiries.answered(TWO, first.channel.id)
    inquiries.answered(TWO, second.channel.id)
    assert (first.times, second.times) == (1, 0)
    assert first.channel.id not in inquiries
    inquiries.close()


async def test_nobody_waits_for_a_tower_that_was_dropped_or_for_none() -> None:
    inquiries = Inquiries()
    assert begin(inquiries, 1).times == 1
    both, one = begin(inquiries, 2, ONE, TWO), begin(inquiries, 3, TWO)
    inquiries.dropped(TWO)
    assert (both.times, one.times) == (0, 1)
    inquiries.close()


async def test_a_tower_that_is_gone_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "PATIENCE_S", 0.01)
    waiting = begin(Inquiries(), 1, ONE)
    assert waiting.times == 0
    async with asyncio.timeout(10):
        await waiting.told.wait()
    assert waiting.times == 1


async def test_a_closed_channel_and_a_node_that_stops_wait_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "PATIENCE_S", 0.0)
    inquiries = Inquiries()
    closed, stopped = begin(inquiries, 1, ONE), begin(inquiries, 2, ONE)
    inquiries.forget(closed.channel.id)
    inquiries.close()
    later = begin(Inquiries(), 3, ONE)
    async with asyncio.timeout(10):
        await later.told.wait()  # its timer is younger than theirs were
    assert (closed.times, stopped.times) == (0, 0)
