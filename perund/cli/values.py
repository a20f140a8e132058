"""Arguments as people type them. What cannot be one is refused before a node is asked, with what can."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import click

from perund.amounts import parse_amount
from perund.durations import parse_duration
from perund.environment import data_dir
from perund.passphrase import STDIN
from perund.spelling import instead
from protocol.errors import CallerMistake
from protocol.limits import MAX_MEMO_BYTES

__all__ = [
    "DIR",
    "PASSPHRASE_FILE",
    "SECRET",
    "Amount",
    "ChannelRef",
    "Duration",
    "Host",
    "Key",
    "MemoText",
    "PaymentId",
    "PeerRef",
    "Place",
    "Word",
    "shown",
]

MAX_KEY: Final = 128
MAX_SHOWN: Final = 80

_CHANNEL: Final = re.compile(r"[0-9a-f]{8,128}")
_PAYMENT: Final = re.compile(r"[0-9a-f]{32}")


def shown(value: object) -> str:
    """Return a value as it is named in a message: on one line, not longer than one."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]}...{text[0]}"


class Amount(click.ParamType[int]):
    """`1.5`, `1.5 ICP`, `150000000 e8s`: an integer of e8s. `zero`: whether nothing is an amount too."""

    name = "amount"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return e8s; click says which argument was wrong."""
        if isinstance(value, int):
            return value
        try:
            return parse_amount(str(value), zero=self._zero)
        except CallerMistake as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType[int]):
    """`60s`, `10m`, `2h`, `1d`: seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds; click says which argument was wrong."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(str(value))
        except CallerMistake as error:
            self.fail(str(error), param, ctx)


class ChannelRef(click.ParamType[str]):
    """A channel id, or the beginning of one."""

    name = "channel"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it in lower case; what cannot be the beginning of any id is refused before a node is asked."""
        text = str(value).lower()
        if _CHANNEL.fullmatch(text) is None:
            self.fail(
                f"{shown(value)} is not a channel: give its id, or at least the first 8 of its 128 hex digits",
                param,
                ctx,
            )
        return text


class PaymentId(click.ParamType[str]):
    """The id of a payment."""

    name = "payment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it in lower case."""
        text = str(value).lower()
        if _PAYMENT.fullmatch(text) is None:
            self.fail(
                f"{shown(value)} is not a payment id: it has 32 hex digits, as `perun payments` shows them", param, ctx
            )
        return text


class Key(click.ParamType[str]):
    """A name that a caller gives to an action, so that the same one twice is done once."""

    name = "key"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it."""
        text = _text(self, value, param, ctx)
        if not 1 <= len(text) <= MAX_KEY:
            self.fail(f"{shown(value)} has {len(text)} characters: a key has 1 to {MAX_KEY}", param, ctx)
        return text


class MemoText(click.ParamType[str]):
    """Text for the receiver of a payment."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it."""
        text = _text(self, value, param, ctx)
        if (length := len(text.encode())) > MAX_MEMO_BYTES:
            self.fail(f"{shown(value)} has {length} bytes: a memo has at most {MAX_MEMO_BYTES}", param, ctx)
        return text


class Word(click.ParamType[str]):
    """One of some words; a wrong one is refused with the nearest."""

    def __init__(self, name: str, words: Collection[str]) -> None:
        self.name = name
        self._words = words

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it."""
        if value not in self._words:
            self.fail(f"{shown(value)} is no {self.name}; {instead(str(value)[:MAX_SHOWN], self._words)}", param, ctx)
        return str(value)


class PeerRef(click.ParamType[str]):
    """NODEID@host:port. `place`: whether the address is needed; else NODEID alone will do."""

    name = "peer"

    def __init__(self, *, place: bool) -> None:
        self._place = place
        self._form = "NODEID@host:port" if place else "NODEID or NODEID@host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it; click says what a peer looks like."""
        from wire.address import NODE_ID_PATTERN, BadAddress, NodeAddress

        text = str(value)
        node_id, _, place = text.partition("@")
        text = f"{node_id.lower()}@{place}" if "@" in text else node_id.lower()
        if re.fullmatch(NODE_ID_PATTERN, node_id.lower()) is None or (self._place and "@" not in text):
            self.fail(f"{shown(value)} is not a peer: write {self._form}, the node id with 66 hex digits", param, ctx)
        if "@" in text:
            try:
                return str(NodeAddress.of(text))
            except BadAddress as error:
                self.fail(str(error), param, ctx)
        return text


class Host(click.ParamType[str]):
    """An address of this machine to listen on."""

    name = "host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it; an empty one would be every address."""
        text = str(value)
        if not text.strip() or not text.isprintable():
            self.fail(f"{shown(text)} is not a host: write 127.0.0.1, ::1 or a name of this machine", param, ctx)
        return text.strip("[]")


class Place(click.Path):
    """A file or a directory."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True, exists: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay, exists=exists)

    def convert(  # type: ignore[override]
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Return the path; what no file can be called is refused."""
        text = str(value)
        if not text or "\0" in text:
            self.fail(f"{shown(text)} cannot be the name of a {self.name}", param, ctx)
        return super().convert(text, param, ctx)


class _Secret(click.ParamType[str]):
    """A file that has a secret, or `-` for standard input."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as it is: what is wrong with the file says who reads it."""
        text = str(value)
        if not text or "\0" in text:
            self.fail(f"{shown(text)} cannot be the name of a file; {STDIN} is standard input", param, ctx)
        return text


def _text(kind: click.ParamType[str], value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        kind.fail(f"{shown(value)} is not text: write it in UTF-8", param, ctx)
    return text


SECRET: Final = _Secret()
DIR: Final = click.option(
    "--dir", "data_dir", default=data_dir, show_default="PERUND_DIR, else ~/.perund", type=Place(file_okay=False),
    help="Data directory of the node, or of the watchtower.",
)  # fmt: skip
PASSPHRASE_FILE: Final = click.option(
    "--passphrase-file", type=SECRET, metavar="FILE",
    help="File whose first line opens the key store; - is standard input.",
)  # fmt: skip
