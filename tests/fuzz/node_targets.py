"""What people and programs give to the node: its files, its control socket, words on command lines."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perund.amounts import parse_amount, parse_config_amount
from perund.config import FILE_NAME as CONFIG_NAME
from perund.config_file import load_config
from perund.control.connection import Connection, Limits
from perund.control.dispatch import Dispatcher
from perund.control.errors import BY_CODE, RpcError
from perund.control.methods import METHODS
from perund.durations import parse_duration
from perund.keystore import FILE_NAME as KEYSTORE_NAME
from perund.keystore import KeyStore, ScryptCost
from perund.mnemonic import entropy_of, phrase_of
from perund.setup_errors import ConfigError, KeyStoreError, PhraseError
from protocol.errors import CallerMistake
from tests.fuzz.mutation import Tree
from tests.fuzz.target import Target, as_text
from tests.unit.control.node_double import CHANNEL, NODE_ID, NodeDouble

__all__ = ["JSON_TOKENS", "TARGETS", "to_json"]

CONFIG = """network = "ic"
[ic]
urls = ["https://icp-api.io"]
perun_canister = "bkyz2-fmaaa-aaaaa-qaaaq-cai"
[policy]
min_challenge_s = 60
minimum_payment_e8s = "0.5 ICP"
[log]
level = "info"
"""
DEEP, LONG = 3000, 5000
TOML_TOKENS = (
    b"[", b"]", b"[[", b"{", b"}", b'"""', b"'''", b" = ", b"inf", b"nan", b"1979-05-27", b"=1.5", b"\r\n", b"#",
    b"=" + b"[" * DEEP, b"=" + b"9" * LONG, b"=0x" + b"f" * LONG, b"={a=" * DEEP,
)  # fmt: skip
JSON_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\ud800", b"\\u0000", b"1e999999", b"1e9999999999999999999", b"-0",
    b"NaN", b"null", b"true", b":" + b"[" * DEEP, b'{"x":' * DEEP, b":" + b"9" * LONG,
)  # fmt: skip


def to_json(tree: Tree) -> bytes:
    """Return JSON. Bytes become hex, as they travel."""
    return json.dumps(tree, default=lambda value: value.hex(), ensure_ascii=False).encode()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder, in memory if there is one: each input is a file."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="perund-fuzz-", dir=memory if memory.is_dir() else None)


def amounts() -> Target:
    corpus = (b"1.5", b"1.5 ICP", b"0.00000001icp", b"150000000 e8s", b"184467440737.09551615")
    tokens = (b" ICP", b"e8s", b".", b"-", b"+", b"e9", "\u0661".encode(), "\u00a0".encode(), b"0" * 41, b"9" * LONG)

    def parse(text: str) -> object:
        e8s = parse_amount(text)
        assert 0 < e8s < 2**64
        return e8s

    return Target(as_text(parse), (CallerMistake,), corpus, tokens=tokens)


def configured_amounts() -> Target:
    corpus = (b"150000000", b"1.5 ICP", b"0 e8s")
    tokens = (b" ICP", b"e8s", b".", b"-", "\u0661".encode(), b"9" * LONG)
    return Target(as_text(parse_config_amount), (CallerMistake,), corpus, tokens=tokens)


def durations() -> Target:
    corpus = (b"60s", b"10m", b"2h", b"1d", b"1h30m")
    tokens = (b"s", b"d", b" ", "\u0661".encode(), "\u017f".encode(), b"9" * 13, b"1d" * 3000)

    def parse(text: str) -> object:
        seconds = parse_duration(text)
        assert seconds > 0
        return seconds

    return Target(as_text(parse), (CallerMistake,), corpus, tokens=tokens)


def phrases() -> Target:
    """The 24 words. No word of them may be in an error."""
    phrase = phrase_of(bytes(range(32)))

    def parse(text: str) -> object:
        try:
            return entropy_of(text)
        except PhraseError as error:
            if "abandon" in str(error):
                raise AssertionError("a word of the phrase in an error") from None
            raise

    return Target(as_text(parse), (PhraseError,), (phrase.encode(),), tokens=(b" abandon ", b"\t", b"\n"))


def configurations() -> Target:
    """`perund.toml`."""
    folder = scratch()
    path = Path(folder.name) / CONFIG_NAME

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return load_config(path.parent, {})

    short = b'network = "ic"\nic.perun_canister = "aaaaa-aa"\n'
    corpus = (CONFIG.encode(), short)
    return Target(parse, (ConfigError,), corpus, tokens=TOML_TOKENS, close=folder.cleanup)


def environments() -> Target:
    """Variables over the file, one `NAME=value` a line."""
    folder = scratch()
    path = Path(folder.name) / CONFIG_NAME
    path.write_text('network = "ic"\nic.perun_canister = "aaaaa-aa"\n')
    corpus = (
        b"PERUND_WIRE_LISTEN=127.0.0.1:1",
        b"PERUND_POLICY_MINIMUM_PAYMENT_E8S=1.5 ICP",
        b"PERUND_NETWORK=ic\nPERUND_POLICY_MIN_CHALLENGE_S=90",
        b"PERUND_IC_URLS=https://a.b,https://c.d",
    )

    def parse(text: str) -> object:
        pairs = (line.partition("=") for line in text.split("\n"))
        return load_config(path.parent, {name: value for name, _, value in pairs})

    tokens = (b"PERUND_", b"_E8S", b"_S=", b"IC_", b"POLICY_", b"=", b"\n", b"true", "\u0661".encode(), b"9" * LONG)
    return Target(as_text(parse), (ConfigError,), corpus, tokens=tokens, close=folder.cleanup)


def key_stores() -> Target:
    """`keystore.json`, up to where the passphrase is needed."""
    folder = scratch()
    store = KeyStore(Path(folder.name))
    store.create(bytes(range(32)), "a long passphrase", ScryptCost(n=2**15))
    written = (store.path.read_bytes(),)
    tree: Tree = json.loads(written[0])

    def parse(data: bytes) -> object:
        store.path.write_bytes(data)
        return store.node_id()

    assert store.path == Path(folder.name) / KEYSTORE_NAME
    return Target(parse, (KeyStoreError,), written, (tree,), to_json, JSON_TOKENS, close=folder.cleanup)


class Memory(asyncio.Transport):
    """The node's end of a control socket, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None

    def pause_reading(self) -> None:
        return None

    def resume_reading(self) -> None:
        return None

    def close(self) -> None:
        self.ended = True

    abort = close


def control_lines() -> Target:
    """Lines on the control socket. Each is answered, if at all, by JSON-RPC; the worst is an error of the table."""
    loop = asyncio.new_event_loop()
    node = NodeDouble()
    requests: tuple[Tree, ...] = tuple(
        {"jsonrpc": "2.0", "id": place, "method": name, "params": EXAMPLES.get(name, {})}
        for place, name in enumerate(METHODS)
    )
    trees = (*requests, [requests[0], requests[1]])

    async def connect() -> Connection:
        return Connection(Dispatcher(node, "0"), Limits(), lambda *_: None, lambda _: None)

    async def receive(connection: Connection, data: bytes) -> None:
        connection.data_received(data)  # as the event loop calls it: from inside

    def parse(data: bytes) -> object:
        transport = Memory()
        connection = loop.run_until_complete(connect())
        connection.connection_made(transport)
        loop.run_until_complete(receive(connection, data + b"\n"))
        for _ in range(TURNS):
            loop.call_soon(loop.stop)
            loop.run_forever()
        connection.connection_lost(None)
        node.calls.clear()
        answers = [json.loads(line) for line in transport.written.splitlines()]
        for answer in (one for line in answers for one in (line if isinstance(line, list) else [line])):
            if "error" in answer:
                kind = BY_CODE[answer["error"]["code"]]
                assert kind.name != "internal_error", answer
                raise RpcError(kind.name, answer["error"]["message"])
        return answers

    def close() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    corpus = tuple(map(to_json, trees))
    return Target(parse, (RpcError,), corpus, trees, to_json, JSON_TOKENS, close=close)


TURNS = 4
"""Of the loop, until whatever a line starts has been answered."""
EXAMPLES: dict[str, Tree] = {
    "wallet.send": {"to": "00" * 32, "amount_e8s": "5", "idempotency_key": "once"},
    "peer.connect": {"peer": f"{NODE_ID}@127.0.0.1:9735"},
    "channel.open": {"peer": NODE_ID, "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": 60, "wait": False},
    "channel.get": {"channel": CHANNEL},
    "channel.pay": {"channel": CHANNEL, "payments": [{"amount_e8s": "7", "memo": "tea"}, {"amount_e8s": "8"}]},
    "channel.close": {"channel": CHANNEL, "force_after_s": "600"},
    "channel.dispute": {"channel": CHANNEL, "accept_risk": True},
    "channel.withdraw": {"channel": CHANNEL},
    "channel.recover": {"channel": CHANNEL},
    "payment.list": {"after": "3", "limit": 10},
    "payment.cancel": {"channel": CHANNEL, "payment": "0f" * 16},
    "event.subscribe": {"after": 1, "kinds": ["channel.updated"]},
}
"""Arguments of the methods that need some."""

TARGETS: tuple[Callable[[], Target], ...] = (
    amounts, configured_amounts, durations, phrases, configurations, environments, key_stores, control_lines,
)  # fmt: skip
