"""`perund check`: verifies again every signature and sum in a store, and compares it with the canister."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from perund.store.damage import faults_in_channel, faults_in_file, unusable
from perund.store.reading import Reader, open_reader
from perund.store.rows import ChannelRow
from protocol.types import State

if TYPE_CHECKING:
    from chain.perun import PerunCanister

__all__ = ["Finding", "check_channel_on_chain", "check_store"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. `channel`: hex, or empty for the store itself."""

    channel: str
    what: str


def check_store(path: Path) -> tuple[int, list[Finding]]:
    """Return how many channels were checked, and what is wrong. Reads only; a node may be running.

    Raises `StorageFailed` when the store cannot be read at all, `StoreDamaged` when a row of it cannot.
    """
    try:
        database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        database.set_busy_timeout(10_000)
        database.pragma("query_only", 1)
        faults = faults_in_file(database)
        database.close()
    except apsw.Error as error:
        raise unusable(path, error, "read") from error
    findings = [Finding("", f"the database file: {fault}") for fault in faults]
    if findings:
        return 0, findings  # what a damaged file says is worth nothing
    read = open_reader(path)
    checked = 0
    after = 0
    while rows := read.channels_page(None, after, 500):
        for row in rows:
            findings += [Finding(row.terms.channel.hex(), what) for what in _wrong_with(row, read)]
            checked += 1
        after = rows[-1].number
    return checked, findings


def _wrong_with(row: ChannelRow, read: Reader) -> Iterator[str]:
    terms, memory = row.terms, row.memory
    state = memory.newest.state
    yield from faults_in_channel(row, read.signatures_0(row.number))
    signed = memory.last_signature
    if signed is None or signed.version < state.version:
        yield f"version {state.version} is signed, the record of our signatures ends before (rule 1)"
    elif signed.version == state.version and signed.digest != state.digest:
        yield f"we signed another state of version {state.version} (rule 1)"
    if memory.pending is not None and memory.pending.version <= state.version:
        yield f"version {memory.pending.version} is outstanding, but version {state.version} is fully signed"
    # Settled on another state: what is only in the newest one is undone.
    if not memory.frozen and row.settled_version in (None, state.version):
        expected = terms.allocation[terms.our_index] + read.net_e8s(row.number, terms.our_index, state.version)
        if expected != state.allocation[terms.our_index]:
            yield (
                f"the payments lead to {expected} e8s of ours, version {state.version} says "
                f"{state.allocation[terms.our_index]}"
            )


async def check_channel_on_chain(row: ChannelRow, perun: PerunCanister) -> list[Finding]:
    """Compare a channel that is not closed with what the canister has, certified. Raises `ChainError`."""
    terms, newest = row.terms, row.memory.newest.state
    registered = (await perun.query_state(terms.channel)).value
    held = [(await perun.query_holdings(terms.funding(i))).value or 0 for i in (0, 1)]
    findings = []
    name = terms.channel.hex()
    proposed = (row.memory.pending, *row.memory.given_up)
    above = [u for u in proposed if u is not None and u.version >= newest.version]
    ours = {State(u.channel, u.version, u.allocation, u.finalized) for u in above}
    if registered is not None and registered.state in ours:
        return []  # what this node proposed is registered, acknowledged late: it loses nothing by that
    if registered is not None and registered.state.version > newest.version:
        findings.append(
            Finding(name, f"version {registered.state.version} is registered; this store has {newest.version}")
        )
    elif registered is not None and registered.state.version < newest.version:
        findings.append(
            Finding(name, f"the old version {registered.state.version} is registered: run the node, it refutes")
        )
    elif registered is not None and registered.state != newest:
        findings.append(Finding(name, f"another state of version {newest.version} is registered"))
    if registered is None and row.memory.phase == "open" and sum(held) < terms.total:
        findings.append(Finding(name, f"the canister holds {sum(held)} e8s of {terms.total}"))
    return findings
