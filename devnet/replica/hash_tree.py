"""Hash trees: a map of labels that is hashed, shared between versions, and shown in part.

A level is a crit-bit tree over its labels: it forks where labels first differ. So its shape follows from the
set of labels alone (equal states have equal hashes), an insertion touches only the way to one label, and old
versions stay valid while they are shown to clients. Nodes are immutable and hashed when first asked.

`witness` keeps the asked paths and replaces the rest by hashes; where a label is absent it keeps both neighbours,
so that the absence is proved. Source: Interface Specification, "Certification".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Final

from devnet.replica.cbor import Value

__all__ = [
    "EMPTY",
    "Empty",
    "Fork",
    "Labeled",
    "Leaf",
    "Level",
    "Node",
    "PartialFork",
    "Pruned",
    "get",
    "put",
    "remove",
    "witness",
]

Path = Sequence[bytes]

_DOMAIN_EMPTY: Final = b"\x11ic-hashtree-empty"
_DOMAIN_FORK: Final = b"\x10ic-hashtree-fork"
_DOMAIN_LABELED: Final = b"\x13ic-hashtree-labeled"
_DOMAIN_LEAF: Final = b"\x10ic-hashtree-leaf"


class Empty:
    """Nothing: a level without labels."""

    digest: Final = sha256(_DOMAIN_EMPTY).digest()

    def cbor(self) -> Value:
        """Return `[0]`."""
        return [0]


EMPTY: Final = Empty()


class Leaf:
    """A value."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    @cached_property
    def digest(self) -> bytes:
        """Return the hash of the value behind its domain."""
        return sha256(_DOMAIN_LEAF + self.value).digest()

    def cbor(self) -> Value:
        """Return `[3, value]`."""
        return [3, self.value]


class Pruned:
    """A part that is not shown. `digest`: 32 bytes."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest

    def cbor(self) -> Value:
        """Return `[4, digest]`."""
        return [4, self.digest]


class Labeled:
    """A label and what stands under it."""

    def __init__(self, label: bytes, below: Node) -> None:
        self.label = label
        self.below = below

    @property
    def low(self) -> bytes:
        """The first label of this part of the level."""
        return self.label

    @property
    def high(self) -> bytes:
        """The last label of this part of the level."""
        return self.label

    @cached_property
    def digest(self) -> bytes:
        """Return the hash of label and content."""
        return sha256(_DOMAIN_LABELED + self.label + self.below.digest).digest()

    def cbor(self) -> Value:
        """Return `[2, label, below]`."""
        return [2, self.label, self.below.cbor()]


class Fork:
    """Two parts of a level, all labels of `left` before all of `right`. `bit`: where they first differ."""

    def __init__(self, left: Level, right: Level, bit: int) -> None:
        self.left = left
        self.right = right
        self.low: bytes = left.low
        self.high: bytes = right.high
        self.bit = bit

    @cached_property
    def digest(self) -> bytes:
        """Return the hash of both parts."""
        return sha256(_DOMAIN_FORK + self.left.digest + self.right.digest).digest()

    def cbor(self) -> Value:
        """Return `[1, left, right]`."""
        return [1, self.left.cbor(), self.right.cbor()]


class PartialFork:
    """A fork of a witness: its parts may be pruned, so it has no labels to search by."""

    def __init__(self, left: Node, right: Node) -> None:
        self.left = left
        self.right = right

    @cached_property
    def digest(self) -> bytes:
        """Return the hash of both parts."""
        return sha256(_DOMAIN_FORK + self.left.digest + self.right.digest).digest()

    def cbor(self) -> Value:
        """Return `[1, left, right]`."""
        return [1, self.left.cbor(), self.right.cbor()]


Level = Labeled | Fork
"""A level with at least one label."""
Node = Empty | Leaf | Pruned | Labeled | Fork | PartialFork
"""Any node. `digest` is its hash (32 bytes), `cbor()` its form in a certificate."""


def _first_difference(a: bytes, b: bytes) -> int:
    """Return the place of the first bit in which two labels differ.

    Each byte counts as nine bits, the first saying that there is a byte: a label that is the beginning of
    another differs from it there, and comes first, as it does in the order of bytes.
    """
    shared = min(len(a), len(b))
    if a[:shared] == b[:shared]:
        if len(a) == len(b):
            raise ValueError("a label stands twice in a level")
        return shared * 9
    difference = int.from_bytes(a[:shared], "big") ^ int.from_bytes(b[:shared], "big")
    at = shared - (difference.bit_length() + 7) // 8
    return at * 9 + 9 - (a[at] ^ b[at]).bit_length()


def put(level: Node, label: bytes, below: Node) -> Level:
    """Return the level with `below` under `label`, new or replaced."""
    match level:
        case Empty():
            return Labeled(label, below)
        case Labeled() if level.label == label:
            return Labeled(label, below)
        case Fork():
            # Before its bit all labels of the fork agree, so the first of them tells where the new one belongs.
            agrees_until = level.bit + 1 if label == level.low else _first_difference(label, level.low)
            if agrees_until < level.bit:
                return _beside(level, Labeled(label, below), agrees_until)
            if agrees_until == level.bit:
                return Fork(level.left, put(level.right, label, below), level.bit)
            return Fork(put(level.left, label, below), level.right, level.bit)
        case Labeled():
            return _beside(level, Labeled(label, below), _first_difference(label, level.label))
        case _:
            raise TypeError(f"{type(level).__name__} is not a level of labels")


def _beside(level: Level, labeled: Labeled, bit: int) -> Fork:
    return Fork(labeled, level, bit) if labeled.label < level.low else Fork(level, labeled, bit)


def remove(level: Node, label: bytes) -> Node:
    """Return the level without `label`, which must stand in it. Raises `KeyError`."""
    match level:
        case Labeled() if level.label == label:
            return EMPTY
        case Fork():
            inside_left = label <= level.left.high
            rest = remove(level.left if inside_left else level.right, label)
            kept = level.right if inside_left else level.left
            if isinstance(rest, Empty):
                return kept
            assert isinstance(rest, Labeled | Fork)
            return Fork(rest, kept, level.bit) if inside_left else Fork(kept, rest, level.bit)
        case _:
            raise KeyError(label)


def get(level: Node, label: bytes) -> Node | None:
    """Return what stands under `label`, or None."""
    while isinstance(level, Fork):
        level = level.left if label <= level.left.high else level.right
    return level.below if isinstance(level, Labeled) and level.label == label else None


def witness(level: Node, paths: Iterable[Path]) -> Node:
    """Return the tree with everything pruned except what `paths` ask for and the proofs of what is absent.

    A path that ends at a level shows the whole subtree. The result has the same digest.
    """
    return _keep(level, sorted(tuple(path) for path in paths))


def _keep(node: Node, paths: list[tuple[bytes, ...]]) -> Node:
    """Show `paths`, which are sorted, of a level."""
    if not paths:
        return node if isinstance(node, Empty) else Pruned(node.digest)
    if not paths[0]:  # a path ends here: all of it
        return node
    match node:
        case Fork():
            # A path before the right part's first label concerns the left part and one after the left part's last
            # concerns the right; one in the gap concerns both, whose edges prove that nothing is between.
            left = [path for path in paths if path[0] < node.right.low]
            right = [path for path in paths if path[0] > node.left.high]
            return PartialFork(_keep(node.left, left), _keep(node.right, right))
        case Labeled():
            inside = [path[1:] for path in paths if path[0] == node.label]
            return Labeled(node.label, _keep(node.below, inside))
        case _:  # nothing below: shown as it is, so that the absence of what was asked is proved
            return node
