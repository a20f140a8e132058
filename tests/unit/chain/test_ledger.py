from __future__ import annotations

from typing import Any

import pytest

from chain import candid
from chain.agent import Agent
from chain.candid import BLOB, BOOL, NAT64, NULL, CandidValue, opt, record, variant, vec
from chain.errors import InvalidPrincipal, UnencodableArgument, UnexpectedReply
from chain.ledger import (
    Approve,
    ArchivedBlocks,
    BadFee,
    Block,
    Burn,
    IcpLedger,
    InsufficientFunds,
    Mint,
    Transfer,
    TransferArgs,
    TransferError,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from chain.principal import account_identifier
from chain.request import SignedCall
from tests.unit.chain.conftest import AgentOf, vectors
from tests.unit.chain.replica import CANISTER, SECOND, TestReplica

VECTORS = {v["name"]: bytes.fromhex(v["rust_hex"]) for v in vectors("candid")["vectors"]}
ACCOUNT = account_identifier(b"\x04")
ARGS = TransferArgs(ACCOUNT, 100_000_000, 10_000, memo=2**64 - 1, created_at_time_ns=1_700_000_000 * SECOND)

TOKENS = record(e8s=NAT64)
TIME = record(timestamp_nanos=NAT64)
OPERATION = variant(
    Mint=record(to=BLOB, amount=TOKENS),
    Burn=record(**{"from": BLOB, "spender": opt(BLOB), "amount": TOKENS}),
    Transfer=record(**{"from": BLOB, "to": BLOB, "amount": TOKENS, "fee": TOKENS, "spender": opt(BLOB)}),
    Approve=record(**{"from": BLOB, "spender": BLOB, "fee": TOKENS, "allowance": TOKENS, "expires_at": opt(TIME)}),
)
BLOCK = record(
    parent_hash=opt(BLOB),
    transaction=record(memo=NAT64, icrc1_memo=opt(BLOB), operation=opt(OPERATION), created_at_time=TIME),
    timestamp=TIME,
)
PAGE = record(
    chain_length=NAT64,
    certificate=opt(BLOB),
    blocks=vec(BLOCK),
    first_block_index=NAT64,
    archived_blocks=vec(record(start=NAT64, length=NAT64)),
)


@pytest.fixture
def ledger(agent: Agent) -> IcpLedger:
    return IcpLedger(agent, CANISTER)


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("icp-transfer-ok", 42),
        ("icp-transfer-err-badfee", BadFee(10_000)),
        ("icp-transfer-err-insufficient", InsufficientFunds(7)),
        ("icp-transfer-err-too-old", TxTooOld(86_400 * SECOND)),
        ("icp-transfer-err-future", TxCreatedInFuture()),
        ("icp-transfer-err-duplicate", TxDuplicate(41)),
    ],
)
async def test_the_ledgers_answers_to_a_transfer(
    ledger: IcpLedger, replica: TestReplica, vector: str, expected: int | TransferError
) -> None:
    replica.reply = VECTORS[vector]
    assert (await ledger.transfer(ARGS)).value == expected


async def test_a_transfer_says_what_it_was_told(ledger: IcpLedger, replica: TestReplica) -> None:
    replica.reply = VECTORS["icp-transfer-ok"]
    await ledger.transfer(ARGS)
    kinds = record(memo=NAT64, amount=TOKENS, fee=TOKENS, from_subaccount=opt(BLOB), to=BLOB, created_at_time=opt(TIME))
    assert candid.decode([kinds], replica.calls[0]["arg"]) == [
        {
            "memo": 2**64 - 1,
            "amount": {"e8s": 100_000_000},
            "fee": {"e8s": 10_000},
            "from_subaccount": None,
            "to": ACCOUNT,
            "created_at_time": {"timestamp_nanos": 1_700_000_000 * SECOND},
        }
    ]


async def test_a_transfer_is_stored_before_it_is_sent(ledger: IcpLedger, replica: TestReplica) -> None:
    replica.reply = VECTORS["icp-transfer-ok"]
    call = SignedCall.from_bytes(ledger.sign_transfer(ARGS).to_bytes())
    assert replica.calls == []
    assert (await ledger.submit_transfer(call)).value == 42
    assert (await ledger.outcome_of_transfer(call)).value == 42
    assert [sent["id"] for sent in replica.calls] == [call.request_id]


@pytest.mark.parametrize("to", [b"", bytes(32), ACCOUNT[:-1], ACCOUNT[:-1] + b"\x00"])
def test_nothing_is_sent_to_what_is_no_account(to: bytes) -> None:
    with pytest.raises(InvalidPrincipal):
        TransferArgs(to, 1, 10_000, 0, 0)


@pytest.mark.parametrize("amount", [-1, 2**64])
def test_impossible_amounts(ledger: IcpLedger, amount: int) -> None:
    with pytest.raises(UnencodableArgument):
        ledger.sign_transfer(TransferArgs(ACCOUNT, amount, 10_000, 0, 0))


async def test_balance_and_fee(ledger: IcpLedger, replica: TestReplica) -> None:
    replica.reply = candid.encode([TOKENS], [{"e8s": 2**63 - 1}])
    assert (await ledger.balance(ACCOUNT)).value == 2**63 - 1
    assert candid.decode([record(account=BLOB)], replica.calls[-1]["arg"]) == [{"account": ACCOUNT}]
    replica.reply = candid.encode([record(transfer_fee=TOKENS)], [{"transfer_fee": {"e8s": 10_000}}])
    assert (await ledger.fee()).value == 10_000
    assert replica.calls[-1]["method_name"] == "transfer_fee"


def block(operation: CandidValue, memo: int = 0) -> dict[str, CandidValue]:
    return {
        "parent_hash": bytes(32),
        "transaction": {
            "memo": memo,
            "icrc1_memo": None,
            "operation": operation,
            "created_at_time": {"timestamp_nanos": 5},
        },
        "timestamp": {"timestamp_nanos": 6},
    }


def page(first: int, *blocks: CandidValue, archived: list[CandidValue] | None = None) -> bytes:
    value: CandidValue = {
        "chain_length": 100,
        "certificate": None,
        "blocks": blocks,
        "first_block_index": first,
        "archived_blocks": archived or [],
    }
    return candid.encode([PAGE], [value])


def tokens(amount: int) -> CandidValue:
    return {"e8s": amount}


async def test_every_kind_of_block(ledger: IcpLedger, replica: TestReplica) -> None:
    a, b, c = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
    moved: dict[str, Any] = {"from": a, "to": b, "amount": tokens(7), "fee": tokens(1)}
    replica.reply = page(
        90,
        block({"Transfer": {**moved, "spender": None}}, memo=3),
        block({"Transfer": {**moved, "spender": c}}),
        block({"Mint": {"to": b, "amount": tokens(9)}}),
        block({"Burn": {"from": a, "spender": None, "amount": tokens(4)}}),
        block({"Approve": {"from": a, "spender": c, "fee": tokens(1), "allowance": tokens(5), "expires_at": None}}),
        block(None),
    )
    found = (await ledger.blocks(90, 10)).value
    assert found.chain_length == 100
    assert found.blocks == (
        Block(90, 6, 3, Transfer(a, b, 7, 1, None), 5),
        Block(91, 6, 0, Transfer(a, b, 7, 1, c), 5),
        Block(92, 6, 0, Mint(b, 9), 5),
        Block(93, 6, 0, Burn(a, 4), 5),
        Block(94, 6, 0, Approve(a, c, 1), 5),
        Block(95, 6, 0, None, 5),
    )
    replica.reply = page(0)
    assert (await ledger.chain_length()).value == 100


async def test_blocks_that_were_left_out_are_noticed(ledger: IcpLedger, replica: TestReplica) -> None:
    replica.reply = page(92, block(None))
    with pytest.raises(UnexpectedReply, match="left out the blocks 90 to 91"):
        await ledger.blocks(90, 10)


def with_archive(first: int, start: int, length: int, canister: bytes) -> bytes:
    """A page that names an archive: record { chain_length; first_block_index; archived_blocks; blocks }."""

    def leb(n: int) -> bytes:
        return bytes([n & 0x7F | 0x80]) + leb(n >> 7) if n > 0x7F else bytes([n])

    def hashed(name: str) -> int:
        h = 0
        for byte in name.encode():
            h = (h * 223 + byte) % 2**32
        return h

    def rec(**fields: bytes) -> bytes:
        ordered = sorted((hashed(name), kind) for name, kind in fields.items())
        return b"\x6c" + leb(len(ordered)) + b"".join(leb(h) + kind for h, kind in ordered)

    def ordered_values(**values: bytes) -> bytes:
        return b"".join(value for _, value in sorted((hashed(name), value) for name, value in values.items()))

    def nat64(n: int) -> bytes:
        return n.to_bytes(8, "little")

    page_type = rec(chain_length=b"\x78", first_block_index=b"\x78", blocks=b"\x01", archived_blocks=b"\x05")
    block_type = rec(transaction=b"\x03", timestamp=b"\x04")
    transaction = rec(memo=b"\x78", operation=b"\x08", created_at_time=b"\x04")
    time_type, archive = rec(timestamp_nanos=b"\x78"), rec(start=b"\x78", length=b"\x78", callback=b"\x07")
    function = b"\x6a\x01\x78\x01\x78\x01\x01"
    table = [page_type, b"\x6d\x02", block_type, transaction, time_type, b"\x6d\x06", archive, function]
    table += [b"\x6e\x09", b"\x6b\x00"]
    callback = b"\x01\x01" + leb(len(canister)) + canister + b"\x0aget_blocks"
    place = ordered_values(start=nat64(start), length=nat64(length), callback=callback)
    values = ordered_values(
        chain_length=nat64(100), first_block_index=nat64(first), blocks=b"\x00", archived_blocks=b"\x01" + place
    )
    return b"DIDL" + leb(len(table)) + b"".join(table) + b"\x01\x00" + values


async def test_old_blocks_are_read_from_the_archive(ledger: IcpLedger, replica: TestReplica) -> None:
    replica.reply = with_archive(50, 20, 30, CANISTER)
    found = (await ledger.blocks(20, 40)).value
    assert found.archived == (ArchivedBlocks(20, 30, CANISTER, "get_blocks"),)
    assert found.blocks == ()
    result = variant(Ok=record(blocks=vec(BLOCK)), Err=variant(BadFirstBlockIndex=record(requested_index=NAT64)))
    replica.reply = candid.encode([result], [{"Ok": {"blocks": [block(None), block(None)]}}])
    blocks = (await ledger.archived(found.archived[0])).value
    assert [b.index for b in blocks] == [20, 21]
    assert replica.calls[-1]["method_name"] == "get_blocks"
    empty: list[CandidValue] = [{"Ok": {"blocks": []}}, {"Err": {"BadFirstBlockIndex": {"requested_index": 20}}}]
    for nothing in empty:
        replica.reply = candid.encode([result], [nothing])
        with pytest.raises(UnexpectedReply, match="does not have block 20"):
            await ledger.archived(found.archived[0])


async def test_more_blocks_than_the_ledger_certifies_are_not_asked_for(ledger: IcpLedger) -> None:
    with pytest.raises(ValueError, match="at most 50"):
        await ledger.blocks(0, 51)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(BOOL, True), (variant(Ok=BOOL), {"Ok": True}), (variant(Strange=NULL), {"Strange": None})],
)
async def test_another_reply_than_the_interfaces(
    replica: TestReplica, agent_of: AgentOf, kind: candid.CandidType, value: CandidValue
) -> None:
    ledger = IcpLedger(agent_of(replica), CANISTER)
    replica.reply = candid.encode([kind], [value])
    with pytest.raises(UnexpectedReply):
        await ledger.transfer(ARGS)
    with pytest.raises(UnexpectedReply):
        await ledger.balance(ACCOUNT)
    with pytest.raises(UnexpectedReply):
        await ledger.fee()
    with pytest.raises(UnexpectedReply):
        await ledger.blocks(0, 1)
