"""The words of `ledger.did` as values and as Candid types. Blocks have theirs in `blocks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devnet.candid import (
    BLOB,
    INT,
    NAT,
    NAT64,
    NULL,
    PRINCIPAL,
    TEXT,
    Shape,
    func,
    opt,
    record,
    single,
    tuple_of,
    variant,
    vec,
)
from devnet.ledger.accounts import account_identifier
from devnet.ledger.blocks import BLOCK, TIMESTAMP, TOKENS, Block

__all__ = [
    "ACCOUNT",
    "GET_BLOCKS_ARGS",
    "ICRC1_TRANSFER_ARG",
    "ICRC1_TRANSFER_RESULT",
    "METADATA",
    "QUERY_BLOCKS_RESPONSE",
    "STANDARDS",
    "TRANSFER_ARGS",
    "TRANSFER_RESULT",
    "Account",
    "GetBlocksArgs",
    "Icrc1TransferArg",
    "QueryBlocksResponse",
    "Standard",
    "TransferArgs",
]


@dataclass(frozen=True, slots=True)
class Account:
    """An account of ICRC-1. `owner`: raw principal; `subaccount`: 32 bytes, None for the default one."""

    owner: bytes
    subaccount: bytes | None

    @property
    def identifier(self) -> bytes:
        """The account (32 bytes) as the ledger writes it."""
        return account_identifier(self.owner) if self.subaccount is None else self._of_subaccount(self.subaccount)

    def _of_subaccount(self, subaccount: bytes) -> bytes:
        return account_identifier(self.owner, subaccount)


@dataclass(frozen=True, slots=True)
class TransferArgs:
    """A transfer of the legacy interface. `amount`, `fee`: e8s; `to`: account; `created_at_time`: ns."""

    memo: int
    amount: int
    fee: int
    from_subaccount: bytes | None
    to: bytes
    created_at_time: int | None


@dataclass(frozen=True, slots=True)
class Icrc1TransferArg:
    """A transfer of ICRC-1. `amount`, `fee`: e8s of any size; `created_at_time`: ns."""

    from_subaccount: bytes | None
    to: Account
    amount: int
    fee: int | None
    memo: bytes | None
    created_at_time: int | None


@dataclass(frozen=True, slots=True)
class GetBlocksArgs:
    """Which blocks: `length` of them from index `start` on."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class QueryBlocksResponse:
    """Blocks from `first_block_index` on. Nothing is archived or certified here."""

    chain_length: int
    blocks: tuple[Block, ...]
    first_block_index: int
    certificate: bytes | None = None
    archived_blocks: tuple[()] = ()


@dataclass(frozen=True, slots=True)
class Standard:
    """A standard that the ledger follows."""

    name: str
    url: str


def _one(label: str, shape: Shape[int]) -> Shape[object]:
    """Return a record of one field of an error, read from the attribute of that name."""
    return record(lambda **fields: fields, **{label: shape})


_TRANSFER_ERROR: Final = variant(
    BadFee=_one("expected_fee", TOKENS),
    InsufficientFunds=_one("balance", TOKENS),
    TxTooOld=_one("allowed_window_nanos", NAT64),
    TxCreatedInFuture=NULL,
    TxDuplicate=_one("duplicate_of", NAT64),
)
_ICRC1_TRANSFER_ERROR: Final = variant(
    BadFee=_one("expected_fee", NAT),
    BadBurn=single("min_burn_amount", NAT),
    InsufficientFunds=_one("balance", NAT),
    TooOld=NULL,
    CreatedInFuture=_one("ledger_time", NAT64),
    TemporarilyUnavailable=NULL,
    Duplicate=_one("duplicate_of", NAT),
    GenericError=record(lambda **fields: fields, error_code=NAT, message=TEXT),
)
TRANSFER_ARGS: Final[Shape[TransferArgs]] = record(
    TransferArgs,
    memo=NAT64,
    amount=TOKENS,
    fee=TOKENS,
    from_subaccount=opt(BLOB),
    to=BLOB,
    created_at_time=opt(TIMESTAMP),
)
TRANSFER_RESULT: Final = variant(Ok=NAT64, Err=_TRANSFER_ERROR)
ACCOUNT: Final[Shape[Account]] = record(Account, owner=PRINCIPAL, subaccount=opt(BLOB))
ICRC1_TRANSFER_ARG: Final[Shape[Icrc1TransferArg]] = record(
    Icrc1TransferArg,
    from_subaccount=opt(BLOB),
    to=ACCOUNT,
    amount=NAT,
    fee=opt(NAT),
    memo=opt(BLOB),
    created_at_time=opt(NAT64),
)
ICRC1_TRANSFER_RESULT: Final = variant(Ok=NAT, Err=_ICRC1_TRANSFER_ERROR)
GET_BLOCKS_ARGS: Final[Shape[GetBlocksArgs]] = record(GetBlocksArgs, start=NAT64, length=NAT64)
_QUERY_ARCHIVE_RESULT: Final = variant(
    Ok=single("blocks", vec(BLOCK)),
    Err=variant(
        BadFirstBlockIndex=record(lambda **fields: fields, requested_index=NAT64, first_valid_index=NAT64),
        Other=record(lambda **fields: fields, error_code=NAT64, error_message=TEXT),
    ),
)
QUERY_BLOCKS_RESPONSE: Final[Shape[QueryBlocksResponse]] = record(
    QueryBlocksResponse,
    chain_length=NAT64,
    certificate=opt(BLOB),
    blocks=vec(BLOCK),
    first_block_index=NAT64,
    archived_blocks=vec(
        record(
            lambda **fields: fields,
            start=NAT64,
            length=NAT64,
            callback=func((GET_BLOCKS_ARGS,), (_QUERY_ARCHIVE_RESULT,)),
        )
    ),
)
METADATA: Final = vec(tuple_of(TEXT, variant(Nat=NAT, Int=INT, Text=TEXT, Blob=BLOB)))
STANDARDS: Final = vec(record(Standard, name=TEXT, url=TEXT))
