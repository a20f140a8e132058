"""The tables of docs/protocol.md name every message with its type and its fields, in order."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from protocol import messages as m

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
NAMES = re.compile(r"`(\w+)`, (\d+)")


def tables() -> dict[str, tuple[int, tuple[str, ...]]]:
    """What the page says: type and field names of each message."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    heads = list(re.finditer(r"^\*\*`.*\*\*$", PAGE, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(PAGE)]
    for head, end in zip(heads, ends, strict=True):
        body = PAGE[head.end() : end].partition("\n#")[0]
        names = tuple(re.findall(r"^\| \d+ \| (\w+) \|", body, re.MULTILINE))
        for name, number in NAMES.findall(head.group()):
            found[name] = (int(number), names)
    return found


def test_the_page_has_every_message_as_it_is() -> None:
    every = {kind for group in get_args(m.Message) for kind in (get_args(group) or (group,))}
    said = tables()
    assert said == {kind.__name__: (kind.TYPE, tuple(f.name for f in fields(kind))) for kind in every}


def test_what_a_tower_is_asked_for_is_even() -> None:
    """A tower that does not know a message must say so: it is never silently without effect."""
    assert all(kind.TYPE % 2 == 0 for kind in get_args(m.TowerMessage))
