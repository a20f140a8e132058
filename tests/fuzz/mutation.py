"""Inputs that are almost right: bytes changed as transport and attackers change them, values as encoders would.

Everything comes from one seeded generator: the same seed gives the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar, Union

__all__ = ["Bytes", "Tree", "Trees", "mutations"]

Tree: TypeAlias = Union[bool, int, float, str, bytes, list["Tree"], dict[str, "Tree"], None]  # noqa: UP007
"""A value as CBOR, JSON and MessagePack have it."""

T = TypeVar("T")
MOST_CHANGES: Final = 4
FLOOD: Final = 65_536
"""How large an input becomes when a piece of it is repeated to excess."""
FLOOD_ODDS: Final = 0.0005
DESCENT: Final = 0.8
"""How likely a change goes one level deeper into a value."""
INTERESTING: Final = (
    0,
    1,
    0x18,
    0x1F,
    0x3F,
    0x40,
    0x5F,
    0x7F,
    0x80,
    0x81,
    0x9F,
    0xA1,
    0xBF,
    0xC2,
    0xD9,
    0xF6,
    0xFE,
    0xFF,
)
GROUPS: Final = (1, 2, 4, 4, 5, 5, 9, 9, 10, 10, 11, 11, 64, 64, 3000)
"""Of numbers in LEB128."""
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
        self._random = rng.random
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
        rand, changes = self._random, self._changes
        data = bytearray(_one_of(rand, self._corpus))
        for _ in range(int(rand() * MOST_CHANGES) + 1):
            changes[int(rand() * len(changes))](data)
        if rand() < FLOOD_ODDS:
            self._flood(data)
        return bytes(data)

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._random() * len(choices))]

    def _place(self, data: bytearray) -> int:
        return int(self._random() * (len(data) + 1))

    def _piece(self, data: bytearray, most: int = 16) -> tuple[int, int]:
        start = self._place(data)
        return start, min(len(data), start + 1 + int(self._random() * most))

    def _flip(self, data: bytearray) -> None:
        place = self._place(data)
        if place < len(data):
            data[place] ^= 1 << int(self._random() * 8)

    def _set(self, data: bytearray) -> None:
        place = self._place(data)
        if place < len(data):
            data[place] = self._pick(INTERESTING)

    def _insert(self, data: bytearray) -> None:
        place = self._place(data)
        data[place:place] = self._rng.randbytes(1 + int(self._random() * 8))

    def _delete(self, data: bytearray) -> None:
        start, end = self._piece(data)
        del data[start:end]

    def _repeat(self, data: bytearray) -> None:
        """Say something again, once or often: lists grow, brackets nest."""
        start, end = self._piece(data, 8)
        data[start:start] = data[start:end] * (1 if self._random() < 0.9 else 1 + int(self._random() * 400))

    def _flood(self, data: bytearray) -> None:
        start, end = self._piece(data, 6)
        if end > start:
            data[start:start] = data[start:end] * (FLOOD // (end - start))

    def _truncate(self, data: bytearray) -> None:
        del data[self._place(data) :]

    def _splice(self, data: bytearray) -> None:
        """Put a piece of another input in."""
        other = self._pick(self._corpus)
        start = int(self._random() * (len(other) + 1))
        place = self._place(data)
        data[place : place + int(self._random() * 8)] = other[start : start + 1 + int(self._random() * 64)]

    def _number(self, data: bytearray) -> None:
        """Overwrite what may be a length or a number."""
        size = self._pick((1, 2, 4, 8))
        place = self._place(data)
        number = self._pick(NUMBERS) % (1 << 8 * size)
        data[place : place + size] = number.to_bytes(size, "big" if self._random() < 0.5 else "little")

    def _leb128(self, data: bytearray) -> None:
        """Put a number of many seven-bit groups in."""
        groups = self._pick(GROUPS)
        place = self._place(data)
        filler = self._pick((b"\x80", b"\xff"))
        data[place : place + 1] = filler * groups + self._pick((b"\x00", b"\x01", b"\x7f"))

    def _swap(self, data: bytearray) -> None:
        start, middle = self._piece(data)
        end = min(len(data), middle + (middle - start))
        data[start:end] = data[middle:end] + data[start:middle]

    def _token(self, data: bytearray) -> None:
        place = self._place(data)
        token = self._pick(self._tokens)
        data[place : place + (len(token) if self._random() < 0.5 else 0)] = token


class Trees:
    """Changes values: what is encoded again is well formed, and wrong all the same. Only what changes is copied."""

    def __init__(self, rng: random.Random, trees: Sequence[Tree]) -> None:
        self._rng = rng
        self._random = rng.random
        self._trees = trees
        self._root: Tree = None

    def next(self) -> Tree:
        """Return the next value."""
        self._root = tree = _one_of(self._random, self._trees)
        for _ in range(int(self._random() * MOST_CHANGES) + 1):
            tree = self._changed(tree)
        return tree

    def _changed(self, tree: Tree) -> Tree:
        """Return a value with a change somewhere in it."""
        if isinstance(tree, list) and tree and self._random() < DESCENT:
            place = int(self._random() * len(tree))
            return [*tree[:place], self._changed(tree[place]), *tree[place + 1 :]]
        if isinstance(tree, dict) and tree and self._random() < DESCENT:
            key = _one_of(self._random, list(tree))
            return {**tree, key: self._changed(tree[key])}
        chance = self._random()
        if chance < 0.40:
            return self._other(tree)
        if chance < 0.55:
            return self._somewhere(self._root)
        if chance < 0.70:
            return self._lacking(tree)
        if chance < 0.85:
            return self._grown(tree)
        return self._wrapped(tree)

    def _somewhere(self, tree: Tree) -> Tree:
        """Return a part of a value."""
        while isinstance(tree, list | dict) and tree and self._random() < DESCENT:
            tree = _one_of(self._random, tree if isinstance(tree, list) else list(tree.values()))
        return tree

    def _other(self, value: Tree) -> Tree:
        """Return something of the same kind or of another."""
        rng = self._rng
        if self._random() < 0.5:
            match value:
                case bytes():
                    return Bytes(rng, (value or b"\x00",)).next()
                case str():
                    end = _one_of(self._random, ("", "\n", "é", "\x00", value))
                    return value[: int(self._random() * (len(value) + 1))] + end
                case bool():
                    return not value
                case int():
                    return _one_of(self._random, (value + 1, max(0, value - 1), value ^ 1, value << 1))
        number, some = _one_of(self._random, NUMBERS), rng.randbytes(4)
        strange: tuple[Tree, ...] = (None, True, 0, number, "", "x", "\u202e", b"", bytes(32), some, [], {}, [[]])
        return _one_of(self._random, strange)

    def _lacking(self, tree: Tree) -> Tree:
        """Return a list or map without one of its parts, or with another name for it."""
        if isinstance(tree, list) and tree:
            place = int(self._random() * len(tree))
            return tree[:place] + tree[place + 1 :]
        if isinstance(tree, dict) and tree:
            gone = _one_of(self._random, list(tree))
            rest = {key: value for key, value in tree.items() if key != gone}
            if self._random() < 0.4:
                rest[_one_of(self._random, (gone + "_", gone.upper(), "", "x" * 300))] = tree[gone]
            return rest
        return None

    def _grown(self, tree: Tree) -> Tree:
        times = 2 if self._random() < 0.8 else 40
        match tree:
            case list() | bytes() | str():
                return tree * times
            case dict():
                return {**tree, f"more{int(self._random() * 4)}": tree if self._random() < 0.3 else 1}
            case _:
                return [tree] * times

    def _wrapped(self, tree: Tree) -> Tree:
        for _ in range(1 if self._random() < 0.9 else 180):
            tree = [tree] if self._random() < 0.7 else {"x": tree}
        return tree


def _one_of(rand: Callable[[], float], choices: Sequence[T]) -> T:
    """Return one of these: three times as fast as `Random.choice`, and there are millions."""
    return choices[int(rand() * len(choices))]
