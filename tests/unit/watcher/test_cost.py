"""What watching costs: with the log, the work of an interval does not grow with the number of quiet channels."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench_watch import CrowdedShore, Interval, cost_of_interval
from tests.unit.watcher.shore import in_no_time
from watcher.watch import LOOKS_IN_FLIGHT

INTERVAL_S = 10


def measured(channels: int) -> Interval:
    """One interval of a watcher of so many quiet channels."""
    return cost_of_interval(channels)


def test_an_interval_costs_as_much_with_a_hundred_thousand_channels_as_with_ten() -> None:
    few, many = measured(10), measured(100_000)
    assert few.pages == many.pages == 1
    # The looks that each channel has once a day are the only ones: a hundred thousand of them are 1.2 a second.
    assert few.looks <= 1
    assert many.looks <= 100_000 * INTERVAL_S / 86_400 * 2
    assert many.hints == few.hints
    assert many.busy_s < few.busy_s + 0.05


@pytest.mark.parametrize("channels", [40])
def test_without_a_log_looks_are_spread_evenly_over_the_interval(channels: int) -> None:
    @in_no_time
    async def life() -> None:
        shore = CrowdedShore(channels)
        watcher = shore.crowd_watcher(by_log=False)
        run = asyncio.ensure_future(watcher.run())
        await asyncio.sleep(5 * INTERVAL_S)
        shore.look_times.clear()
        await asyncio.sleep(INTERVAL_S)
        assert len(shore.look_times) == pytest.approx(channels, abs=1)
        for tenth in range(10):
            begin = shore.now_s() - INTERVAL_S + tenth * INTERVAL_S / 10
            within = [at for at in shore.look_times if begin <= at < begin + INTERVAL_S / 10]
            assert len(within) <= channels / 10 * 3
        assert shore.most_in_flight <= LOOKS_IN_FLIGHT
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    life()
