"""Rule 1, where signatures are made: states that came back after a loss count like those that were signed here."""

from __future__ import annotations

import pytest

from protocol.errors import InvariantBroken
from protocol.signer import StateSigner
from protocol.types import ChannelId, State
from tests.unit.protocol.scene import KEYS

CHANNEL = ChannelId(b"\x07" * 64)


def state(version: int, mine: int = 5, *, finalized: bool = False) -> State:
    return State(CHANNEL, version, (mine, 10 - mine), finalized)


def test_an_adopted_version_is_signed_for_no_other_content_and_none_below_it() -> None:
    signer = StateSigner(KEYS[0], None)
    (record,) = signer.adopted(state(5))
    assert (record.version, record.digest, record.finalized) == (5, state(5).digest, False)
    for other in (state(5, 6), state(4), state(5, finalized=True)):
        with pytest.raises(InvariantBroken, match="version 5 is signed"):
            signer.sign(other)
    assert signer.sign(state(6))[1].version == 6


def test_after_an_adopted_final_state_nothing_is_signed() -> None:
    signer = StateSigner(KEYS[0], None)
    signer.adopted(state(5, finalized=True))
    assert signer.signed_final
    with pytest.raises(InvariantBroken, match="a final state is signed"):
        signer.sign(state(2**32, finalized=True))


def test_what_was_signed_here_is_not_forgotten_for_something_older_or_after_a_final_state() -> None:
    signer = StateSigner(KEYS[0], None)
    signer.sign(state(7))
    assert signer.adopted(state(7, 6)) == signer.adopted(state(3)) == ()
    with pytest.raises(InvariantBroken):
        signer.sign(state(7, 6))
    signer.sign(state(8, finalized=True))
    assert signer.adopted(state(9)) == ()
    assert signer.signed_final
