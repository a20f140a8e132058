"""What the nodes say of their money is what somebody else finds on the ledger and in the canister."""

import ast

from tests.e2e.bookkeeper import BOOKS, claims, read_books
from tests.e2e.town import FEE, ICP, Town


def test_the_script_imports_nothing_of_ours() -> None:
    tree = ast.parse(BOOKS.read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= {"__future__", "json", "sys", "collections", "importlib", "typing"}


async def test_after_a_close(town: Town) -> None:
    alice, bob = await town.pair(contributes=200)
    channel = await town.open(alice, bob, 242, 194)
    await town.pay(alice, channel, 12_345_678)
    await town.pay(bob, channel, 7)

    found = (await read_books(town, await claims(alice, bob))).json
    assert found == {
        "minted": 600 * ICP,
        "wallets": 164 * ICP - 2 * FEE,
        "canister": 436 * ICP,
        "fees": 2 * FEE,
        "held": 2 * 436 * ICP,
    }  # fmt: skip  (both sides claim the same holdings)
    await town.close(alice, channel)
    await town.closed(bob, channel)
    found = (await read_books(town, await claims(alice, bob))).json
    assert found == {"minted": 600 * ICP, "wallets": 600 * ICP - 4 * FEE, "canister": 0, "fees": 4 * FEE, "held": 0}


async def test_after_a_dispute(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 3 * ICP)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 4 * ICP)
    await town.register(alice, channel, old)
    for node in (alice, bob):
        await town.until(node, channel, lambda c: c.registered is not None and c.registered.ours, "refuted")
    await town.devnet.advance(13)
    for node in (alice, bob):
        await town.closed(node, channel)

    ran = await read_books(town, await claims(alice, bob))
    assert ran.json == {"minted": 600 * ICP, "wallets": 600 * ICP - 3 * FEE, "canister": 0, "fees": 3 * FEE, "held": 0}


async def test_a_node_that_is_wrong_by_one_e8_is_found_out(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.close(alice, channel)
    await town.closed(bob, channel)
    said = await claims(alice, bob)
    said["nodes"][0]["channels"][0]["payout_e8s"] = str(50 * ICP - FEE + 1)

    ran = await read_books(town, said)

    assert ran.code == 1
    assert "payout" in ran.err
