"""The property is worth something only if it finds a channel that breaks the rules."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.test_channel_life import ChannelLife
from tests.unit.protocol import broken
from tests.unit.protocol.scene import MakeChannel

QUICK = settings(
    max_examples=4000,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class RulesOnly(ChannelLife):
    """A life that is not judged by its end: books that do not agree may be what a broken rule shows first, and which
    life is found first depends on what else the test run has loaded.
    """

    def teardown(self) -> None:
        if hasattr(self, "scene") and not self.scene.broken:
            self.scene.heal()


@pytest.mark.parametrize(
    ("make", "caught"),
    [
        (broken.forgetful(broken.DropsTheUnanswered), "rule 1"),
        (broken.without_writing(broken.StateRecord), "rule 2"),
        (broken.without_writing(broken.UpdateRecord), "rule 2"),
        (broken.instead(broken.FreshOrderer), "rule 4"),
        (broken.instead(broken.FreshFollower), "rule 4"),
        (broken.instead(broken.Mints), "rule 6"),
    ],
)
def test_a_broken_channel_does_not_live_long(make: MakeChannel, caught: str) -> None:
    broken_life = type("BrokenLife", (RulesOnly,), {"sides": {"make": make}})
    with pytest.raises(AssertionError, match=caught):
        run_state_machine_as_test(broken_life, settings=QUICK)
