"""The ICP ledger: transfers that are never made twice, balances and blocks, all certified.

A transfer carries its creation time and the ledger keeps the hashes of a day's transfers: the same transfer
again answers `TxDuplicate` with the block of the first. Amounts are e8s, accounts 32-byte account identifiers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain import candid
from chain.agent import Agent
from chain.candid import BLOB, FUNC, NAT8, NAT64, NULL, PRINCIPAL, CandidValue, certain, opt, record, variant, vec
from chain.clock import Certified
from chain.errors import InvalidPrincipal, UnexpectedReply
from chain.numbers import bounded
from chain.principal import account_identifier, is_account_identifier
from chain.request import SignedCall
from protocol.types import MAX_INT64

__all__ = [
    "MAX_BLOCKS",
    "Approve",
    "ArchivedBlocks",
    "BadFee",
    "Block",
    "BlockPage",
    "Burn",
    "IcpLedger",
    "InsufficientFunds",
    "Mint",
    "Operation",
    "Transfer",
    "TransferArgs",
    "TransferError",
    "TxCreatedInFuture",
    "TxDuplicate",
    "TxTooOld",
]

MAX_BLOCKS: Final = 50
"""Of one certified page: the ledger gives a user no more in an update call."""
READ_PATIENCE_S: Final = 60.0

_TOKENS: Final = record(e8s=NAT64)
_TIME: Final = record(timestamp_nanos=NAT64)
_ACCOUNT: Final = record(owner=PRINCIPAL, subaccount=opt(BLOB))
_TRANSFER_ARGS: Final = record(
    memo=NAT64, amount=_TOKENS, fee=_TOKENS, from_subaccount=opt(BLOB), to=BLOB, created_at_time=opt(_TIME)
)
_TRANSFER_ERROR: Final = variant(
    BadFee=record(expected_fee=_TOKENS),
    InsufficientFunds=record(balance=_TOKENS),
    TxTooOld=record(allowed_window_nanos=NAT64),
    TxCreatedInFuture=NULL,
    TxDuplicate=record(duplicate_of=NAT64),
)
_TRANSFER_RESULT: Final = variant(Ok=NAT64, Err=_TRANSFER_ERROR)
_OPERATION: Final = variant(
    Mint=record(to=BLOB, amount=_TOKENS),
    Burn=record(**{"from": BLOB, "amount": _TOKENS}),
    Transfer=record(**{"from": BLOB, "to": BLOB, "amount": _TOKENS, "fee": _TOKENS, "spender": certain(BLOB)}),
    Approve=record(**{"from": BLOB, "spender": BLOB, "fee": _TOKENS}),
)
_BLOCK: Final = record(
    transaction=record(memo=NAT64, operation=certain(_OPERATION), created_at_time=_TIME), timestamp=_TIME
)
_GET_BLOCKS: Final = record(start=NAT64, length=NAT64)
_PAGE: Final = record(
    chain_length=NAT64,
    blocks=vec(_BLOCK),
    first_block_index=NAT64,
    archived_blocks=vec(record(start=NAT64, length=NAT64, callback=FUNC)),
)

_ARCHIVE_RESULT: Final = variant(
    Ok=record(blocks=vec(_BLOCK)), Err=variant(BadFirstBlockIndex=record(), Other=record())
)


@dataclass(frozen=True, slots=True)
class TransferArgs:
    """One transfer. Every field counts for recognising it again; none may change between two attempts.

    `to`: account identifier; `created_at_time_ns`: chain time, at most a minute ahead of it and a day behind.
    """

    to: bytes
    amount_e8s: int
    fee_e8s: int
    memo: int
    created_at_time_ns: int
    from_subaccount: bytes | None = None

    def __post_init__(self) -> None:
        if not is_account_identifier(self.to):
            raise InvalidPrincipal(f"{self.to.hex()} is no account identifier: nothing can be sent there")


@dataclass(frozen=True, slots=True)
class BadFee:
    """The fee is another one. Checked before duplicates: it proves nothing about an earlier attempt."""

    expected_e8s: int


@dataclass(frozen=True, slots=True)
class InsufficientFunds:
    """The account holds less than amount and fee. Checked after duplicates."""

    balance_e8s: int


@dataclass(frozen=True, slots=True)
class TxTooOld:
    """Created too long ago. Checked before duplicates: it proves nothing about an earlier attempt."""

    allowed_window_ns: int


@dataclass(frozen=True, slots=True)
class TxCreatedInFuture:
    """Created more than a minute ahead of ledger time."""


@dataclass(frozen=True, slots=True)
class TxDuplicate:
    """The very same transfer was made before, in the block `of`: success."""

    of: int


TransferError = BadFee | InsufficientFunds | TxTooOld | TxCreatedInFuture | TxDuplicate


@dataclass(frozen=True, slots=True)
class Transfer:
    """Tokens went from one account to another. `spender`: who did it on an approval, if not the owner."""

    from_: bytes
    to: bytes
    amount_e8s: int
    fee_e8s: int
    spender: bytes | None


@dataclass(frozen=True, slots=True)
class Mint:
    """Tokens were made."""

    to: bytes
    amount_e8s: int


@dataclass(frozen=True, slots=True)
class Burn:
    """Tokens were destroyed."""

    from_: bytes
    amount_e8s: int


@dataclass(frozen=True, slots=True)
class Approve:
    """Somebody was allowed to spend; only the fee moved."""

    from_: bytes
    spender: bytes
    fee_e8s: int


Operation = Transfer | Mint | Burn | Approve


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `timestamp_ns`: ledger time; `operation`: None if the ledger shows none."""

    index: int
    timestamp_ns: int
    memo: int
    operation: Operation | None
    created_at_time_ns: int


@dataclass(frozen=True, slots=True)
class ArchivedBlocks:
    """Blocks `start` to `start + length - 1` have moved to the archive canister; see `IcpLedger.archived`."""

    start: int
    length: int
    canister: bytes
    method: str


@dataclass(frozen=True, slots=True)
class BlockPage:
    """Some blocks, none left out between the one asked for and the last.

    `chain_length`: index after the newest block; `archived`: where the older of those asked for are.
    """

    chain_length: int
    blocks: tuple[Block, ...]
    archived: tuple[ArchivedBlocks, ...]


class IcpLedger:
    """A client of the ICP ledger. `canister_id`: raw principal.

    All methods raise what `Agent.submit` raises, and `UnexpectedReply`. A trap (`CallRejected`, code 5) covers
    throttling too: it proves nothing about an earlier attempt at the same transfer.
    """

    def __init__(self, agent: Agent, canister_id: bytes) -> None:
        self._agent = agent
        self.canister_id: Final = canister_id

    async def transfer(self, args: TransferArgs) -> Certified[int | TransferError]:
        """Transfer; returns the block. A job stores `sign_transfer`'s call before it submits that."""
        await self._agent.ensure_time(self.canister_id)
        return await self.submit_transfer(self.sign_transfer(args))

    def sign_transfer(self, args: TransferArgs) -> SignedCall:
        """Return the call that makes the transfer, to be stored before it is submitted."""
        value: CandidValue = {
            "memo": args.memo,
            "amount": {"e8s": args.amount_e8s},
            "fee": {"e8s": args.fee_e8s},
            "from_subaccount": args.from_subaccount,
            "to": args.to,
            "created_at_time": {"timestamp_nanos": args.created_at_time_ns},
        }
        return self._agent.sign_call(self.canister_id, "transfer", candid.encode([_TRANSFER_ARGS], [value]))

    async def submit_transfer(self, call: SignedCall) -> Certified[int | TransferError]:
        """Submit that call, as often as needed; returns the block or the ledger's error."""
        answer = await self._agent.submit(call)
        return answer.with_value(_transferred(answer.value))

    async def outcome_of_transfer(self, call: SignedCall) -> Certified[int | TransferError]:
        """Find out what became of that call without sending it again."""
        answer = await self._agent.outcome(call)
        return answer.with_value(_transferred(answer.value))

    async def balance(self, account: bytes) -> Certified[int]:
        """Look at an account's balance in e8s."""
        answer = await self._read("account_balance", candid.encode([record(account=BLOB)], [{"account": account}]))
        match candid.decode([_TOKENS], answer.value):
            case [{"e8s": int(balance)}]:
                return answer.with_value(min(balance, MAX_INT64))  # on a network of one's own one can mint more
            case _:
                raise UnexpectedReply("account_balance answered no tokens")

    async def fee(self) -> Certified[int]:
        """Look at the fee of a transfer in e8s."""
        answer = await self._read("transfer_fee", candid.encode([record()], [{}]))
        match candid.decode([record(transfer_fee=_TOKENS)], answer.value):
            case [{"transfer_fee": {"e8s": int(fee)}}]:
                return answer.with_value(bounded(fee, "a fee"))
            case _:
                raise UnexpectedReply("transfer_fee answered no tokens")

    async def decimals(self) -> Certified[int]:
        """Look at how many decimals the ledger's token has: 8 for ICP."""
        answer = await self._read("icrc1_decimals", candid.encode([], []))
        match candid.decode([NAT8], answer.value):
            case [int(decimals)]:
                return answer.with_value(decimals)
            case _:
                raise UnexpectedReply("icrc1_decimals answered no number")

    async def minting_account(self) -> Certified[bytes | None]:
        """Look at the account (32 bytes) to which a transfer is a burn; None if the ledger has none."""
        answer = await self._read("icrc1_minting_account", candid.encode([], []))
        match candid.decode([opt(_ACCOUNT)], answer.value):
            case [{"owner": bytes(owner), "subaccount": (bytes() | None) as subaccount}]:
                return answer.with_value(account_identifier(owner, subaccount or bytes(32)))
            case [None]:
                return answer.with_value(None)
            case _:
                raise UnexpectedReply("icrc1_minting_account answered no account")

    async def blocks(self, start: int, length: int) -> Certified[BlockPage]:
        """Look at blocks from `start` on, at most 50. There may be fewer: ask on until `chain_length`."""
        if not 0 <= length <= MAX_BLOCKS:
            raise ValueError(f"{length} blocks in one page; the ledger certifies at most {MAX_BLOCKS}")
        answer = await self._read("query_blocks", _blocks_request(start, length))
        return answer.with_value(_page(answer.value, start))

    async def chain_length(self) -> Certified[int]:
        """Look at the index after the newest block."""
        answer = await self._read("query_blocks", _blocks_request(0, 0))
        return answer.with_value(_page(answer.value, 0).chain_length)

    async def archived(self, where: ArchivedBlocks) -> Certified[tuple[Block, ...]]:
        """Look at archived blocks from `where.start` on, at least one and at most 50.

        Where they are is what a certified page said.
        """
        request = _blocks_request(where.start, min(where.length, MAX_BLOCKS))
        answer = await self._agent.call(where.canister, where.method, request, give_up_after_s=READ_PATIENCE_S)
        match candid.decode([_ARCHIVE_RESULT], answer.value):
            case [{"Ok": {"blocks": [*blocks]}}] if blocks:
                found = tuple(_block(where.start + place, block) for place, block in enumerate(blocks))
                return answer.with_value(found)
            case _:
                raise UnexpectedReply(f"the ledger's archive does not have block {where.start}")

    async def _read(self, method: str, argument: bytes) -> Certified[bytes]:
        return await self._agent.call(self.canister_id, method, argument, give_up_after_s=READ_PATIENCE_S)


def _transferred(reply: bytes) -> int | TransferError:
    match candid.decode([_TRANSFER_RESULT], reply):
        case [{"Ok": int(block)}]:
            return bounded(block, "a block")
        case [{"Err": {"BadFee": {"expected_fee": {"e8s": int(fee)}}}}]:
            return BadFee(bounded(fee, "a fee"))
        case [{"Err": {"InsufficientFunds": {"balance": {"e8s": int(balance)}}}}]:
            return InsufficientFunds(balance)
        case [{"Err": {"TxTooOld": {"allowed_window_nanos": int(window)}}}]:
            return TxTooOld(window)
        case [{"Err": {"TxCreatedInFuture": None}}]:
            return TxCreatedInFuture()
        case [{"Err": {"TxDuplicate": {"duplicate_of": int(block)}}}]:
            return TxDuplicate(bounded(block, "a block"))
        case _:
            raise UnexpectedReply("the ledger answered a transfer with something unknown")


def _blocks_request(start: int, length: int) -> bytes:
    return candid.encode([_GET_BLOCKS], [{"start": start, "length": length}])


def _page(reply: bytes, start: int) -> BlockPage:
    match candid.decode([_PAGE], reply):
        case [
            {
                "chain_length": int(chain_length),
                "blocks": [*blocks],
                "first_block_index": int(first),
                "archived_blocks": [*archived],
            }
        ]:
            ranges = tuple(_archived(item) for item in archived)
            _check_gap(start, ranges, first if blocks else None)
            return BlockPage(
                bounded(chain_length, "a number of blocks"),
                tuple(_block(first + place, block) for place, block in enumerate(blocks)),
                ranges,
            )
        case _:
            raise UnexpectedReply("query_blocks answered with something else than blocks")


def _check_gap(start: int, archived: tuple[ArchivedBlocks, ...], first: int | None) -> None:
    """Refuse a page that leaves blocks out: a gap would read as "no such transfer", and it would be made again."""
    covered = start
    for place in sorted(archived, key=lambda part: part.start):
        if place.start > covered:
            break
        covered = max(covered, place.start + place.length)
    if first is not None and first > covered:
        raise UnexpectedReply(f"the ledger left out the blocks {covered} to {first - 1}")


def _archived(value: CandidValue) -> ArchivedBlocks:
    match value:
        case {"start": int(start), "length": int(length), "callback": [bytes(canister), str(method)]}:
            return ArchivedBlocks(start, length, canister, method)
        case _:
            raise UnexpectedReply("a range of archived blocks that is no record")


def _block(index: int, value: CandidValue) -> Block:
    match value:
        case {
            "timestamp": {"timestamp_nanos": int(timestamp)},
            "transaction": {
                "memo": int(memo),
                "operation": operation,
                "created_at_time": {"timestamp_nanos": int(created)},
            },
        }:
            return Block(index, timestamp, memo, None if operation is None else _operation(operation), created)
        case _:
            raise UnexpectedReply("a block that is no record")


def _operation(value: CandidValue) -> Operation:
    match value:
        case {
            "Transfer": {
                "from": bytes(from_),
                "to": bytes(to),
                "amount": {"e8s": int(amount)},
                "fee": {"e8s": int(fee)},
                "spender": (bytes() | None) as spender,
            }
        }:
            return Transfer(from_, to, amount, fee, spender)
        case {"Mint": {"to": bytes(to), "amount": {"e8s": int(amount)}}}:
            return Mint(to, amount)
        case {"Burn": {"from": bytes(from_), "amount": {"e8s": int(amount)}}}:
            return Burn(from_, amount)
        case {"Approve": {"from": bytes(from_), "spender": bytes(spender), "fee": {"e8s": int(fee)}}}:
            return Approve(from_, spender, fee)
        case _:
            raise UnexpectedReply("a ledger operation of an unknown kind")
