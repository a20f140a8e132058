"""Reads the ICP ledger and the Perun canister with `ic-py`, and compares them with what two nodes say of themselves.

It stands alone: of this project it imports nothing, so it would notice a mistake that client and devnet share.

    python books.py URL LEDGER CANISTER < claims.json

Claims: `{"nodes": [{"name", "account", "balance_e8s", "channels": [...]}]}`, each channel as `perun channel --json`
prints it. Prints what it found as JSON, and exits with 1 and a line for each disagreement.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib import import_module
from typing import Any

# ic-py has no types.
Agent: Any = import_module("ic.agent").Agent
Canister: Any = import_module("ic.canister").Canister
Client: Any = import_module("ic.client").Client
Identity: Any = import_module("ic.identity").Identity
Principal: Any = import_module("ic.principal").Principal

PAGE = 50


class Ledger:
    """Every block from the first on, and the balances that follow from them."""

    def __init__(self, canister: Any) -> None:
        self.canister = canister
        self.blocks: list[tuple[str, dict[str, Any]]] = []
        self.balances: Counter[str] = Counter()
        self.minted = self.burned_fees = 0
        while True:
            page = canister.query_blocks({"start": len(self.blocks), "length": PAGE})[0]
            assert page["first_block_index"] == len(self.blocks) or not page["blocks"]
            for block in page["blocks"]:
                self._take(*next(iter(block["transaction"]["operation"][0].items())))
            if len(self.blocks) >= page["chain_length"]:
                return

    def _take(self, kind: str, fields: dict[str, Any]) -> None:
        self.blocks.append((kind, fields))
        amount = fields["amount"]["e8s"]
        self.balances[bytes(fields["to"]).hex()] += amount
        if kind == "Mint":
            self.minted += amount
            return
        assert kind == "Transfer", f"a block of kind {kind}"
        fee = fields["fee"]["e8s"]
        self.burned_fees += fee
        self.balances[bytes(fields["from"]).hex()] -= amount + fee

    def says(self, account: str) -> int:
        """Return what the ledger says of an account, beside what its blocks say."""
        return int(self.canister.account_balance({"account": list(bytes.fromhex(account))})[0]["e8s"])


class Books:
    """The comparison."""

    def __init__(self, url: str, ledger: str, canister: str) -> None:
        agent = Agent(Identity(anonymous=True), Client(url=url))
        self.ledger = Ledger(Canister(agent=agent, canister_id=ledger))
        self.perun = Canister(agent=agent, canister_id=canister)
        self.canister_account = Principal.from_str(canister).to_account_id().to_str().removeprefix("0x")
        self.wrong: list[str] = []

    def same(self, what: str, claimed: object, found: object) -> None:
        """Note a disagreement."""
        if claimed != found:
            self.wrong.append(f"{what}: claimed {claimed}, found {found}")

    def compare(self, claims: dict[str, Any]) -> dict[str, int]:
        """Compare everything, and return the sums."""
        ledger = self.ledger
        for account, balance in ledger.balances.items():
            self.same(f"balance of {account}", balance, ledger.says(account))
        held = 0
        for node in claims["nodes"]:
            self.same(f"{node['name']}'s wallet", int(node["balance_e8s"]), ledger.says(node["account"]))
            for channel in node["channels"]:
                held += self.channel(node, channel)
        wallets = sum(ledger.says(node["account"]) for node in claims["nodes"])
        pool = ledger.says(self.canister_account)
        self.same("e8s in the world", ledger.minted, wallets + pool + ledger.burned_fees)
        return {"minted": ledger.minted, "wallets": wallets, "canister": pool, "fees": ledger.burned_fees, "held": held}

    def channel(self, node: dict[str, Any], channel: dict[str, Any]) -> int:
        """Compare one channel with the canister and the blocks; return what is held for this node's side."""
        who, index = f"{node['name']}'s channel {channel['channel'][:8]}", channel["index"]
        key = list(bytes.fromhex(channel["channel"]))
        shares = (int(channel["mine_e8s"]), int(channel["theirs_e8s"]))
        allocation = list(shares if index == 0 else reversed(shares))
        registered = self.perun.query_state(key)[0]
        events = self.perun.query_events(key, 0)[0]
        depositors = {bytes(e["Funded"]["who"]) for e in events if "Funded" in e}
        held = sum(
            (self.perun.query_holdings({"channel": key, "participant": list(w)})[0] or [0])[0] for w in depositors
        )
        if channel["phase"] != "closed":
            self.same(f"{who}, held", int(channel["total_e8s"]), held)
            return int(held)
        self.same(f"{who}, held after it closed", 0, held)
        if registered:
            state = registered[0]["state"]
            self.same(f"{who}, version", channel["version"], state["version"])
            self.same(f"{who}, allocation", allocation, state["allocation"])
            self.same(f"{who}, finalized", channel["registered"]["finalized"], state["finalized"])
        else:
            self.wrong.append(f"{who} is closed, and the canister knows no state of it")
        self.payout(who, node, channel)
        return 0

    def payout(self, who: str, node: dict[str, Any], channel: dict[str, Any]) -> None:
        """Compare what arrived and what it cost with the blocks."""
        costs = Counter({cost["what"]: int(cost["e8s"]) for cost in channel["costs"]})
        if "payout_block" in channel:
            kind, fields = self.ledger.blocks[channel["payout_block"]]
            self.same(f"{who}, payout", "Transfer", kind)
            self.same(f"{who}, payer", self.canister_account, bytes(fields["from"]).hex())
            self.same(f"{who}, payee", node["account"], bytes(fields["to"]).hex())
            self.same(f"{who}, payout", int(channel["payout_e8s"]), fields["amount"]["e8s"])
            self.same(f"{who}, withdrawal fee", costs["withdrawal fee"], fields["fee"]["e8s"])
            self.same(f"{who}, share", int(channel["mine_e8s"]), fields["amount"]["e8s"] + fields["fee"]["e8s"])
        deposits = [
            fields
            for kind, fields in self.ledger.blocks
            if kind == "Transfer"
            and bytes(fields["from"]).hex() == node["account"]
            and bytes(fields["to"]).hex() == self.canister_account
        ]
        if len(node["channels"]) == 1:
            self.same(f"{who}, deposit fees", costs["deposit fee"], sum(d["fee"]["e8s"] for d in deposits))


def main() -> int:
    """Compare, and say what disagrees."""
    books = Books(*sys.argv[1:4])
    print(json.dumps(books.compare(json.load(sys.stdin))))
    for line in books.wrong:
        print(line, file=sys.stderr)
    return 1 if books.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
