"""The ICP ledger behind `ledger.did`: the replica's `CanisterModule`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from devnet.candid import BLOB, NAT, NAT8, NAT32, PRINCIPAL, TEXT, AnyShape, Case, blank, opt, single, vec
from devnet.canister import Call, Trap
from devnet.code import interface_file, module_hash
from devnet.ledger import interface as words
from devnet.ledger.accounts import MINTING_ACCOUNT, MINTING_OWNER, is_account_identifier
from devnet.ledger.blocks import TOKENS
from devnet.ledger.interface import Account, GetBlocksArgs, Icrc1TransferArg, Standard, TransferArgs
from devnet.ledger.ledger import (
    MAX_MEMO_BYTES,
    TRANSFER_FEE_E8S,
    BadFee,
    IcpLedger,
    InsufficientFunds,
    Refusal,
    TransferRequest,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from devnet.method import Arguments, Method, Methods, at_once
from protocol.types import MAX_E8S

__all__ = ["MAX_BLOCKS", "MAX_BLOCKS_FOR_USERS", "TRANSFER_FEE_E8S", "LedgerModule"]

MAX_BLOCKS: Final = 2_000
MAX_BLOCKS_FOR_USERS: Final = 50
"""The real ledger gives a user so few in an update call; here also in a query, since a canister cannot tell which
of the two it is in. Readers ask on until `chain_length`, as they must."""
_NAME: Final = "Internet Computer"
_SYMBOL: Final = "ICP"
_DECIMALS: Final = 8
_SELF_AUTHENTICATING: Final = b"\x02"
_STANDARDS: Final = (Standard("ICRC-1", "https://github.com/dfinity/ICRC-1/tree/main/standards/ICRC-1"),)
_METADATA: Final = (
    ("icrc1:decimals", Case("Nat", _DECIMALS)),
    ("icrc1:name", Case("Text", _NAME)),
    ("icrc1:symbol", Case("Text", _SYMBOL)),
    ("icrc1:max_memo_length", Case("Nat", MAX_MEMO_BYTES)),
)


class LedgerModule:
    """A `CanisterModule` of `ledger`."""

    def __init__(self, ledger: IcpLedger) -> None:
        self.ledger = ledger
        self.candid = interface_file("ledger.did")
        self.module_hash = module_hash("ledger.did", "ledger", "candid", "method.py")
        self.methods = Methods(_methods(ledger))
        self.updates = self.methods.updates
        self.queries = self.methods.queries

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        """Run a method on a Candid argument and return its Candid reply. Raises `Trap`, `MethodNotFound`."""
        return await self.methods.execute(method, arg, call)

    def save(self) -> bytes:
        """Return everything that must outlive an upgrade or a restart; equal states give equal bytes."""
        return self.ledger.save()

    def load(self, saved: bytes) -> None:
        """Take over what `save` returned. Raises `Trap`."""
        self.ledger.load(saved)

    async def change_fee(self, e8s: int) -> None:
        """Change what a transfer costs: the admin's call. Raises `FeeRefused`."""
        self.ledger.change_fee(e8s)

    async def mint(self, account: bytes, e8s: int, now_ns: int) -> int:
        """Make money for an account (32 bytes) and return the block: the admin's call. Raises `MintRefused`."""
        return self.ledger.mint(account, e8s, now_ns)


def _methods(ledger: IcpLedger) -> dict[str, Method]:
    def transfer(call: Call, arguments: Arguments) -> Case:
        return _result(ledger.transfer(call.caller, _legacy_request(arguments[0]), call.now_ns))

    def icrc1_transfer(call: Call, arguments: Arguments) -> Case:
        return _icrc1_transfer(ledger, call, arguments[0])

    def query_blocks(call: Call, arguments: Arguments) -> words.QueryBlocksResponse:
        return _query_blocks(ledger, call, arguments[0])

    def account_balance(_: Call, arguments: Arguments) -> int:
        if not is_account_identifier(arguments[0]):
            raise Trap("the account is no account identifier: its length or check sum is wrong")
        return ledger.balance(arguments[0])

    def account_identifier(_: Call, arguments: Arguments) -> bytes:
        return _identifier(arguments[0])

    def balance_of(_: Call, arguments: Arguments) -> int:
        return ledger.balance(_identifier(arguments[0]))

    queries: dict[str, tuple[tuple[AnyShape, ...], AnyShape, Callable[[Call, Arguments], object]]] = {
        "account_balance": ((single("account", BLOB),), TOKENS, account_balance),
        "account_identifier": ((words.ACCOUNT,), BLOB, account_identifier),
        "transfer_fee": ((blank(),), single("transfer_fee", TOKENS), lambda *_: ledger.fee_e8s),
        "query_blocks": ((words.GET_BLOCKS_ARGS,), words.QUERY_BLOCKS_RESPONSE, query_blocks),
        "archives": ((), single("archives", vec(single("canister_id", PRINCIPAL))), lambda *_: ()),
        "symbol": ((), single("symbol", TEXT), lambda *_: _SYMBOL),
        "name": ((), single("name", TEXT), lambda *_: _NAME),
        "decimals": ((), single("decimals", NAT32), lambda *_: _DECIMALS),
        "icrc1_balance_of": ((words.ACCOUNT,), NAT, balance_of),
        "icrc1_fee": ((), NAT, lambda *_: ledger.fee_e8s),
        "icrc1_total_supply": ((), NAT, lambda *_: ledger.total_supply_e8s),
        "icrc1_name": ((), TEXT, lambda *_: _NAME),
        "icrc1_symbol": ((), TEXT, lambda *_: _SYMBOL),
        "icrc1_decimals": ((), NAT8, lambda *_: _DECIMALS),
        "icrc1_minting_account": ((), opt(words.ACCOUNT), lambda *_: Account(MINTING_OWNER, None)),
        "icrc1_metadata": ((), words.METADATA, lambda *_: (*_METADATA, ("icrc1:fee", Case("Nat", ledger.fee_e8s)))),
        "icrc1_supported_standards": ((), words.STANDARDS, lambda *_: _STANDARDS),
    }
    return {
        "transfer": Method((words.TRANSFER_ARGS,), (words.TRANSFER_RESULT,), at_once(transfer)),
        "icrc1_transfer": Method((words.ICRC1_TRANSFER_ARG,), (words.ICRC1_TRANSFER_RESULT,), at_once(icrc1_transfer)),
        **{
            name: Method(arguments, (result,), at_once(run), query=True)
            for name, (arguments, result, run) in queries.items()
        },
    }


def _legacy_request(args: TransferArgs) -> TransferRequest:
    return TransferRequest(
        to=args.to,
        amount=args.amount,
        fee=args.fee,
        memo=args.memo,
        from_subaccount=args.from_subaccount,
        created_at_time=args.created_at_time,
    )


def _result(answer: int | Refusal) -> Case:
    return Case("Ok", answer) if isinstance(answer, int) else Case("Err", answer)


def _icrc1_transfer(ledger: IcpLedger, call: Call, arg: Icrc1TransferArg) -> Case:
    to = _identifier(arg.to)
    if arg.amount > MAX_E8S:
        # Nobody can have so much; the real ledger answers the same before it looks at anything else.
        source = _identifier(Account(call.caller, arg.from_subaccount))
        return Case("Err", InsufficientFunds(ledger.balance(source)))
    if to == MINTING_ACCOUNT and arg.amount < ledger.fee_e8s:
        return Case("Err", Case("BadBurn", ledger.fee_e8s))
    if to == MINTING_ACCOUNT and arg.fee:
        return Case("Err", BadFee(0))  # a burn costs nothing: who learns his fee from errors learns a wrong one here
    request = TransferRequest(
        to=to,
        amount=arg.amount,
        fee=arg.fee,
        icrc1_memo=arg.memo,
        from_subaccount=arg.from_subaccount,
        created_at_time=arg.created_at_time,
    )
    answer = ledger.transfer(call.caller, request, call.now_ns)
    match answer:
        case TxTooOld():
            return Case("Err", Case("TooOld"))
        case TxCreatedInFuture():
            return Case("Err", Case("CreatedInFuture", answer))
        case TxDuplicate():
            return Case("Err", Case("Duplicate", answer))
        case BadFee() | InsufficientFunds():
            return Case("Err", answer)
        case _:
            return Case("Ok", answer)


def _query_blocks(ledger: IcpLedger, call: Call, args: GetBlocksArgs) -> words.QueryBlocksResponse:
    is_user = call.caller.endswith(_SELF_AUTHENTICATING) and len(call.caller) == 29
    limit = MAX_BLOCKS_FOR_USERS if is_user else MAX_BLOCKS
    blocks = ledger.blocks(args.start, min(args.length, limit))
    first = args.start if blocks else min(args.start, ledger.chain_length)
    return words.QueryBlocksResponse(ledger.chain_length, blocks, first)


def _identifier(account: Account) -> bytes:
    if account.subaccount is not None and len(account.subaccount) != 32:
        raise Trap(f"a subaccount has 32 bytes, not {len(account.subaccount)}")
    return account.identifier
