"""Lives of a node: what proves that two ran at once, and what whoever talks to both remembers and says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from coincurve import PrivateKey

from protocol.hearing import Heard, Hearing
from protocol.lives import outlives, sign_life, sign_stop, verify_life, verify_stop
from protocol.messages import Life, LifeHeard, LifeStopped

KEY, OTHER = PrivateKey(b"\x11" * 32), PrivateKey(b"\x22" * 32)
NODE, STRANGER = KEY.public_key.format(), OTHER.public_key.format()
NETWORK = b"\x33" * 32


def life(number: int, nonce: int = 0, key: PrivateKey = KEY) -> Life:
    return sign_life(key, NETWORK, number, nonce.to_bytes(32, "big"))


def shown(of: Life) -> LifeHeard:
    return LifeHeard(of.number, of.nonce, of.signature)


@dataclass
class Ear:
    """Somebody who hears lives. `known`: with whom there are channels."""

    known: set[bytes] = field(default_factory=lambda: {NODE})
    disk: dict[bytes, Heard] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.hearing = Hearing(NETWORK, self.disk.get, self.known.__contains__, self._write)

    def _write(self, node: bytes, heard: Heard) -> None:
        self.disk[node], self.written = heard, self.written + 1

    def meets(self, said: Life, node: bytes = NODE) -> tuple[LifeHeard | LifeStopped, ...] | None:
        """A new session, in which a node says its life."""
        self.hearing.ended(node)
        return self.hearing.announced(node, said)


def test_a_higher_life_takes_the_place_and_an_older_one_is_shown_it() -> None:
    ear = Ear()
    assert ear.meets(life(5)) == ()
    assert ear.meets(life(6)) == ()
    assert not ear.hearing.outlived(NODE)
    assert ear.meets(life(5)) == (shown(life(6)),)
    assert ear.hearing.outlived(NODE)
    ear.restart()
    assert ear.meets(life(4)) == (shown(life(6)),)
    assert ear.meets(life(6)) == ()


def test_of_two_with_one_number_both_are_shown_the_other() -> None:
    ear = Ear()
    assert ear.meets(life(6, 1)) == ()
    assert ear.meets(life(6, 2)) == (shown(life(6, 1)),)
    assert ear.hearing.outlived(NODE)
    ear.restart()
    assert ear.meets(life(6, 1)) == (shown(life(6, 2)),)
    assert ear.hearing.outlived(NODE)
    assert ear.meets(life(6, 3)) == (shown(life(6, 1)),)
    assert ear.meets(life(7, 1)) == ()
    assert not ear.hearing.outlived(NODE)


def test_the_newest_is_told_of_the_older_one_that_stopped() -> None:
    ear = Ear()
    ear.meets(life(6))
    ear.meets(life(5))
    stop = sign_stop(KEY, NETWORK, life(5), shown(life(6)))
    assert ear.hearing.stopped(NODE, stop)
    ear.restart()
    assert ear.meets(life(6)) == (stop,)
    assert not ear.hearing.outlived(NODE)


def test_who_has_stopped_is_not_talked_to_by_those_who_never_heard_it() -> None:
    ear = Ear()
    assert ear.hearing.stopped(NODE, sign_stop(KEY, NETWORK, life(5), shown(life(6))))
    assert ear.hearing.outlived(NODE)
    ear.hearing.ended(NODE)
    assert not ear.hearing.outlived(NODE)


@pytest.mark.parametrize("lie", [life(9, key=OTHER), Life(9, bytes(32), bytes(64)), Life(9, bytes(32), b"\xff" * 64)])
def test_a_life_that_its_own_key_did_not_sign_is_nothing(lie: Life) -> None:
    ear = Ear()
    ear.meets(life(5))
    assert ear.meets(lie) is None
    assert ear.meets(life(5)) == ()
    assert not verify_life(NODE, NETWORK, shown(lie))
    forged = LifeStopped(5, bytes(32), 6, bytes(32), lie.signature)
    assert not ear.hearing.stopped(NODE, forged)
    assert not verify_stop(NODE, NETWORK, forged)


def test_a_signature_is_for_one_network_one_kind_and_one_life() -> None:
    one = life(5, 1)
    assert verify_life(NODE, NETWORK, one)
    assert not verify_life(NODE, b"\x34" * 32, one)
    assert not verify_life(STRANGER, NETWORK, one)
    assert not verify_life(NODE, NETWORK, Life(6, one.nonce, one.signature))
    assert not verify_life(NODE, NETWORK, Life(5, bytes(32), one.signature))
    stop = sign_stop(KEY, NETWORK, one, shown(life(6)))
    assert verify_stop(NODE, NETWORK, stop)
    assert not verify_stop(NODE, b"\x34" * 32, stop)
    assert not verify_stop(NODE, NETWORK, LifeStopped(5, one.nonce, 7, stop.by_nonce, stop.signature))


def test_nothing_is_kept_of_strangers_and_one_row_of_a_peer() -> None:
    ear = Ear()
    for number in range(1, 50):
        ear.meets(life(number, key=OTHER), STRANGER)
    ear.hearing.ended(STRANGER)
    assert ear.disk == {}
    assert ear.hearing._heard == {}
    ear.meets(life(3, key=OTHER), STRANGER)
    ear.known.add(STRANGER)  # it opens a channel
    ear.hearing.keep(STRANGER)
    assert list(ear.disk) == [STRANGER]


def test_who_has_a_row_keeps_it_when_nothing_binds_us_any_more() -> None:
    """The older copy comes when the newer one has settled what there was, and takes its session."""
    ear = Ear()
    ear.meets(life(5))
    ear.known.clear()  # the last channel is closed; the row stays, for there was money
    ear.hearing.ended(NODE)
    assert ear.hearing._heard == {}
    assert ear.meets(life(7)) == ()
    assert ear.meets(life(5)) == (shown(life(7)),)
    assert ear.hearing.outlived(NODE)
    stop = sign_stop(KEY, NETWORK, life(5), shown(life(7)))
    ear.hearing.ended(NODE)
    assert ear.hearing.stopped(NODE, stop)
    assert ear.meets(life(7)) == (stop,)


def test_one_session_has_one_life_whatever_it_says() -> None:
    ear = Ear()
    ear.meets(life(1))
    for number in range(2, 100):
        assert ear.hearing.announced(NODE, life(number)) == ()
    assert ear.written == 1


@pytest.mark.parametrize(
    ("other", "ours", "must_stop"),
    [
        (life(6), life(5), True),
        (life(5, 1), life(5, 2), True),
        (life(5, 1), life(5, 1), False),
        (life(4), life(5), False),
        (life(2**63 - 1), life(5), True),
    ],
)
def test_who_must_stop(other: Life, ours: Life, must_stop: bool) -> None:
    assert outlives(shown(other), ours) is must_stop
