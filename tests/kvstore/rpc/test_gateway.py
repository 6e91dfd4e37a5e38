"""The JSON gateway and plain HTTP: the forms that real etcd 3.4.23 answered, on a whole member."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.command_pb2 import Command
from kvstore.server import Server
from tests.kvstore.rpc.member import running_member

HEADER = {
    "cluster_id": "14841639068965178418",
    "member_id": "10276657743932975437",
    "raft_term": "1",
}


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    async with (
        running_member(tmp_path) as (server, address),
        httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client,
    ):
        yield server, client


Member = tuple[Server, httpx.AsyncClient]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def test_put_and_range_as_captured(member: Member) -> None:
    _, client = member
    put = await client.post("/v3/kv/put", content='{"key":"Zm9v","value":"YmFy"}')
    assert json.loads(put.text) == {"header": {**HEADER, "revision": "2"}}
    assert put.text.startswith('{"header":{"cluster_id":"'), "compact, fields in order"
    found = await client.post("/v3/kv/range", content='{"key":"Zm9v"}')
    assert found.json() == {
        "header": {**HEADER, "revision": "2"},
        "kvs": [
            {
                "key": "Zm9v",
                "create_revision": "2",
                "mod_revision": "2",
                "version": "1",
                "value": "YmFy",
            }
        ],
        "count": "1",
    }


async def test_errors_have_the_keys_of_both_gateways(member: Member) -> None:
    _, client = member
    response = await client.post("/v3/kv/range", content='{"key":"Zm9v","revision":99}')
    text = "etcdserver: mvcc: required revision is a future revision"
    assert response.status_code == 400
    assert response.json() == {"error": text, "message": text, "code": 11}
    response = await client.post("/v3/lease/revoke", content='{"ID":"5"}')
    assert response.status_code == 404
    assert response.json()["message"] == "etcdserver: requested lease not found"
    response = await client.post("/v3/auth/enable", content="{}")
    assert response.status_code == 501
    assert response.json()["code"] == 12


@pytest.mark.parametrize(
    "body",
    ["{", "[1]", '{"key":"%%%"}', '{"key":5}', '{"limit":"many"}', '{"key":"YQ=="} trailing'],
)
async def test_bad_bodies_are_400_with_a_reason(member: Member, body: str) -> None:
    response = await member[1].post("/v3/kv/range", content=body)
    assert response.status_code == 400
    assert response.json()["code"] == 3
    assert response.json()["message"]


async def test_unknown_fields_numbers_enum_names_and_empty_bodies(member: Member) -> None:
    _, client = member
    for number in range(3):
        await post(client, "/v3/kv/put", {"key": b64(f"k{number}"), "value": "", "new": True})
    request = {"key": b64("k"), "range_end": b64("l"), "sort_order": "DESCEND", "limit": 2}
    found = await post(client, "/v3/kv/range", request)
    assert [base64.b64decode(kv["key"]) for kv in found["kvs"]] == [b"k2", b"k1"]
    assert (found["more"], found["count"]) == (True, "3")
    request = {"key": b64("k"), "range_end": b64("l"), "sort_order": 1, "limit": "1"}
    found = await post(client, "/v3/kv/range", request)
    assert base64.b64decode(found["kvs"][0]["key"]) == b"k0"
    response = await client.post("/v3/maintenance/status")
    assert response.json()["version"].startswith("3.6.")
    assert (await client.post("/v3beta/kv/range", json={"key": b64("k0")})).status_code == 200


async def test_txn_through_the_gateway(member: Member) -> None:
    _, client = member
    answer = await post(
        client,
        "/v3/kv/txn",
        {
            "compare": [{"key": b64("a"), "target": "CREATE", "create_revision": "0"}],
            "success": [{"request_put": {"key": b64("a"), "value": b64("1")}}],
            "failure": [{"request_range": {"key": b64("a")}}],
        },
    )
    assert answer["succeeded"] is True
    assert answer["responses"] == [{"response_put": {"header": {"revision": "2"}}}]


async def test_leases(member: Member) -> None:
    _, client = member
    granted = await post(client, "/v3/lease/grant", {"TTL": 60, "ID": "5"})
    assert (granted["ID"], granted["TTL"]) == ("5", "60")
    kept = await client.post("/v3/lease/keepalive", json={"ID": 5})
    assert json.loads(kept.text)["result"]["TTL"] == "60"
    left = await post(client, "/v3/kv/lease/timetolive", {"ID": 5, "keys": True})
    assert left["grantedTTL"] == "60"
    assert (await post(client, "/v3/lease/leases", {}))["leases"] == [{"ID": "5"}]
    await post(client, "/v3/kv/lease/revoke", {"ID": 5})
    gone = await client.post("/v3/lease/keepalive", json={"ID": 5})
    assert gone.json() == {"result": {"header": {**HEADER, "revision": "1"}, "ID": "5"}}
    gone = await client.post("/v3/lease/timetolive", json={"ID": 5})
    assert gone.json() == {"header": {**HEADER, "revision": "1"}, "ID": "5", "TTL": "-1"}


async def test_watch_sends_a_line_for_each_response(member: Member) -> None:
    _, client = member
    request = {"create_request": {"key": b64("w"), "range_end": b64("x")}}
    async with (
        asyncio.timeout(10),
        client.stream("POST", "/v3/watch", json=request) as response,
    ):
        lines = response.aiter_lines()
        created = json.loads(await anext(lines))
        assert created["result"]["created"] is True
        await post(client, "/v3/kv/put", {"key": b64("w1"), "value": b64("one")})
        event = json.loads(await anext(lines))["result"]["events"][0]
        assert base64.b64decode(event["kv"]["key"]) == b"w1"
        await post(client, "/v3/kv/deleterange", {"key": b64("w1")})
        event = json.loads(await anext(lines))["result"]["events"][0]
        assert event["type"] == "DELETE"


async def test_snapshot_stream(member: Member) -> None:
    _, client = member
    response = await client.post("/v3/maintenance/snapshot", json={})
    results = [json.loads(line)["result"] for line in response.text.splitlines()]
    size = sum(len(base64.b64decode(result["blob"])) for result in results)
    assert size % 512 == 32
    assert "remaining_bytes" not in results[-1]


async def test_paths_and_methods_that_are_not_there(member: Member) -> None:
    _, client = member
    for path in ("/v3/nope", "/v3/kv/put/"):
        response = await client.post(path)
        assert (response.status_code, response.text) == (404, "Not Found\n")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert (await client.get("/v3/kv/put")).status_code == 405
    response = await client.get("/nope")
    assert (response.status_code, response.text) == (404, "404 page not found\n")
    assert (await client.post("/version")).status_code == 405


async def test_too_large_a_body(member: Member) -> None:
    response = await member[1].post(
        "/v3/kv/put", json={"key": b64("k"), "value": b64("x" * 2_200_000)}
    )
    assert response.status_code == 429
    assert "received message larger than max" in response.json()["message"]
    response = await member[1].post(
        "/v3/kv/put", json={"key": b64("k"), "value": b64("x" * 1_600_000)}
    )
    assert response.status_code == 400
    assert response.json()["message"] == "etcdserver: request is too large"


async def test_health_and_version(member: Member) -> None:
    server, client = member
    health = await client.get("/health")
    assert (health.status_code, health.text) == (200, '{"health":"true","reason":""}')
    assert health.headers["content-type"] == "text/plain; charset=utf-8"
    version = await client.get("/version")
    assert version.headers["content-type"] == "application/json"
    for number in version.json().values():
        assert all(part.isdigit() for part in number.split("."))
    for probe in ("livez", "readyz", "livez/serializable_read", "readyz/linearizable_read"):
        response = await client.get(f"/{probe}")
        assert (response.status_code, response.text) == (200, "ok\n")
    verbose = await client.get("/readyz?verbose&exclude=non_learner")
    assert "[+]linearizable_read ok\n" in verbose.text
    assert "[+]non_learner excluded: ok\n" in verbose.text
    assert (await client.get("/livez/nope")).status_code == 404

    alarm = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=pb.CORRUPT)
    await server.context.propose(Command(alarm=alarm))
    health = await client.get("/health")
    assert (health.status_code, health.json()["reason"]) == (503, "ALARM CORRUPT")
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert "[-]data_corruption failed: alarm activated: CORRUPT" in ready.text


async def test_metrics_have_etcds_names(member: Member) -> None:
    _, client = member
    await post(client, "/v3/kv/put", {"key": b64("k"), "value": ""})
    page = (await client.get("/metrics")).text
    for line in (
        "etcd_server_has_leader 1.0",
        "etcd_server_proposals_failed_total 0.0",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Put"',
        "etcd_network_client_grpc_received_bytes_total",
        "process_resident_memory_bytes",
        "os_fd_used",
        "raftyard_event_loop_gap_seconds",
    ):
        assert f"\n{line}" in page, line


async def test_browsers_may_call(member: Member) -> None:
    _, client = member
    options = await client.request("OPTIONS", "/v3/kv/put")
    assert options.status_code == 200
    assert options.headers["access-control-allow-origin"] == "*"
    assert "POST" in options.headers["access-control-allow-methods"]


async def test_cors_and_host_whitelist(tmp_path: Path) -> None:
    flags = ("--cors", "http://good.example", "--host-whitelist", "127.0.0.1")
    async with (
        running_member(tmp_path, *flags) as (_, address),
        httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client,
    ):
        good = await client.get("/version", headers={"origin": "http://good.example"})
        assert good.headers["access-control-allow-origin"] == "http://good.example"
        bad = await client.get("/version", headers={"origin": "http://bad.example"})
        assert "access-control-allow-origin" not in bad.headers
        other = await client.get("/version", headers={"host": "evil.example"})
        assert other.status_code == 421


async def test_the_gateway_can_be_switched_off(tmp_path: Path) -> None:
    async with (
        running_member(tmp_path, "--enable-grpc-gateway=false") as (_, address),
        httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client,
    ):
        assert (await client.post("/v3/kv/range", json={})).status_code == 404
        assert (await client.get("/health")).status_code == 200
