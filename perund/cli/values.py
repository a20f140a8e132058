"""Arguments as people type them: amounts and durations."""

from __future__ import annotations

import click

from perund.amounts import parse_amount
from perund.durations import parse_duration
from protocol.errors import CallerMistake

__all__ = ["Amount", "Duration"]


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
