"""Candid, as Rust's `candid` crate writes and reads it: what a canister does with its arguments and replies.

It is written here, and not taken from the library that clients use, so that a mistake of either shows; and
because a canister's decoder meets strangers: every length is checked before it is believed, and every value
costs a part of a fixed budget. Source: the Candid specification; fact sheet of the interface, section 6.
"""

from __future__ import annotations

from devnet.candid.composites import BLOB, Case, FuncReference, blank, func, opt, record, single, tuple_of, variant, vec
from devnet.candid.message import NotCandid, decode, encode
from devnet.candid.primitives import BOOL, INT, NAT, NAT8, NAT32, NAT64, NULL, PRINCIPAL, TEXT
from devnet.candid.shape import AnyShape, Shape

__all__ = [
    "BLOB",
    "BOOL",
    "INT",
    "NAT",
    "NAT8",
    "NAT32",
    "NAT64",
    "NULL",
    "PRINCIPAL",
    "TEXT",
    "AnyShape",
    "Case",
    "FuncReference",
    "NotCandid",
    "Shape",
    "blank",
    "decode",
    "encode",
    "func",
    "opt",
    "record",
    "single",
    "tuple_of",
    "variant",
    "vec",
]
