"""Every parser of bytes from outside meets 100,000 changed inputs and answers with nothing but its typed errors.

`FUZZ_SEED` and `FUZZ_ROUNDS` choose other inputs, or more. A finding is printed with the entry that keeps it in
`regressions.json`: pieces in hex, each with how often it stands.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import chain_targets, devnet_targets, node_targets, wire_targets
from tests.fuzz.target import Target

SEED = int(os.environ.get("FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "100000"))
SLOW_S = 2.0
"""Of processor time for one input: strangers must not be able to stop the node."""
LARGE = 1 << 18
SLOW_LARGE_S = 4.0
"""For an input of so many bytes. What grows with the square of the length takes far longer."""
MOST_SHOWN = 4096
MAKERS: dict[str, Callable[[], Target]] = {
    make.__name__: make
    for targets in (wire_targets, chain_targets, node_targets, devnet_targets)
    for make in targets.TARGETS
}
REGRESSIONS = json.loads((Path(__file__).parent / "regressions.json").read_text())

pytestmark = pytest.mark.timeout(600)


class Finding(AssertionError):
    """An input that a parser answers with a defect of its own."""


@pytest.fixture
def target(name: str) -> Iterator[Target]:
    made = MAKERS[name]()
    yield made
    made.close()


def feed(name: str, target: Target, data: bytes, origin: str, slow_s: float = SLOW_S) -> bool:
    """Return whether a parser accepts an input. Fails when it does anything but accept or refuse, in time."""
    start = time.thread_time()
    try:
        target.parse(data)
        accepted = True
    except target.errors:
        accepted = False
    except Exception as error:
        raise Finding(f"{name}, {origin}: {type(error).__name__}; {as_entry(name, data)}") from error
    if (took := time.thread_time() - start) > slow_s:
        raise Finding(f"{name}, {origin}: {took:.1f} s; {as_entry(name, data)}")
    return accepted


def as_entry(name: str, data: bytes) -> str:
    shown = data if len(data) <= MOST_SHOWN else data[:MOST_SHOWN]
    rest = f" and {len(data) - MOST_SHOWN} bytes more" if len(data) > MOST_SHOWN else ""
    return json.dumps({"target": name, "what": "", "input": [[shown.hex(), 1]]}) + rest


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_is_changed_is_right(name: str, target: Target) -> None:
    for place, data in enumerate(target.seeds()):
        assert feed(name, target, data, f"example {place}"), f"{name} refuses its example {place}"


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_nothing_but_typed_errors(name: str, target: Target) -> None:
    accepted = sum(
        feed(name, target, data, f"seed {SEED}, input {place}")
        for place, data in enumerate(islice(target.inputs(SEED), ROUNDS))
    )
    # Where nothing is refused nothing was tested, and where nothing is accepted only the first check was.
    assert 0 < accepted < ROUNDS


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_is_large_costs_little(name: str, target: Target) -> None:
    seed = target.seeds()[0]
    for piece in {
        seed[:1],
        seed[1:2],
        seed[1:4],
        seed[:8],
        seed,
        *target.tokens,
        b"\x81",
        b"\xff",
        b"\x00",
        b"1",
        b" ",
    }:
        if piece:
            filler = piece * (LARGE // len(piece))
            for data in (filler, seed[:1] + filler, seed[: len(seed) // 2] + filler + seed[len(seed) // 2 :]):
                feed(name, target, data, f"{piece[:20].hex()} to excess", SLOW_LARGE_S)


@pytest.mark.parametrize("entry", REGRESSIONS, ids=lambda entry: f"{entry['target']}: {entry['what']}")
def test_what_was_found(entry: dict[str, Any]) -> None:
    target = MAKERS[entry["target"]]()
    try:
        data = b"".join(bytes.fromhex(piece) * times for piece, times in entry["input"])
        assert not feed(entry["target"], target, data, entry["what"])
    finally:
        target.close()
