"""A canister for tests of the replica: it counts, waits, traps and tells what it knows of its caller."""

from __future__ import annotations

import asyncio
import hashlib
import json

from devnet.canister import Call, MethodNotFound, Trap

COUNTER = bytes.fromhex("80000000001000010101")
COUNTER_TEXT = "bkyz2-fmaaa-aaaaa-qaaaq-cai"
CANDID = """service : {
  add : (nat64) -> (nat64);
  add_slowly : (nat64) -> (nat64);
  trap : () -> ();
  break_down : () -> ();
  get : () -> (nat64) query;
  whoami : () -> (principal) query;
  time : () -> (nat64) query;
}"""


def nat64(number: int) -> bytes:
    return b"DIDL\x00\x01\x78" + number.to_bytes(8, "little")


def from_nat64(reply: bytes) -> int:
    assert reply[:7] == b"DIDL\x00\x01\x78"
    return int.from_bytes(reply[7:], "little")


NOTHING = b"DIDL\x00\x00"


class Counter:
    """`release`: what `add_slowly` waits for between reading and writing nothing: it adds after its await."""

    def __init__(self) -> None:
        self.candid = CANDID
        self.module_hash = hashlib.sha256(b"counter").digest()
        self.updates = frozenset({"add", "add_slowly", "trap", "break_down"})
        self.queries = frozenset({"get", "whoami", "time"})
        self.total = 0
        self.minted: list[tuple[str, int]] = []
        self.runs = 0
        self.waiting = asyncio.Event()
        self.release = asyncio.Event()

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        self.runs += 1
        match method:
            case "add":
                self.total += from_nat64(arg)
                return nat64(self.total)
            case "add_slowly":
                self.waiting.set()
                await self.release.wait()
                self.total += from_nat64(arg)
                return nat64(self.total)
            case "trap":
                raise Trap("you asked for it")
            case "break_down":
                raise KeyError("a defect")
            case "get":
                return nat64(self.total)
            case "whoami":
                return b"DIDL\x00\x01\x68\x01" + bytes([len(call.caller)]) + call.caller
            case "time":
                return nat64(call.now_ns)
            case _:
                raise MethodNotFound(method)

    async def mint(self, account: bytes, amount_e8s: int, now_ns: int) -> int:
        assert now_ns > 0
        self.minted.append((account.hex(), amount_e8s))
        return len(self.minted) - 1

    def save(self) -> bytes:
        return json.dumps({"total": self.total, "minted": self.minted}).encode()

    def load(self, saved: bytes) -> None:
        state = json.loads(saved)
        self.total, self.minted = state["total"], [tuple(entry) for entry in state["minted"]]
