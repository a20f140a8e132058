"""What can be typed where something else belongs, and one command line of each command that is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from chain.certificate import MAINNET_ROOT_KEY
from perund.cli.client import main as perun
from perund.cli.daemon import main as perund

CHANNEL = "ab" * 64
PAYMENT = "0f" * 16
PEER = f"{'02' + '11' * 32}@127.0.0.1:9"
PHRASE = "abandon " * 23 + "art"


SLOW = ("perund init", "perund passphrase")
"""These derive a key for nearly every case: each of their options gets a third of the values."""


@dataclass(frozen=True)
class Case:
    """A command with one wrong value, or none."""

    program: click.Group
    arguments: tuple[str, ...]
    wrong: str = ""

    def __str__(self) -> str:
        return " ".join(ascii(part)[1:-1][:40] for part in self.arguments)


def right(place: Path) -> dict[str, tuple[click.Group, list[str]]]:
    """Return for each command, by its words, what makes it complete. Nothing of it reaches a node or a network."""
    at = ["--dir", str(place / "node")]
    made = [*at, "--passphrase-file", str(place / "passphrase")]
    words = ["--phrase-file", str(place / "words")]
    init = [
        "--network", "local", "--canister", "r7inp-6aaaa-aaaaa-aaabq-cai", "--url", "http://127.0.0.1:9",
        "--root-key", MAINNET_ROOT_KEY.hex(), "--passphrase-file", str(place / "passphrase"), "--non-interactive",
    ]  # fmt: skip
    return {
        "perund init": (perund, ["--dir", str(place / "new"), *init]),
        "perund run": (perund, [*at, "--passphrase-file", str(place / "wrong")]),
        "perund watch": (perund, [*at, "--once"]),
        "perund watchtower": (perund, [*at, "--passphrase-file", str(place / "wrong")]),
        "perund devnet": (perund, ["--port", "0", "--host", "999.1.1.1"]),
        "perund demo": (perund, []),
        "perund backup": (perund, made),
        "perund restore": (
            perund,
            [
                "--dir",
                str(place / "new"),
                *words,
                "--backup",
                str(place / "file"),
                "--passphrase-file",
                str(place / "passphrase"),
            ],
        ),
        "perund check": (perund, [*at, "--offline"]),
        "perund passphrase": (perund, [*made, "--new-passphrase-file", str(place / "short")]),
        "perun info": (perun, at),
        "perun health": (perun, at),
        "perun stop": (perun, at),
        "perun wallet balance": (perun, at),
        "perun wallet address": (perun, at),
        "perun wallet send": (perun, [*at, "00" * 32, "1"]),
        "perun connect": (perun, [*at, PEER]),
        "perun peers": (perun, at),
        "perun open": (perun, [*at, PEER, "--mine", "1"]),
        "perun pay": (perun, [*at, CHANNEL, "1"]),
        "perun channels": (perun, at),
        "perun channel": (perun, [*at, CHANNEL]),
        "perun payments": (perun, at),
        "perun cancel": (perun, [*at, CHANNEL, PAYMENT]),
        "perun close": (perun, [*at, CHANNEL]),
        "perun dispute": (perun, [*at, CHANNEL, "--yes"]),
        "perun recover": (perun, [*at, CHANNEL]),
        "perun withdraw": (perun, [*at, CHANNEL]),
        "perun events": (perun, at),
        "perun call": (perun, [*at, "node.info"]),
    }


def values(place: Path) -> list[str]:
    """Return what is wrong nearly everywhere."""
    return [
        "",
        " ",
        "-",
        "-1",
        "nonsense",
        "999.1.1.1",
        "99999999999999999999999999",
        "x" * 5_000,
        "\udcff\udcfe",  # bytes that are not UTF-8, as Python gives them to a program
        "a\0b",
        "\x1b[2J\u202e\x85\rpaid",
        "☃" * 10,
        str(place / "nonexistent" / "x"),
        "/dev/null/x",  # a file where a directory belongs
        "/dev/full",
        "/dev/zero",
        "/proc/self/x",  # where not even root can write
        str(place / "file"),
        str(place / "empty"),
        str(place / "directory"),
        str(place / "loop"),
        str(place / "dangling"),
    ]


def commands(program: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Yield each command of a program, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(f"{program} {name}", command)
        else:
            yield f"{program} {name}", command


def furnish(place: Path) -> None:
    """Make the files that the command lines name."""
    (place / "passphrase").write_text("correct horse battery\n")
    (place / "wrong").write_text("another passphrase\n")
    (place / "short").write_text("short\n")
    (place / "words").write_text(PHRASE)
    (place / "file").write_bytes(bytes(range(256)))
    (place / "empty").touch()
    (place / "directory").mkdir()
    (place / "loop").symlink_to(place / "loop")
    (place / "dangling").symlink_to(place / "nothing")


def with_wrong(place: Path, words: str) -> Iterator[Case]:
    """Yield the command with each of its options and arguments wrong, one at a time, and with one too many."""
    group, complete = right(place)[words]
    path = words.split()[1:]
    command = dict(commands(words.split(maxsplit=1)[0], group))[words]
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option) and not param.is_flag]
    plain = [part for place_, part in enumerate(complete) if not _of_option(complete, place_)]
    named = complete[: len(complete) - len(plain)] if complete[-len(plain) :] == plain else complete
    if words != "perund demo":  # it would be one
        yield Case(group, (*path, *complete))
    for turn, wrong in enumerate(values(place)):
        yield Case(group, (*path, *complete, wrong), wrong)
        for number, option in enumerate(options):
            if words in SLOW and (turn + number) % 3:
                continue
            name = option.opts[0]
            others = _without(complete, "--passphrase-file" if name == "--store" else name)
            yield Case(group, (*path, *_without(others, name), f"{name}={wrong}"), wrong)
        for number in range(min(len(arguments), len(plain))):
            changed = [*plain[:number], wrong, *plain[number + 1 :]]
            rest = [part for part in named if part not in plain]
            yield Case(group, (*path, *rest, "--", *changed), wrong)


def _of_option(complete: list[str], place: int) -> bool:
    flags = ("--once", "--offline", "--yes", "--non-interactive", "--nothing")
    if complete[place].startswith("--"):
        return True
    return place > 0 and complete[place - 1].startswith("--") and complete[place - 1] not in flags


def _without(complete: list[str], option: str) -> list[str]:
    if option not in complete:
        return complete
    at = complete.index(option)
    return [*complete[:at], *complete[at + 2 :]]
