"""The ICP ledger: balances follow from a chain of blocks, and every refused transfer says why.

Rules and their order are those of the real ledger, where clients depend on them. Source: fact sheet, section 7.
Left out: ICRC-2, archives, throttling, certification of the last block.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from devnet.canister import Trap
from devnet.ledger.accounts import MINTING_ACCOUNT, account_identifier, is_account_identifier
from devnet.ledger.blocks import Block, Burn, Mint, Operation, Transaction, Transfer
from protocol.types import MAX_E8S

__all__ = [
    "DEDUPLICATION_WINDOW_NS",
    "MAX_MEMO_BYTES",
    "PERMITTED_DRIFT_NS",
    "TRANSFER_FEE_E8S",
    "BadFee",
    "FeeRefused",
    "IcpLedger",
    "InsufficientFunds",
    "MintRefused",
    "Refusal",
    "TransferRequest",
    "TxCreatedInFuture",
    "TxDuplicate",
    "TxTooOld",
]

TRANSFER_FEE_E8S: Final = 10_000
"""Until the admin changes it: `IcpLedger.change_fee`."""
DEDUPLICATION_WINDOW_NS: Final = 24 * 3600 * 1_000_000_000
PERMITTED_DRIFT_NS: Final = 60 * 1_000_000_000
MAX_MEMO_BYTES: Final = 32
_ANONYMOUS: Final = b"\x04"
_SUBACCOUNT_BYTES: Final = 32
_FEE_CHANGED: Final = b"\xff" * 4
"""In the place of a block's length in what is saved: the new fee follows, in 8 bytes."""
_FEE_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class BadFee:
    """The caller named another fee than `expected_fee` e8s."""

    expected_fee: int


@dataclass(frozen=True, slots=True)
class InsufficientFunds:
    """The account holds `balance` e8s, less than amount and fee."""

    balance: int


@dataclass(frozen=True, slots=True)
class TxTooOld:
    """`created_at_time` lies further back than the window of `allowed_window_nanos`."""

    allowed_window_nanos: int


@dataclass(frozen=True, slots=True)
class TxCreatedInFuture:
    """`created_at_time` lies more than a minute ahead of `ledger_time` (ns)."""

    ledger_time: int


@dataclass(frozen=True, slots=True)
class TxDuplicate:
    """The same transaction is block `duplicate_of` already."""

    duplicate_of: int


Refusal = BadFee | InsufficientFunds | TxTooOld | TxCreatedInFuture | TxDuplicate
"""Why a transfer did not take place. Only a duplicate means that it did, earlier."""


class FeeRefused(ValueError):
    """The admin asked for a fee that cannot be."""


class MintRefused(ValueError):
    """The admin asked for money that cannot be made."""


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """A transfer, in whichever interface it was asked for.

    `to`: account of 32 bytes; `amount`: e8s; `fee`: e8s, None for whatever it costs; `memo`: nat64;
    `icrc1_memo`: at most 32 bytes; `created_at_time`: ns, None to be executed each time it is sent.
    """

    to: bytes
    amount: int
    fee: int | None = None
    memo: int = 0
    icrc1_memo: bytes | None = None
    from_subaccount: bytes | None = None
    created_at_time: int | None = None


class IcpLedger:
    """Everybody's money. Time and caller come with each call; nothing here waits for anything.

    What holds between calls: the balances sum up to what was minted less what was burned, fees included.
    """

    def __init__(self) -> None:
        self._chain: list[Block] = []
        self._tip: bytes | None = None
        self._balances: dict[bytes, int] = {}
        self._recent: dict[Transaction, int] = {}
        self._recent_by_age: deque[tuple[int, Transaction]] = deque()
        self._total_supply = 0
        self._fee_e8s: int | None = None
        self._saved = bytearray()

    @property
    def fee_e8s(self) -> int:
        """What a transfer costs now."""
        return TRANSFER_FEE_E8S if self._fee_e8s is None else self._fee_e8s

    def change_fee(self, e8s: int) -> None:
        """Have transfers cost so much from now on, as the governance of the real ledger can. Raises `FeeRefused`."""
        if not 0 <= e8s <= MAX_E8S:
            raise FeeRefused(f"a fee of {e8s} e8s cannot be: it is 0 to {MAX_E8S}")
        self._fee_e8s = e8s
        self._saved += _FEE_CHANGED + e8s.to_bytes(_FEE_BYTES, "big")

    @property
    def total_supply_e8s(self) -> int:
        """All money there is."""
        return self._total_supply

    @property
    def chain_length(self) -> int:
        """How many blocks there are."""
        return len(self._chain)

    def balance(self, account: bytes) -> int:
        """Return what an account of 32 bytes holds, in e8s."""
        return self._balances.get(account, 0)

    def block(self, index: int) -> Block | None:
        """Return a block, None if the chain is not that long."""
        return self._chain[index] if 0 <= index < len(self._chain) else None

    def blocks(self, start: int, length: int) -> tuple[Block, ...]:
        """Return up to `length` blocks from `start` on."""
        return tuple(self._chain[start : start + length])

    def mint(self, account: bytes, e8s: int, now_ns: int) -> int:
        """Make money for an account and return the block. It is the admin's call, no user has it.

        Raises `MintRefused`: no account, no amount, or more money than a nat64 counts.
        """
        if not is_account_identifier(account):
            raise MintRefused(f"{account.hex()} is not an account identifier: its length or check sum is wrong")
        if not 0 < e8s <= MAX_E8S - self._total_supply:
            raise MintRefused(
                f"{e8s} e8s cannot be minted: all money together is at most {MAX_E8S} e8s, "
                f"and {self._total_supply} exist"
            )
        operation = Mint(to=account, amount=e8s)
        return self._append(Transaction(operation, 0, None, now_ns, deduplicated=False), now_ns)

    def transfer(self, caller: bytes, request: TransferRequest, now_ns: int) -> int | Refusal:
        """Move money from an account of `caller` and return the block, or why not.

        Raises `Trap` where the real ledger does: an anonymous caller, a bad account or memo, a burn with a fee
        or below the smallest amount.
        """
        operation = self._operation(caller, request)
        fee = operation.fee if isinstance(operation, Transfer) else 0
        # The real ledger compares the fee before it looks for duplicates: BadFee proves nothing about an earlier try.
        if request.fee is not None and request.fee != fee:
            return BadFee(fee)
        transaction = Transaction(
            operation=operation,
            memo=request.memo,
            icrc1_memo=request.icrc1_memo,
            created_at_time=now_ns if request.created_at_time is None else request.created_at_time,
            deduplicated=request.created_at_time is not None,
        )
        if transaction.deduplicated:
            refused = self._outside_window(transaction, now_ns)
            if refused is not None:
                return refused
        balance = self.balance(operation.from_)
        if balance < operation.amount + fee:
            return InsufficientFunds(balance)
        return self._append(transaction, now_ns)

    def save(self) -> bytes:
        """Return the chain and the changes of the fee; everything else follows from them."""
        return bytes(self._saved)

    def load(self, saved: bytes) -> None:
        """Take over a chain. Raises `Trap` when its blocks do not decode or do not link."""
        fresh = IcpLedger()
        decoder = msgspec.msgpack.Decoder(Block)
        view = memoryview(saved)
        at = 0
        while at < len(saved):
            if view[at : at + 4] == _FEE_CHANGED:
                fresh.change_fee(int.from_bytes(view[at + 4 : at + 4 + _FEE_BYTES], "big"))
                at += 4 + _FEE_BYTES
                continue
            size = int.from_bytes(view[at : at + 4], "big")
            try:
                block = decoder.decode(view[at + 4 : at + 4 + size])
            except msgspec.MsgspecError as exc:
                raise Trap(f"block {fresh.chain_length} of the saved ledger does not decode: {exc}") from exc
            if block.parent_hash != fresh._tip:
                raise Trap(f"block {fresh.chain_length} of the saved ledger does not follow from the one before it")
            fresh._accept(block)
            at += 4 + size
        self.__dict__.update(fresh.__dict__)

    def _operation(self, caller: bytes, request: TransferRequest) -> Burn | Transfer:
        if caller == _ANONYMOUS:
            raise Trap("Anonymous principal cannot hold tokens on the ledger.")
        subaccount = request.from_subaccount
        if subaccount is not None and len(subaccount) != _SUBACCOUNT_BYTES:
            raise Trap(f"a subaccount has {_SUBACCOUNT_BYTES} bytes, not {len(subaccount)}")
        if request.icrc1_memo is not None and len(request.icrc1_memo) > MAX_MEMO_BYTES:
            raise Trap(f"the memo has {len(request.icrc1_memo)} bytes; at most {MAX_MEMO_BYTES} are allowed")
        if not is_account_identifier(request.to):
            raise Trap(f"{request.to.hex()[:80]} is not an account identifier: its length or check sum is wrong")
        source = account_identifier(caller) if subaccount is None else account_identifier(caller, subaccount)
        if request.to != MINTING_ACCOUNT:
            return Transfer(source, request.to, request.amount, self.fee_e8s)
        if request.fee:
            raise Trap("Fee for burning should be zero")
        if request.amount < self.fee_e8s:
            raise Trap(f"Burns lower than {self.fee_e8s} e8s are not allowed")
        return Burn(source, request.amount)

    def _outside_window(self, transaction: Transaction, now_ns: int) -> Refusal | None:
        if transaction.created_at_time + DEDUPLICATION_WINDOW_NS < now_ns:
            return TxTooOld(DEDUPLICATION_WINDOW_NS)
        if transaction.created_at_time > now_ns + PERMITTED_DRIFT_NS:
            return TxCreatedInFuture(now_ns)
        # What may have been created a minute ahead of its block can be sent again for that minute longer.
        kept_ns = DEDUPLICATION_WINDOW_NS + PERMITTED_DRIFT_NS
        while self._recent_by_age and self._recent_by_age[0][0] + kept_ns < now_ns:
            del self._recent[self._recent_by_age.popleft()[1]]
        known = self._recent.get(transaction)
        return None if known is None else TxDuplicate(known)

    def _append(self, transaction: Transaction, now_ns: int) -> int:
        self._accept(Block(self._tip, transaction, now_ns))
        return len(self._chain) - 1

    def _accept(self, block: Block) -> None:
        """Take a block into the chain: the only place where money moves."""
        operation = block.transaction.operation
        self._move(operation)
        if block.transaction.deduplicated:
            self._recent[block.transaction] = len(self._chain)
            self._recent_by_age.append((block.timestamp, block.transaction))
        self._chain.append(block)
        self._tip = block.digest()
        encoded = msgspec.msgpack.encode(block)
        self._saved += len(encoded).to_bytes(4, "big") + encoded

    def _move(self, operation: Operation) -> None:
        match operation:
            case Mint():
                self._credit(operation.to, operation.amount)
                self._total_supply += operation.amount
            case Burn():
                self._credit(operation.from_, -operation.amount)
                self._total_supply -= operation.amount
            case Transfer():
                self._credit(operation.from_, -operation.amount - operation.fee)
                self._credit(operation.to, operation.amount)
                self._total_supply -= operation.fee

    def _credit(self, account: bytes, e8s: int) -> None:
        balance = self.balance(account) + e8s
        if balance:
            self._balances[account] = balance
        else:
            self._balances.pop(account, None)
