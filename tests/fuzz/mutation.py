"""Inputs that are almost right: bytes changed as transport and attackers change them, values as encoders would.

Everything comes from one seeded generator: the same seed gives the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, Union

__all__ = ["Bytes", "Tree", "Trees", "mutations"]

Tree: TypeAlias = Union[None, bool, int, float, str, bytes, list["Tree"], dict[str, "Tree"]]  # noqa: UP007
"""A value as CBOR, JSON and MessagePack have it."""

MOST_CHANGES: Final = 4
FLOOD: Final = 65_536
"""How large an input becomes when a piece of it is repeated to excess."""
FLOOD_ODDS: Final = 0.0005
INTERESTING: Final = (0, 1, 0x18, 0x1F, 0x3F, 0x40, 0x5F, 0x7F, 0x80, 0x81, 0x9F, 0xA1, 0xBF, 0xC2, 0xD9, 0xF6, 0xFE, 0xFF)
NUMBERS: Final = (
    *(0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1),
)


def mutations(
    seed: int, corpus: Sequence[bytes], trees: Sequence[Tree], encode: Callable[[Tree], bytes], tokens: Sequence[bytes]
) -> Iterator[bytes]:
    """Yield inputs without end: of changed bytes and, if there are `trees`, half of them of changed values."""
    rng = random.Random(seed)
    of_bytes = Bytes(rng, corpus, tokens)
    if not trees:
        while True:
            yield of_bytes.next()
    of_trees = Trees(rng, trees)
    while True:
        yield of_bytes.next()
        yield encode(of_trees.next())


class Bytes:
    """Changes bytes: flips, cuts, repeats, lengths that lie, pieces of other inputs, and `tokens` of the format."""

    def __init__(self, rng: random.Random, corpus: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        self._rng = rng
        self._corpus = corpus
        self._tokens = tokens
        self._changes: list[Callable[[bytearray], None]] = [
            self._flip, self._flip, self._set, self._set, self._insert, self._delete, self._repeat, self._truncate,
            self._splice, self._number, self._leb128, self._swap,
        ]  # fmt: skip
        if tokens:
            self._changes += [self._token] * 3

    def next(self) -> bytes:
        """Return the next input."""
        rng = self._rng
        data = bytearray(rng.choice(self._corpus))
        for _ in range(int(rng.random() * MOST_CHANGES) + 1):
            rng.choice(self._changes)(data)
        if rng.random() < FLOOD_ODDS:
            self._flood(data)
        return bytes(data)

    def _place(self, data: bytearray) -> int:
        return int(self._rng.random() * (len(data) + 1))

    def _piece(self, data: bytearray, most: int = 16) -> tuple[int, int]:
        start = self._place(data)
        return start, min(len(data), start + 1 + int(self._rng.random() * most))

    def _flip(self, data: bytearray) -> None:
        place = self._place(data)
        if place < len(data):
            data[place] ^= 1 << int(self._rng.random() * 8)

    def _set(self, data: bytearray) -> None:
        place = self._place(data)
        if place < len(data):
            data[place] = self._rng.choice(INTERESTING)

    def _insert(self, data: bytearray) -> None:
        place = self._place(data)
        data[place:place] = self._rng.randbytes(1 + int(self._rng.random() * 8))

    def _delete(self, data: bytearray) -> None:
        start, end = self._piece(data)
        del data[start:end]

    def _repeat(self, data: bytearray) -> None:
        """Say something again, once or often: lists grow, brackets nest."""
        start, end = self._piece(data, 8)
        data[start:start] = data[start:end] * (1 if self._rng.random() < 0.7 else 1 + int(self._rng.random() * 400))

    def _flood(self, data: bytearray) -> None:
        start, end = self._piece(data, 6)
        if end > start:
            data[start:start] = data[start:end] * (FLOOD // (end - start))

    def _truncate(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _splice(self, data: bytearray) -> None:
        """Put a piece of another input in."""
        other = self._rng.choice(self._corpus)
        start = int(self._rng.random() * (len(other) + 1))
        place = self._place(data)
        data[place : place + int(self._rng.random() * 8)] = other[start : start + 1 + int(self._rng.random() * 64)]

    def _number(self, data: bytearray) -> None:
        """Overwrite what may be a length or a number."""
        size = self._rng.choice((1, 2, 4, 8))
        order = "big" if self._rng.random() < 0.5 else "little"
        place = self._place(data)
        number = self._rng.choice(NUMBERS) % (1 << 8 * size)
        data[place : place + size] = number.to_bytes(size, "little" if order == "little" else "big")

    def _leb128(self, data: bytearray) -> None:
        """Put a number of many seven-bit groups in."""
        groups = self._rng.choice((1, 4, 9, 10, 11, 64, 3000))
        place = self._place(data)
        filler = self._rng.choice((b"\x80", b"\xff"))
        data[place : place + 1] = filler * groups + self._rng.choice((b"\x00", b"\x01", b"\x7f"))

    def _swap(self, data: bytearray) -> None:
        start, middle = self._piece(data)
        end = min(len(data), middle + (middle - start))
        data[start:end] = data[middle:end] + data[start:middle]

    def _token(self, data: bytearray) -> None:
        place = self._place(data)
        token = self._rng.choice(self._tokens)
        data[place : place + (len(token) if self._rng.random() < 0.5 else 0)] = token


Slot = tuple[list[Tree], int] | tuple[dict[str, Tree], str]


class Trees:
    """Changes values: what is encoded again is well formed, and wrong all the same."""

    def __init__(self, rng: random.Random, trees: Sequence[Tree]) -> None:
        self._rng = rng
        self._trees = trees

    def next(self) -> Tree:
        """Return the next value."""
        root: list[Tree] = [_copy(self._rng.choice(self._trees))]
        for _ in range(int(self._rng.random() * MOST_CHANGES) + 1):
            slots = list(_slots(root))
            self._change(self._rng.choice(slots), slots)
        return root[0]

    def _change(self, slot: Slot, slots: list[Slot]) -> None:
        rng = self._rng
        chance = rng.random()
        if chance < 0.35:
            _put(slot, self._scalar(_get(slot)))
        elif chance < 0.55:
            _put(slot, _copy(_get(rng.choice(slots))))
        elif chance < 0.70:
            self._remove_or_rename(slot)
        elif chance < 0.85:
            self._grow(slot)
        else:
            _put(slot, self._wrapped(_get(slot)))

    def _scalar(self, value: Tree) -> Tree:
        """Return something of the same kind or of another."""
        rng = self._rng
        if rng.random() < 0.5:
            match value:
                case bytes():
                    return Bytes(rng, (value or b"\x00",)).next()
                case str():
                    return value[: int(rng.random() * (len(value) + 1))] + rng.choice(("", "\n", "é", "\x00", value))
                case bool():
                    return not value
                case int():
                    return rng.choice((value + 1, max(0, value - 1), value ^ 1, value << 1))
        return rng.choice(
            (None, True, 0, rng.choice(NUMBERS), "", "x", "\u202e", b"", bytes(32), rng.randbytes(4), [], {}, [[]])
        )

    def _remove_or_rename(self, slot: Slot) -> None:
        container, key = slot
        if isinstance(container, dict) and isinstance(key, str):
            value = container.pop(key)
            if self._rng.random() < 0.4:
                container[self._rng.choice((key + "_", key.upper(), "", "x" * 300))] = value
        elif isinstance(container, list) and len(container) > 1 and isinstance(key, int):
            del container[key]

    def _grow(self, slot: Slot) -> None:
        value = _get(slot)
        times = 2 if self._rng.random() < 0.8 else 40
        match value:
            case list():
                _put(slot, [_copy(item) for _ in range(times) for item in value])
            case dict():
                value[f"more{self._rng.randrange(4)}"] = _copy(value) if self._rng.random() < 0.3 else 1
            case bytes() | str():
                _put(slot, value * times)
            case _:
                _put(slot, [value] * times)

    def _wrapped(self, value: Tree) -> Tree:
        for _ in range(1 if self._rng.random() < 0.8 else 180):
            value = [value] if self._rng.random() < 0.7 else {"x": value}
        return value


def _copy(value: Tree) -> Tree:
    match value:
        case list():
            return [_copy(item) for item in value]
        case dict():
            return {key: _copy(item) for key, item in value.items()}
        case _:
            return value


def _slots(container: Tree) -> Iterator[Slot]:
    match container:
        case list():
            for index, item in enumerate(container):
                yield container, index
                yield from _slots(item)
        case dict():
            for key, item in container.items():
                yield container, key
                yield from _slots(item)


def _get(slot: Slot) -> Tree:
    container, key = slot
    return container[key]  # type: ignore[call-overload,index,no-any-return]


def _put(slot: Slot, value: Tree) -> None:
    container, key = slot
    container[key] = value  # type: ignore[call-overload,index]
