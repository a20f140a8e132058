"""The ICP ledger: what it moves, refuses, and in which order it looks."""

from __future__ import annotations

import pytest

from devnet.canister import Trap
from devnet.ledger import IcpLedger, account_identifier
from devnet.ledger.accounts import MINTING_ACCOUNT, is_account_identifier
from devnet.ledger.ledger import (
    DEDUPLICATION_WINDOW_NS,
    PERMITTED_DRIFT_NS,
    BadFee,
    FeeRefused,
    InsufficientFunds,
    MintRefused,
    TransferRequest,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from tests.unit.devnet.scene import ALICE, BOB, FEE, ICP, START_NS

NOW = START_NS


def ledger_with(e8s: int) -> IcpLedger:
    ledger = IcpLedger()
    ledger.mint(ALICE.account, e8s, NOW)
    return ledger


def to_bob(e8s: int, **fields: int | bytes | None) -> TransferRequest:
    return TransferRequest(**{"to": BOB.account, "amount": e8s, "fee": FEE, **fields})  # type: ignore[arg-type]


def test_account_identifiers_are_those_of_the_real_ledger() -> None:
    expected = "1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79"
    assert account_identifier(b"\x04").hex() == expected
    assert account_identifier(b"\x04", bytes(31) + b"\x01").hex() != expected
    assert is_account_identifier(bytes.fromhex(expected))
    assert not is_account_identifier(bytes.fromhex("1d" + expected[2:]))
    assert not is_account_identifier(b"")


def test_a_transfer_moves_the_amount_and_burns_the_fee() -> None:
    ledger = ledger_with(ICP)
    assert ledger.transfer(ALICE.principal, to_bob(7, memo=5), NOW) == 1
    assert (ledger.balance(ALICE.account), ledger.balance(BOB.account)) == (ICP - 7 - FEE, 7)
    assert ledger.total_supply_e8s == ICP - FEE


def test_subaccounts_are_accounts_of_their_own() -> None:
    ledger = ledger_with(ICP)
    sub = bytes(31) + b"\x07"
    ledger.transfer(ALICE.principal, TransferRequest(account_identifier(ALICE.principal, sub), 50_000, FEE), NOW)
    assert ledger.transfer(ALICE.principal, to_bob(40_000, from_subaccount=sub), NOW) == 2
    assert ledger.transfer(ALICE.principal, to_bob(1, from_subaccount=sub), NOW) == InsufficientFunds(0)


def test_nobody_spends_more_than_amount_and_fee() -> None:
    ledger = ledger_with(ICP)
    assert ledger.transfer(ALICE.principal, to_bob(ICP - FEE + 1), NOW) == InsufficientFunds(ICP)
    assert ledger.transfer(BOB.principal, TransferRequest(ALICE.account, 0, FEE), NOW) == InsufficientFunds(0)
    assert ledger.transfer(ALICE.principal, to_bob(ICP - FEE), NOW) == 1
    assert ledger.balance(ALICE.account) == 0


@pytest.mark.parametrize("fee", [0, FEE - 1, FEE + 1])
def test_the_fee_must_be_exact(fee: int) -> None:
    assert ledger_with(ICP).transfer(ALICE.principal, to_bob(1, fee=fee), NOW) == BadFee(FEE)


def test_without_created_at_time_equal_transfers_are_two() -> None:
    ledger = ledger_with(ICP)
    assert [ledger.transfer(ALICE.principal, to_bob(1), NOW) for _ in range(2)] == [1, 2]


def test_with_created_at_time_equal_transfers_are_one_for_a_day() -> None:
    ledger = ledger_with(ICP)
    request = to_bob(1, created_at_time=NOW)
    assert ledger.transfer(ALICE.principal, request, NOW) == 1
    assert ledger.transfer(ALICE.principal, request, NOW + DEDUPLICATION_WINDOW_NS) == TxDuplicate(1)
    after = NOW + DEDUPLICATION_WINDOW_NS + 1
    assert ledger.transfer(ALICE.principal, request, after) == TxTooOld(DEDUPLICATION_WINDOW_NS)
    assert ledger.balance(BOB.account) == 1


@pytest.mark.parametrize("change", [{"memo": 1}, {"amount": 2}, {"created_at_time": NOW + 1}, {"icrc1_memo": b""}])
def test_any_changed_field_makes_another_transfer(change: dict[str, int | bytes]) -> None:
    ledger = ledger_with(ICP)
    ledger.transfer(ALICE.principal, to_bob(1, created_at_time=NOW), NOW)
    changed = TransferRequest(**{"to": BOB.account, "amount": 1, "fee": FEE, "created_at_time": NOW, **change})  # type: ignore[arg-type]
    assert ledger.transfer(ALICE.principal, changed, NOW) == 2


def test_created_at_time_may_be_a_minute_ahead_and_is_remembered_that_long() -> None:
    ledger = ledger_with(ICP)
    ahead = NOW + PERMITTED_DRIFT_NS
    too_far = to_bob(1, created_at_time=ahead + 1)
    assert ledger.transfer(ALICE.principal, too_far, NOW) == TxCreatedInFuture(NOW)
    request = to_bob(1, created_at_time=ahead)
    assert ledger.transfer(ALICE.principal, request, NOW) == 1
    assert ledger.transfer(ALICE.principal, request, ahead + DEDUPLICATION_WINDOW_NS) == TxDuplicate(1)


def test_the_order_of_checks_is_fee_age_duplicate_funds() -> None:
    ledger = ledger_with(1 + FEE)
    request = to_bob(1, created_at_time=NOW)
    assert ledger.transfer(ALICE.principal, request, NOW) == 1
    assert ledger.transfer(ALICE.principal, request, NOW) == TxDuplicate(1), "although the balance is gone"
    later = NOW + DEDUPLICATION_WINDOW_NS + 1
    assert ledger.transfer(ALICE.principal, to_bob(1, fee=1, created_at_time=NOW), later) == BadFee(FEE)
    assert isinstance(ledger.transfer(ALICE.principal, to_bob(9, created_at_time=NOW), later), TxTooOld)
    assert ledger.transfer(ALICE.principal, to_bob(9, created_at_time=later), later) == InsufficientFunds(0)


def test_burning_takes_money_out_of_the_world() -> None:
    ledger = ledger_with(ICP)
    assert ledger.transfer(ALICE.principal, TransferRequest(MINTING_ACCOUNT, FEE, 0), NOW) == 1
    assert ledger.total_supply_e8s == ledger.balance(ALICE.account) == ICP - FEE
    for request in (TransferRequest(MINTING_ACCOUNT, FEE, FEE), TransferRequest(MINTING_ACCOUNT, FEE - 1, 0)):
        with pytest.raises(Trap):
            ledger.transfer(ALICE.principal, request, NOW)


@pytest.mark.parametrize(
    "request_",
    [
        TransferRequest(b"", 1, FEE),
        TransferRequest(bytes(32), 1, FEE),
        TransferRequest(BOB.account, 1, FEE, from_subaccount=bytes(31)),
        TransferRequest(BOB.account, 1, FEE, icrc1_memo=bytes(33)),
    ],
)
def test_what_makes_no_sense_traps(request_: TransferRequest) -> None:
    with pytest.raises(Trap):
        ledger_with(ICP).transfer(ALICE.principal, request_, NOW)


def test_nobody_is_not_allowed_to_send() -> None:
    ledger = ledger_with(ICP)
    ledger.mint(account_identifier(b"\x04"), ICP, NOW)
    with pytest.raises(Trap, match="Anonymous"):
        ledger.transfer(b"\x04", to_bob(1), NOW)


@pytest.mark.parametrize("e8s", [0, -1, 2**64])
def test_money_that_cannot_be_is_not_minted(e8s: int) -> None:
    with pytest.raises(MintRefused):
        IcpLedger().mint(ALICE.account, e8s, NOW)
    with pytest.raises(MintRefused):
        IcpLedger().mint(b"nobody", 1, NOW)
    with pytest.raises(MintRefused):
        ledger_with(1).mint(ALICE.account, 2**64 - 1, NOW)


def test_each_block_holds_the_hash_of_the_one_before() -> None:
    ledger = ledger_with(ICP)
    for memo in range(5):
        ledger.transfer(ALICE.principal, to_bob(1, memo=memo), NOW + memo)
    chain = ledger.blocks(0, 100)
    assert chain[0].parent_hash is None
    assert [block.parent_hash for block in chain[1:]] == [block.digest() for block in chain[:-1]]
    assert len({block.digest() for block in chain}) == 6


def test_a_restart_forgets_nothing() -> None:
    ledger = ledger_with(ICP)
    request = to_bob(1, created_at_time=NOW)
    ledger.transfer(ALICE.principal, request, NOW)
    ledger.transfer(ALICE.principal, to_bob(2, icrc1_memo=b"memo"), NOW)
    again = IcpLedger()
    again.load(ledger.save())
    assert again.save() == ledger.save()
    assert again.blocks(0, 9) == ledger.blocks(0, 9)
    assert again.balance(ALICE.account) == ledger.balance(ALICE.account)
    assert again.transfer(ALICE.principal, request, NOW) == TxDuplicate(1)
    assert again.mint(BOB.account, 1, NOW) == 3


def test_a_changed_fee_is_taken_and_outlives_a_restart() -> None:
    ledger = IcpLedger()
    ledger.mint(ALICE.account, 10 * FEE, NOW)
    ledger.change_fee(3 * FEE)
    assert ledger.transfer(ALICE.principal, TransferRequest(BOB.account, FEE, FEE), NOW) == BadFee(3 * FEE)
    assert ledger.transfer(ALICE.principal, TransferRequest(BOB.account, FEE, 3 * FEE), NOW) == 1
    again = IcpLedger()
    again.load(ledger.save())
    assert (again.fee_e8s, again.balance(ALICE.account)) == (3 * FEE, 6 * FEE)
    for fee in (-1, 2**64):
        with pytest.raises(FeeRefused):
            again.change_fee(fee)


def test_a_chain_that_does_not_link_is_refused() -> None:
    ledger = ledger_with(ICP)
    first = len(ledger.save())
    ledger.mint(BOB.account, 1, NOW)
    ledger.mint(BOB.account, 2, NOW)
    saved = ledger.save()
    for broken in (saved[first:], saved[:-1], saved + b"\x00\x00\x00\x01\xc0"):
        fresh = ledger_with(5)
        with pytest.raises(Trap):
            fresh.load(broken)
        assert fresh.balance(ALICE.account) == 5, "a refused load changes nothing"
