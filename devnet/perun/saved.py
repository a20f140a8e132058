"""The canister's state as bytes, for upgrades and restarts."""

from __future__ import annotations

from typing import Final

import msgspec

from devnet.canister import Trap
from devnet.perun.deposits import SavedDeposits
from devnet.perun.interface import Funding
from devnet.perun.journal import EventLog
from devnet.perun.payouts import Payout
from devnet.perun.phases import Phase

__all__ = ["SavedState", "decode_state", "encode_state"]

FORMAT: Final = 1


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, in lists that are sorted: equal states give equal bytes."""

    format: int = FORMAT
    own_principal: bytes
    ledger_principal: bytes
    channels: list[tuple[bytes, Phase]]
    deposits: SavedDeposits
    withdrawals: list[tuple[Funding, Payout]]
    refunds: list[tuple[int, Payout]]
    sent: list[int]
    last_payout_ns: int
    events: list[tuple[bytes, EventLog]]
    disputes: list[tuple[int, bytes]]
    disputes_head: int


def encode_state(state: SavedState) -> bytes:
    """Return the state as MessagePack."""
    return msgspec.msgpack.encode(state)


def decode_state(saved: bytes, own_principal: bytes, ledger_principal: bytes) -> SavedState:
    """Return the state in `saved`. Raises `Trap` when it is none, or not one of this canister and ledger."""
    try:
        state = msgspec.msgpack.decode(saved, type=SavedState)
    except msgspec.MsgspecError as exc:
        raise Trap(f"the saved state of the Perun canister does not decode: {exc}") from exc
    if state.format != FORMAT:
        raise Trap(f"the saved state of the Perun canister has format {state.format}; this code reads {FORMAT}")
    if (state.own_principal, state.ledger_principal) != (own_principal, ledger_principal):
        raise Trap(
            f"the saved state is of canister {state.own_principal.hex()} with ledger {state.ledger_principal.hex()}, "
            f"not of {own_principal.hex()} with {ledger_principal.hex()}"
        )
    return state
