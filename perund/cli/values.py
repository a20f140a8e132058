"""Arguments as people type them: amounts and durations."""

from __future__ import annotations

import re
from typing import Final

import click

from perund.amounts import parse_amount
from perund.durations import parse_duration
from protocol.errors import CallerMistake
from wire.address import NODE_ID_PATTERN, BadAddress, NodeAddress

__all__ = ["Amount", "ChannelRef", "Duration", "PeerRef"]


_CHANNEL: Final = re.compile(r"[0-9a-f]{8,128}")
_NODE_ID: Final = re.compile(NODE_ID_PATTERN)


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
                f"{value!a} is not a channel: give its id, or at least the first 8 of its 128 hex digits", param, ctx
            )
        return text


class PeerRef(click.ParamType[str]):
    """NODEID@host:port. `place`: whether the address is needed; else NODEID alone will do."""

    name = "peer"

    def __init__(self, *, place: bool) -> None:
        self._place = place
        self._form = "NODEID@host:port" if place else "NODEID or NODEID@host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it; click says what a peer looks like."""
        text = str(value)
        if _NODE_ID.fullmatch(text.partition("@")[0]) is None or (self._place and "@" not in text):
            self.fail(f"{value!a} is not a peer: write {self._form}, the node id with 66 hex digits", param, ctx)
        if "@" in text:
            try:
                return str(NodeAddress.of(text))
            except BadAddress as error:
                self.fail(str(error), param, ctx)
        return text
