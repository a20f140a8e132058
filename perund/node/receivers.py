"""To whom a wallet sends: what an account's text stands for, and where money is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chain.principal import account_from_text, account_identifier, principal_from_text
from protocol.errors import CallerMistake, PerundError

if TYPE_CHECKING:
    from perund.node.services import Services

__all__ = ["receiver_of", "why_lost"]

MANAGEMENT: Final = b""
ANONYMOUS: Final = b"\x04"


def receiver_of(text: str) -> bytes:
    """Return the account (32 bytes) that an account's text or a principal's stands for."""
    try:
        return account_from_text(text) if len(text) == 64 else account_identifier(principal_from_text(text))
    except PerundError as error:
        raise CallerMistake("bad_account", f"{text!r} is no account and no principal: {error}") from error


def why_lost(receiver: bytes, services: Services) -> str:
    """Return what an account is, for people, if sending there is pointless and cannot be undone; else nothing."""
    known = {
        services.wallet_account: "this wallet itself: nothing would move, and the fee would be spent",
        services.canister_account: "the Perun canister's account: what is sent there belongs to no channel, and nobody "
        "can get it back (`perun open` puts money into a channel)",
        account_identifier(services.ledger_principal): "the ledger's own account: nobody can send it on from there",
        account_identifier(MANAGEMENT): "the account of the management canister: nobody can send it on from there",
        account_identifier(ANONYMOUS): "the account of the anonymous principal: whoever comes first takes it",
    }
    return known.get(receiver, "")
