"""Hash trees: the certified state of a subnet with most of it pruned away.

A lookup has three answers: the value, *provably absent*, or *unknown* because the server pruned the place where
it would be. Mixing up the last two would let one server make us believe that a call never happened.
Source: interface specification, "Certification"; vectors in tests/vectors/ic-certificates.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from chain.cbor import Value

__all__ = ["HashTree", "MalformedTree", "Missing", "parse_tree"]

MAX_DEPTH: Final = 128
_EMPTY_DIGEST: Final = sha256(b"\x11ic-hashtree-empty").digest()
_FORK: Final = b"\x10ic-hashtree-fork"
_LABELED: Final = b"\x13ic-hashtree-labeled"
_LEAF: Final = b"\x10ic-hashtree-leaf"


class MalformedTree(ValueError):
    """A value that is no well-formed hash tree."""


class Missing(Enum):
    """Why a lookup found no value."""

    ABSENT = "absent"
    """Proven: the state has nothing there."""
    UNKNOWN = "unknown"
    """The server pruned it."""
    SUBTREE = "subtree"
    """There is no value but a subtree."""


@dataclass(frozen=True, slots=True)
class Labeled:
    """An edge to a subtree."""

    label: bytes
    subtree: HashTree


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Pruned:
    """Something that the server did not show."""


Entry = Labeled | Leaf | Pruned


@dataclass(frozen=True, slots=True)
class HashTree:
    """A subtree. `digest`: 32 bytes; `level`: its forks flattened from left to right, empties dropped."""

    digest: bytes
    level: tuple[Entry, ...]

    def subtree(self, path: Sequence[bytes]) -> HashTree | Missing:
        """Return what is at the path, or why it is not there."""
        tree = self
        for label in path:
            below = tree._below(label)
            if isinstance(below, Missing):
                return below
            tree = below
        return tree

    def lookup(self, path: Sequence[bytes]) -> bytes | Missing:
        """Return the value at the path, or why there is none."""
        tree = self.subtree(path)
        if isinstance(tree, Missing):
            return tree
        match tree.level:
            case ():
                return Missing.ABSENT
            case (Leaf(value),):
                return value
            case (Pruned(),):
                return Missing.UNKNOWN
            case _:
                return Missing.SUBTREE

    def children(self) -> Iterator[tuple[bytes, HashTree]]:
        """Yield the visible labels of this level with their subtrees, in order."""
        for entry in self.level:
            if isinstance(entry, Labeled):
                yield entry.label, entry.subtree

    def _below(self, label: bytes) -> HashTree | Missing:
        # Absence needs a visible neighbour on both sides, or the edge of the level: in between, labels are
        # strictly increasing (the parser saw to that), so there is no room for the one we look for.
        shown_before = True
        for entry in self.level:
            match entry:
                case Labeled(found, subtree):
                    if found == label:
                        return subtree
                    if found > label:
                        return Missing.ABSENT if shown_before else Missing.UNKNOWN
                    shown_before = True
                case Pruned():
                    shown_before = False
                case Leaf():
                    return Missing.ABSENT
        return Missing.ABSENT if shown_before else Missing.UNKNOWN


def parse_tree(value: Value) -> HashTree:
    """Return the tree in a CBOR value: lists as the specification has them. Raises `MalformedTree`."""
    digest, entries = _node(value, 0)
    return _level(digest, entries)


def _level(digest: bytes, entries: tuple[Entry, ...]) -> HashTree:
    """Close a level: unordered labels would make absence proofs worthless, so they are refused."""
    previous: bytes | None = None
    for entry in entries:
        if isinstance(entry, Leaf) and len(entries) > 1:
            raise MalformedTree("a value beside other entries")
        if isinstance(entry, Labeled):
            if previous is not None and entry.label <= previous:
                raise MalformedTree("labels out of order")
            previous = entry.label
    return HashTree(digest, entries)


def _node(value: Value, depth: int) -> tuple[bytes, tuple[Entry, ...]]:
    if depth > MAX_DEPTH:
        raise MalformedTree(f"nested deeper than {MAX_DEPTH}")
    match value:
        case [0]:
            return _EMPTY_DIGEST, ()
        case [1, left, right]:
            left_digest, left_entries = _node(left, depth + 1)
            right_digest, right_entries = _node(right, depth + 1)
            return sha256(_FORK + left_digest + right_digest).digest(), left_entries + right_entries
        case [2, bytes(label), inner]:
            subtree = _level(*_node(inner, depth + 1))
            return sha256(_LABELED + label + subtree.digest).digest(), (Labeled(label, subtree),)
        case [3, bytes(leaf)]:
            return sha256(_LEAF + leaf).digest(), (Leaf(leaf),)
        case [4, bytes(digest)] if len(digest) == 32:
            return digest, (Pruned(),)
        case _:
            raise MalformedTree("a node of unknown shape")
