"""The generic client repeats only what certainly was not applied; the blocking node and client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from consensus import (
    ConfigError,
    Consistency,
    Node,
    NotLeader,
    OutcomeUnknown,
    ProposalDropped,
    QueueFull,
    ReadFailed,
)
from consensus.client import Client, SyncClient
from consensus.engines.local import LocalEngine
from consensus.engines.pysyncobj import PySyncObjEngine
from consensus.server import NodeServer
from consensus.sync import SyncNode
from consensus.testing import RecordingMachine
from consensus.wire import BadRequest, decode_result, encode_result
from tests.consensus.served import Notes
from tests.interop import free_ports
from tests.waiting import wait_until

Answer = dict[str, Any] | Callable[[asyncio.StreamWriter], None]


class Scripted:
    """An HTTP server that gives the answers it was told to, one after the other."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.address = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(json.loads(await reader.readexactly(length)))
        answer = self.answers.pop(0)
        if callable(answer):
            answer(writer)
        else:
            data = json.dumps(answer).encode()
            head = "HTTP/1.1 200 OK\r\nconnection: close\r\n"
            writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        writer.close()


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Scripted]:
    script = Scripted(*answers)
    server = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    async with server:
        script.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield script


APPLIED = {"outcome": "applied", "term": 2, "index": 7, "result": {"base64": "aGk="}}


def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_certain_refusals_are_tried_again_elsewhere() -> None:
    async with (
        scripted({"outcome": "not_leader", "leader": None}, {"outcome": "dropped"}) as one,
        scripted({"outcome": "queue_full"}, APPLIED) as two,
        Client([one.address, two.address]) as client,
    ):
        applied = await client.propose(b"x")
        assert (applied.term, applied.index, applied.result) == (2, 7, b"hi")
        assert len(one.requests) == len(two.requests) == 2


async def test_a_member_that_cannot_be_reached_was_sent_nothing() -> None:
    (port,) = free_ports(1)
    async with scripted(APPLIED) as two, Client([f"127.0.0.1:{port}", two.address]) as client:
        assert (await client.propose(b"x")).index == 7
        assert len(two.requests) == 1


@pytest.mark.parametrize(
    "answer", [{"outcome": "unknown", "message": "?"}, hang_up, {"outcome": "from the future"}, {}]
)
async def test_an_unknown_outcome_is_never_sent_again(answer: Answer) -> None:
    async with scripted(answer, APPLIED) as one, Client([one.address]) as client:
        with pytest.raises(OutcomeUnknown):
            await client.propose(b"x")
        assert len(one.requests) == 1


async def test_reads_are_tried_again_whatever_happened() -> None:
    answers = [hang_up, {"outcome": "read_failed"}, {"outcome": "answered", "result": [1]}]
    async with scripted(*answers) as one, Client([one.address]) as client:
        assert await client.query(b"x") == [1]
        assert len(one.requests) == 3


async def test_when_time_is_up_the_error_says_what_is_certain() -> None:
    (port,) = free_ports(1)
    async with Client([f"127.0.0.1:{port}"]) as client:
        with pytest.raises(ProposalDropped, match="cannot be reached"):
            await client.propose(b"x", timeout_s=0.2)
        with pytest.raises(ReadFailed, match="cannot be reached"):
            await client.query(b"x", timeout_s=0.2)
    refusals = [{"outcome": "queue_full", "message": "full"}] * 50
    async with scripted(*refusals) as one, Client([one.address]) as client:
        with pytest.raises(QueueFull, match="full"):
            await client.propose(b"x", timeout_s=0.2)


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1", "https://127.0.0.1:1", "http://:5"])
def test_wrong_endpoints_are_named(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"not host:port|at least one"):
        Client([endpoint] if endpoint else [])


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with node:
        task = asyncio.create_task(NodeServer(node, [address]).run())
        try:
            async with Client([address]) as client:

                async def answers() -> bool:
                    return "error" not in (await client.status())[f"http://{address}"]

                await wait_until(answers)
            yield address
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_bytes_and_json_come_back_as_they_were() -> None:
    machine = RecordingMachine()
    async with serving(Node(machine, LocalEngine())) as address, Client([address]) as client:
        command = bytes(range(256)) * 4096
        assert (await client.propose(command)).result == 1
        assert machine.commands == [command]
    for result in (None, 5, "text", [1, {"a": 2}], b"\x00\xff", {"base64": "x", "more": 1}):
        assert decode_result(json.loads(json.dumps(encode_result(result)))) == result


async def test_a_serializable_query_needs_no_quorum(tmp_path: Path) -> None:
    ports = free_ports(3)
    members = {name: f"127.0.0.1:{port}" for name, port in zip("abc", ports, strict=True)}
    node = Node(Notes(), PySyncObjEngine("a", members, tmp_path))
    async with serving(node) as address, Client([address]) as client:
        request = Notes.encode("all")
        assert await client.query(request, Consistency.SERIALIZABLE) == []
        with pytest.raises(ReadFailed):
            await client.query(request, timeout_s=0.3)
        with pytest.raises(NotLeader):
            await client.propose(Notes.encode("add", text="x"), timeout_s=0.3)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/propose", b"{", "not JSON"),
        ("/propose", b"[]", "must be a JSON object"),
        ("/propose", b'{"command": "%"}', "not base64"),
        ("/propose", b'{"method": 5}', "must have 'command'"),
        ("/propose", b'{"method": "add", "timeout_s": -1}', "'timeout_s' must be"),
        ("/query", b'{"method": "all", "consistency": "maybe"}', "linearizable, serializable"),
        ("/elsewhere", b"{}", "there is POST /propose"),
    ],
)
async def test_bad_requests_are_told_what_is_wrong(path: str, body: bytes, said: str) -> None:
    import httpx

    async with serving(Node(Notes(), LocalEngine())) as address, httpx.AsyncClient() as http:
        response = await http.post(f"http://{address}{path}", content=body)
        assert response.status_code in (400, 404)
        assert response.json()["outcome"] == "bad_request"
        assert said in response.json()["message"]


async def test_a_question_that_the_machine_does_not_understand_is_no_crash() -> None:
    class Strict(RecordingMachine):
        def query(self, request: Any) -> Any:
            raise ValueError("what?")

    async with serving(Node(Strict(), LocalEngine())) as address, Client([address]) as client:
        with pytest.raises(BadRequest, match="what"):
            await client.query(b"hm")
        assert (await client.propose(b"goes on")).result == 1


def test_the_blocking_node_and_client(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    engine = PySyncObjEngine("one", {"one": f"127.0.0.1:{port}"}, tmp_path)
    with SyncNode(Notes(), engine) as node:
        assert node.wait_leader(10.0) == "one"
        assert node.propose(Notes.encode("add", text="x")).result == 1
        assert node.query(Notes.encode("all")) == ["x"]
        assert node.status().applied_index == 1
    node.stop()
    (free,) = free_ports(1)
    with SyncClient([f"127.0.0.1:{free}"]) as client:
        with pytest.raises(ReadFailed):
            client.query(b"x", timeout_s=0.1)
        assert "error" in client.status()[f"http://127.0.0.1:{free}"]
    client.close()


def test_a_blocking_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    members = {"one": f"127.0.0.1:{port}"}
    with SyncNode(Notes(), PySyncObjEngine("one", members, tmp_path)) as node:
        other = SyncNode(Notes(), PySyncObjEngine("one", members, tmp_path / "other"))
        with pytest.raises(ConfigError, match="cannot listen"):
            other.start()
        assert node.wait_leader(10.0) == "one"
