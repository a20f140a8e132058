"""The socket itself, without our client: bytes in, bytes out."""

import asyncio
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from perund.control import server as server_module
from perund.control.client import ControlClient
from perund.control.connection import Limits
from perund.control.errors import NodeUnreachable
from perund.control.server import ControlServer
from perund.setup_errors import DirectoryError
from tests.unit.control.node_double import CHANNEL, NodeDouble


class Line:
    """A connection that writes whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: ControlServer) -> "Line":
        return cls(*await asyncio.open_unix_connection(str(server.path), limit=2**26))

    async def ask(self, *lines: bytes | dict[str, Any] | list[Any]) -> Any:
        self.send(*lines)
        return json.loads(await self.reader.readline())

    def send(self, *lines: bytes | dict[str, Any] | list[Any]) -> None:
        for line in lines:
            self.writer.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            assert self.reader.at_eof() or self.reader.exception() is not None


@pytest.fixture
async def line(server: ControlServer) -> Any:
    connected = await Line.to(server)
    yield connected
    await connected.close()


def request(method: str = "node.info", **fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, **fields}


@pytest.mark.parametrize(
    ("sent", "code", "request_id"),
    [
        (b"{", -32700, None),
        (b"nonsense", -32700, None),
        (b"\xff\xfe", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.info","params":{"a":}}', -32700, None),
        (b"5", -32600, None),
        (b"[]", -32600, None),
        (b"[1", -32700, None),
        (b'{"id":7}', -32600, 7),
        (b'{"jsonrpc":"1.0","id":7,"method":"node.info"}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"node.info"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":{},"method":"node.info"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":"x","method":5}', -32600, "x"),
        (b'{"jsonrpc":"2.0","id":"x","method":"no.such"}', -32601, "x"),
        (b'{"jsonrpc":"2.0","id":"x","method":"node.info","params":5}', -32602, "x"),
    ],
)
async def test_what_is_no_call_gets_a_standard_code_and_the_connection_lives(
    line: Line, sent: bytes, code: int, request_id: Any
) -> None:
    answer = await line.ask(sent)
    assert answer["error"]["code"] == code
    assert answer["id"] == request_id
    assert answer["jsonrpc"] == "2.0"
    assert {"name", "hint", "retryable"} == set(answer["error"]["data"])
    assert (await line.ask(request()))["result"]["network"] == "local"


@pytest.mark.parametrize("request_id", [0, -1, 2**63, "text", "", None])
async def test_ids_come_back_as_they_were(line: Line, request_id: Any) -> None:
    answer = await line.ask({**request(), "id": request_id})
    assert answer["id"] == request_id
    assert "result" in answer


async def test_empty_lines_and_carriage_returns_do_not_matter(line: Line) -> None:
    assert "result" in await line.ask(b"", b"  ", json.dumps(request()).encode() + b"\r")


async def test_a_call_may_arrive_in_pieces(line: Line) -> None:
    for byte in json.dumps(request()).encode():
        line.writer.write(bytes([byte]))
        await line.writer.drain()
    assert "result" in await line.ask(b"")


async def test_notifications_are_carried_out_and_never_answered(line: Line, node: NodeDouble) -> None:
    pay = {"jsonrpc": "2.0", "method": "channel.pay", "params": [CHANNEL, "5"]}
    wrong = {"jsonrpc": "2.0", "method": "no.such"}
    answer = await line.ask(pay, wrong, {**request(), "id": 9})
    assert answer["id"] == 9
    assert node.done == ["channel.pay"]


async def test_a_batch_is_answered_as_one_array(line: Line) -> None:
    answer = await line.ask([request(id=1), {"jsonrpc": "2.0", "method": "node.health"}, request("no.such", id=2), 5])
    assert {entry["id"]: "result" in entry for entry in answer} == {1: True, 2: False, None: False}


async def test_a_batch_of_notifications_is_not_answered(line: Line, node: NodeDouble) -> None:
    answer = await line.ask([{"jsonrpc": "2.0", "method": "node.health"}], {**request(), "id": 3})
    assert answer["id"] == 3


async def test_a_batch_is_bounded(line: Line) -> None:
    answer = await line.ask([5] * 1_001)
    assert "1 to 1000 calls" in answer["error"]["message"]


async def test_a_line_of_a_mebibyte_passes_and_a_longer_one_ends_the_connection(server: ControlServer) -> None:
    line = await Line.to(server)
    padding = 1_048_576 - len(json.dumps(request(pad="")))
    assert "result" in await line.ask(request(pad="x" * padding))
    answer = await line.ask(request(pad="x" * (padding + 1)))
    assert answer["error"]["data"]["name"] == "invalid_request"
    assert "1048576 bytes" in answer["error"]["message"]
    assert await line.rest() == b""
    await line.close()


async def test_a_line_without_an_end_is_not_collected_for_ever(server: ControlServer) -> None:
    line = await Line.to(server)
    line.writer.write(b"x" * 1_048_577)
    assert b"longer than" in await line.rest()
    await line.close()


async def test_a_client_that_ends_its_half_still_gets_its_answer(line: Line) -> None:
    line.send(request())
    line.writer.write_eof()
    assert json.loads(await line.rest())["result"]["network"] == "local"


async def test_a_client_that_hangs_up_cancels_nothing(server: ControlServer, node: NodeDouble) -> None:
    node.hold = True
    line = await Line.to(server)
    line.send(request("channel.close", params=[CHANNEL]), request("channel.pay", params=[CHANNEL, "5"]))
    watcher = await Line.to(server)
    while len(node.calls) < 2:
        await watcher.ask(request("peer.list"))
        node.calls = [call for call in node.calls if call[0] != "peer.list"]
    await line.close()
    while server.clients > 1:
        await watcher.ask(request("peer.list"))
    node.release.set()
    for params, reply in node.replies:
        node.pay(params, reply)
    while len(node.done) < 2:
        await watcher.ask(request("peer.list"))
    assert sorted(node.done) == ["channel.close", "channel.pay"]
    await watcher.close()


async def test_the_socket_is_private(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


async def test_another_user_is_turned_away(
    server: ControlServer, node: NodeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_uid_of", lambda _: 12_345)
    line = await Line.to(server)
    assert b"only the user" in await line.rest()
    assert node.calls == []
    await line.close()


async def test_clients_are_bounded(node: NodeDouble, data_dir: Path) -> None:
    server = ControlServer(node, data_dir, version="0", limits=Limits(clients=2))
    await server.start()
    lines = [await Line.to(server) for _ in range(2)]
    for line in lines:
        await line.ask(request())
    late = await Line.to(server)
    answer = json.loads(await late.rest())
    assert (answer["error"]["data"]["name"], answer["error"]["data"]["retryable"]) == ("busy", True)
    for line in (*lines, late):
        await line.close()
    await server.stop()


async def test_a_client_that_never_reads_is_dropped(node: NodeDouble, data_dir: Path) -> None:
    server = ControlServer(node, data_dir, version="0", limits=Limits(unread_bytes=10_000, slow_s=0.05))
    await server.start()
    line = await Line.to(server)
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line.send(*[request("rpc.discover")] * 50)
    watcher = await Line.to(server)
    await watcher.ask(request())
    while server.clients > 1:
        await watcher.ask(request())
    assert "result" in await watcher.ask(request())
    for each in (line, watcher):
        await each.close()
    await server.stop()


async def test_calls_in_flight_are_bounded_by_not_reading(node: NodeDouble, data_dir: Path) -> None:
    server = ControlServer(node, data_dir, version="0", limits=Limits(in_flight=10))
    await server.start()
    node.hold = True
    line = await Line.to(server)
    line.send(*[request("channel.pay", params=[CHANNEL, "1"]) for _ in range(20_000)])
    other = await Line.to(server)
    for _ in range(20):
        await other.ask(request())
    held = len(node.replies)
    # One received chunk may go over the bound, not all that the client would like.
    assert 10 < held < 20_000
    node.hold = False
    for params, reply in node.replies:
        node.pay(params, reply)
    for _ in range(20_000):
        assert b"result" in await line.reader.readline()
    for each in (line, other):
        await each.close()
    await server.stop()


async def test_a_socket_left_by_a_killed_node_is_replaced(node: NodeDouble, data_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
        killed.bind(str(data_dir / "control.sock"))
        killed.listen()
    again = ControlServer(node, data_dir, version="0")
    await again.start()
    line = await Line.to(again)
    assert "result" in await line.ask(request())
    await line.close()
    await again.stop()


async def test_a_socket_that_another_program_listens_on_is_not_replaced(
    server: ControlServer, node: NodeDouble
) -> None:
    with pytest.raises(DirectoryError, match="another program listens"):
        await ControlServer(node, server.path.parent, version="0").start()
    line = await Line.to(server)
    assert "result" in await line.ask(request())
    await line.close()


async def test_a_file_in_the_sockets_place_is_not_replaced(node: NodeDouble, data_dir: Path) -> None:
    (data_dir / "control.sock").write_text("precious")
    with pytest.raises(DirectoryError, match="not a socket"):
        await ControlServer(node, data_dir, version="0").start()
    assert (data_dir / "control.sock").read_text() == "precious"


async def test_a_path_that_is_too_long_is_explained(node: NodeDouble, data_dir: Path) -> None:
    deep = data_dir / ("x" * 100)
    deep.mkdir()
    with pytest.raises(DirectoryError, match="shorter path"):
        await ControlServer(node, deep, version="0").start()


async def test_stopping_lets_calls_finish_and_ends_those_that_wait(node: NodeDouble, data_dir: Path) -> None:
    server = ControlServer(node, data_dir, version="0")
    await server.start()
    node.hold = True
    line = await Line.to(server)
    line.send(request("channel.close", params=[CHANNEL]))
    await node.called.wait()
    await server.stop(grace_s=0.01)
    answer = json.loads(await line.reader.readline())
    assert answer["error"]["data"]["name"] == "node_stopping"
    assert await line.rest() == b""
    assert not server.path.exists()
    await line.close()


async def test_events_follow_from_a_cursor_on(client: ControlClient, node: NodeDouble) -> None:
    cursors = []
    async for event in client.events(after=1):
        cursors.append(event.cursor)
        if len(cursors) == 2:
            break
    assert cursors == [2, 3]
    assert "result" not in (await client.call("node.info"))


async def test_a_subscription_ends_with_its_connection(server: ControlServer, node: NodeDouble) -> None:
    line = await Line.to(server)
    answer = await line.ask(request("event.subscribe", params={"after": 0}))
    assert answer["result"] == {"subscription": 1, "cursor": 0}
    first = json.loads(await line.reader.readline())
    assert first["method"] == "event"
    assert first["params"]["cursor"] == 1
    assert first["params"]["subscription"] == 1
    assert "id" not in first
    await line.close()
    watcher = await Line.to(server)
    while node.feeds_open:
        await watcher.ask(request())
    await watcher.close()


async def test_subscriptions_of_a_connection_are_bounded(server: ControlServer) -> None:
    line = await Line.to(server)
    line.send(*[request("event.subscribe") for _ in range(17)])
    answers: list[Any] = []
    while len(answers) < 17:
        answer = json.loads(await line.reader.readline())
        if "id" in answer:
            answers.append(answer)
    assert sum("error" in answer for answer in answers) == 1
    await line.close()


async def test_without_a_node_the_client_says_how_to_start_it(data_dir: Path) -> None:
    with pytest.raises(NodeUnreachable, match="no node runs") as caught:
        await ControlClient.connect(data_dir)
    assert "perund run --dir" in caught.value.hint
    assert not caught.value.sent


async def test_a_node_that_goes_away_during_a_call_is_told_apart(server: ControlServer, node: NodeDouble) -> None:
    node.hold = True
    client = await ControlClient.connect(server.path)
    call = asyncio.ensure_future(client.call("channel.pay", [CHANNEL, "5"]))
    await node.called.wait()
    await server.stop(grace_s=0)
    with pytest.raises(NodeUnreachable, match="hung up") as caught:
        await call
    assert caught.value.sent
