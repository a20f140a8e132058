"""Lines that others cause are few, and those that were held back are counted."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from perund.log_budget import LogBudget, log_budget
from perund.logs import configure_logs
from perund.repeats import MOST_KEYS, Repeats


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def log() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """Logs to memory; gives back the lines so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    out = io.StringIO()
    configure_logs("info", "json", out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def clock(log: object) -> Clock:
    """The clock of the budget of the log, which does not move by itself."""
    budget, clock = log_budget(), Clock()
    assert budget is not None
    budget._clock_s, budget._summary_s = clock, 0.0
    return clock


def test_one_party_writes_ten_lines_and_then_ever_fewer(
    log: Callable[[], list[dict[str, object]]], clock: Clock
) -> None:
    for second in range(3_600):
        clock.now_s = float(second)
        for _ in range(50):
            structlog.get_logger().warning("peer.complained", peer="ab" * 33, text="x" * 200)
    shown = [line for line in log() if line["event"] == "peer.complained"]
    assert 10 < len(shown) < 30
    assert any(line.get("repeated") for line in shown)
    counted = [line for line in log() if line["event"] == "log.suppressed"]
    assert 0 < len(counted) <= 60
    assert sum(int(str(line["lines"])) for line in counted) > 170_000


def test_many_parties_do_not_write_more_for_it(log: Callable[[], list[dict[str, object]]], clock: Clock) -> None:
    for number in range(60_000):
        clock.now_s = number / 1_000
        structlog.get_logger().warning("peer.complained", peer=f"{number:066x}")
        structlog.get_logger().info("peer.connected", peer=f"{number:066x}", address=f"127.0.0.1:{number}")
    assert len(log()) < 2 * (200 + 60) + 10


def test_noise_hides_no_alarm_and_nothing_of_our_own(log: Callable[[], list[dict[str, object]]], clock: Clock) -> None:
    for number in range(10_000):
        for kind in range(15):
            structlog.get_logger().info(f"noise.kind_{kind}", peer=f"{number:066x}")
    structlog.get_logger().error("channel.settled_below_ours", channel="cd" * 64, alarm=True)
    structlog.get_logger().info("node.stopping")
    structlog.get_logger().info("noise.another", peer="ef")
    kinds = [line["event"] for line in log()]
    assert kinds[-2:] == ["channel.settled_below_ours", "node.stopping"]


def test_a_party_that_errs_again_and_again_is_held_to_it_too(
    log: Callable[[], list[dict[str, object]]], clock: Clock
) -> None:
    for _ in range(1_000):
        structlog.get_logger().error("tower.conflict", tower="ab", alarm=True)
        logging.getLogger("asyncio").error("what follows a durable write failed")
    assert len(log()) == 20


def test_the_end_of_a_flood_is_told_without_another_line(
    log: Callable[[], list[dict[str, object]]], clock: Clock
) -> None:
    for _ in range(100):
        structlog.get_logger().warning("peer.complained", peer="ab")
    budget = log_budget()
    assert isinstance(budget, LogBudget)
    budget.tick()
    assert len(log()) == 10
    clock.now_s = 61
    budget.tick()
    assert log()[-1]["kinds"] == {"peer.complained": 90}


def test_repeats_forget_for_room_and_after_a_time() -> None:
    repeats = Repeats(1, 1, 8, 100)
    for key in range(MOST_KEYS * 3):
        assert repeats.take(key, 0) == 0
    assert len(repeats) == MOST_KEYS
    assert repeats.take("it", 0) == 0
    shown = [second for second in range(60) if repeats.take("it", second) is not None]
    assert shown == [1, 3, 7, 15, 23, 31, 39, 47, 55]
    assert repeats.take("it", 200) == 4
    assert repeats.take("it", 200.5) is None
    assert repeats.overdue(200.6) == []
    assert repeats.overdue(202) == [("it", 1, None)]
    assert repeats.overdue(300) == []
