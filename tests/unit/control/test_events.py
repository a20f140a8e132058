"""The list of events is the one that the source has: what is told is listed, and what is listed is told."""

import ast
from collections.abc import Iterator
from pathlib import Path

from perund.control.events import EVENTS
from perund.control.reference import event_table
from perund.node.lives import STOPPED_SIGNING
from protocol.effects import Phase

ROOT = Path(__file__).parents[3]
TELLERS = {"EventRecord", "_event", "noticed", "event", "_alarm", "_backup_event", "tell"}
PASSED_ON = {"kind", "wanted"}
"""Names of variables under which a kind is handed on; where it comes from is looked at there."""
NAMED = {"STOPPED_SIGNING": STOPPED_SIGNING}
"""Kinds that have a name in the source."""
SERVICE_MANAGER = {"READY", "STATUS", "STOPPING", "WATCHDOG"}
"""What systemd is told, which no list of ours has."""
OTHER_PROGRAMS = ("perund/tower/server.py", "perund/tower/daemon.py", "perund/tower/books.py", "watcher/tower/")


def told() -> Iterator[tuple[str, str]]:
    for folder in ("perund/node", "perund/tower", "perund/recovery", "protocol", "watcher"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name.startswith(OTHER_PROGRAMS):
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if not isinstance(call, ast.Call) or not call.args:
                    continue
                callee = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                first = call.args[0]
                if callee not in TELLERS or ast.unparse(first).partition("=")[0].strip("f'\"") in SERVICE_MANAGER:
                    continue
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value, name
                elif isinstance(first, ast.JoinedStr):
                    assert ast.unparse(first) == "f'channel.{phase.value}'", f"{name}:{call.lineno}"
                    yield from ((f"channel.{phase}", name) for phase in Phase if phase is not Phase.FUNDING)
                elif isinstance(first, ast.Name) and first.id in NAMED:
                    yield NAMED[first.id], name
                else:
                    known = isinstance(first, ast.Name) and first.id in PASSED_ON
                    assert known or callee != "EventRecord", f"{name}:{call.lineno} tells a kind that no list can have"


def margins() -> Iterator[tuple[str, str]]:
    from watcher.refuting import WARNINGS

    for _, kind in WARNINGS:
        yield kind, "watcher/refuting.py"


def test_every_event_is_listed_and_every_listed_one_is_told() -> None:
    found = dict([*told(), *margins()])
    assert not {kind: where for kind, where in found.items() if kind not in EVENTS}
    assert set(EVENTS) == set(found)


def test_the_page_lists_every_event_as_it_is() -> None:
    assert event_table() in (ROOT / "docs" / "rpc.md").read_text()
