"""The ledger in bytes, asked by another Candid implementation."""

from __future__ import annotations

from typing import Any

import pytest

from devnet.candid import BLOB, decode, opt, single, vec
from devnet.canister import Call, Trap
from devnet.ledger import IcpLedger, LedgerModule, account_identifier
from devnet.ledger.binding import MAX_BLOCKS, MAX_BLOCKS_FOR_USERS
from tests.unit.devnet import interface_file
from tests.unit.devnet.scene import ALICE, BOB, CANISTER, FEE, ICP, START_NS
from tests.unit.devnet.test_perun_binding import _text


class Client:
    """Somebody who speaks to the ledger through its interface file."""

    def __init__(self, caller: bytes = ALICE.principal) -> None:
        self.module = LedgerModule(IcpLedger())
        self.module.ledger.mint(ALICE.account, ICP, START_NS)
        self.caller = caller

    async def call(self, method: str, *values: object, now_ns: int = START_NS) -> Any:
        arg = interface_file.arguments("ledger.did", method, *values)
        reply = await self.module.execute(method, arg, Call(self.caller, now_ns))
        [result] = interface_file.results("ledger.did", method, reply)
        return result


def legacy(**fields: object) -> dict[str, object]:
    return {
        "memo": 7,
        "amount": {"e8s": 1},
        "fee": {"e8s": FEE},
        "from_subaccount": [],
        "to": BOB.account,
        "created_at_time": [],
        **fields,
    }


def icrc1(**fields: object) -> dict[str, object]:
    return {
        "from_subaccount": [],
        "to": {"owner": BOB.principal, "subaccount": []},
        "amount": 1,
        "fee": [],
        "memo": [],
        "created_at_time": [],
        **fields,
    }


def test_the_interface_file_and_the_methods_agree() -> None:
    declared = interface_file.methods("ledger.did")
    module = Client().module
    assert set(declared) == module.updates | module.queries
    for name, func in declared.items():
        method = module.methods[name]
        assert (name in module.queries) == (func.annotations == ["query"])
        for ours, theirs in ((method.arguments, func.argTypes), (method.results, func.retTypes)):
            assert [shape.name for shape in ours] == [_text(t) for t in theirs]


async def test_a_legacy_transfer_and_its_errors() -> None:
    client = Client()
    created = {"created_at_time": [{"timestamp_nanos": START_NS}]}
    assert await client.call("transfer", legacy(**created)) == {"Ok": 1}
    assert await client.call("transfer", legacy(**created)) == {"Err": {"TxDuplicate": {"duplicate_of": 1}}}
    bad_fee = await client.call("transfer", legacy(fee={"e8s": 1}))
    assert bad_fee == {"Err": {"BadFee": {"expected_fee": {"e8s": FEE}}}}
    poor = await client.call("transfer", legacy(amount={"e8s": 2**64 - 1}))
    assert poor == {"Err": {"InsufficientFunds": {"balance": {"e8s": ICP - 1 - FEE}}}}
    day = 24 * 3600 * 10**9
    old = await client.call("transfer", legacy(**created), now_ns=START_NS + day + 1)
    assert old == {"Err": {"TxTooOld": {"allowed_window_nanos": day}}}
    future = await client.call("transfer", legacy(**created), now_ns=START_NS - 61 * 10**9)
    assert future == {"Err": {"TxCreatedInFuture": None}}
    assert await client.call("account_balance", {"account": BOB.account}) == {"e8s": 1}


async def test_an_icrc1_transfer_and_its_errors() -> None:
    client = Client()
    created = {"created_at_time": [START_NS], "memo": [b"m"]}
    assert await client.call("icrc1_transfer", icrc1(**created)) == {"Ok": 1}
    assert await client.call("icrc1_transfer", icrc1(**created)) == {"Err": {"Duplicate": {"duplicate_of": 1}}}
    assert await client.call("icrc1_transfer", icrc1(fee=[1])) == {"Err": {"BadFee": {"expected_fee": FEE}}}
    for amount in (ICP, 2**64, 10**40):
        poor = await client.call("icrc1_transfer", icrc1(amount=amount))
        assert poor == {"Err": {"InsufficientFunds": {"balance": ICP - 1 - FEE}}}
    day = 24 * 3600 * 10**9
    assert await client.call("icrc1_transfer", icrc1(**created), now_ns=START_NS + day + 1) == {"Err": {"TooOld": None}}
    early = START_NS - 61 * 10**9
    future = await client.call("icrc1_transfer", icrc1(**created), now_ns=early)
    assert future == {"Err": {"CreatedInFuture": {"ledger_time": early}}}
    [minting] = await client.call("icrc1_minting_account")
    small = await client.call("icrc1_transfer", icrc1(to={"owner": minting["owner"].bytes, "subaccount": []}))
    assert small == {"Err": {"BadBurn": {"min_burn_amount": FEE}}}
    assert await client.call("icrc1_balance_of", {"owner": BOB.principal, "subaccount": [bytes(32)]}) == 1
    with pytest.raises(Trap):
        await client.call("icrc1_transfer", icrc1(memo=[bytes(33)]))
    with pytest.raises(Trap):
        await client.call("icrc1_balance_of", {"owner": BOB.principal, "subaccount": [b"short"]})


async def test_blocks_show_both_interfaces_memos_and_link() -> None:
    client = Client()
    await client.call("transfer", legacy())
    await client.call("icrc1_transfer", icrc1(memo=[b"hi"]))
    answer = await client.call("query_blocks", {"start": 0, "length": 10})
    assert (answer["chain_length"], answer["first_block_index"], answer["archived_blocks"]) == (3, 0, [])
    mint, old, new = answer["blocks"]
    assert mint["parent_hash"] == []
    assert mint["transaction"]["operation"] == [{"Mint": {"to": list(ALICE.account), "amount": {"e8s": ICP}}}]
    transfer = old["transaction"]["operation"][0]["Transfer"]
    assert (bytes(transfer["from"]), bytes(transfer["to"])) == (ALICE.account, BOB.account)
    assert (old["transaction"]["memo"], old["transaction"]["icrc1_memo"]) == (7, [])
    assert (new["transaction"]["memo"], new["transaction"]["icrc1_memo"]) == (0, [list(b"hi")])
    first = client.module.ledger.block(1)
    assert first is not None
    assert bytes(new["parent_hash"][0]) == first.digest()
    beyond = await client.call("query_blocks", {"start": 2**64 - 1, "length": 2**64 - 1})
    assert (beyond["blocks"], beyond["chain_length"]) == ([], 3)


@pytest.mark.parametrize(("caller", "limit"), [(ALICE.principal, MAX_BLOCKS_FOR_USERS), (CANISTER, MAX_BLOCKS)])
async def test_pages_of_blocks_are_bounded(caller: bytes, limit: int) -> None:
    client = Client(caller)
    for _ in range(limit + 5):
        client.module.ledger.mint(BOB.account, 1, START_NS)
    arg = interface_file.arguments("ledger.did", "query_blocks", {"start": 0, "length": 10**9})
    reply = await client.module.execute("query_blocks", arg, Call(caller, START_NS))
    assert len(reply) < 2_000_000
    (hashes,) = decode(reply, single("blocks", vec(single("parent_hash", opt(BLOB)))))
    assert isinstance(hashes, tuple)
    assert len(hashes) == limit


async def test_what_the_ledger_says_about_itself() -> None:
    client = Client()
    assert await client.call("transfer_fee", {}) == {"transfer_fee": {"e8s": FEE}}
    assert await client.call("icrc1_fee") == FEE
    assert await client.call("symbol") == {"symbol": "ICP"}
    assert await client.call("icrc1_symbol") == "ICP"
    assert await client.call("name") == {"name": "Internet Computer"}
    assert await client.call("icrc1_name") == "Internet Computer"
    assert await client.call("decimals") == {"decimals": 8}
    assert await client.call("icrc1_decimals") == 8
    assert await client.call("icrc1_total_supply") == ICP
    assert await client.call("archives") == {"archives": []}
    assert ["icrc1:fee", {"Nat": FEE}] in await client.call("icrc1_metadata")
    assert [s["name"] for s in await client.call("icrc1_supported_standards")] == ["ICRC-1"]
    account = {"owner": ALICE.principal, "subaccount": []}
    assert bytes(await client.call("account_identifier", account)) == account_identifier(ALICE.principal)


async def test_mint_is_the_admins_call_only() -> None:
    client = Client()
    assert await client.module.mint(BOB.account, 5, START_NS) == 1
    assert not any("mint" in name for name in client.module.updates)
    again = LedgerModule(IcpLedger())
    again.load(client.module.save())
    assert again.ledger.balance(BOB.account) == 5


async def test_a_balance_of_no_account_traps() -> None:
    with pytest.raises(Trap, match="account"):
        await Client().call("account_balance", {"account": b"nobody"})
