"""Descriptors: a flood of connections must not take the last one."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from perund.open_files import raise_open_files
from wire.limits import Limits


@pytest.fixture
def restored() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised_to_what_the_limits_allow(restored: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, restored))
    raise_open_files(Limits(connections=10, handshakes=20, farewells=5, dials=5))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 10 + 40 + 5 + 5 + 256


def test_a_limit_that_is_high_enough_is_left_alone(restored: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, restored))
    raise_open_files(Limits(connections=10, handshakes=20, farewells=5, dials=5))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
